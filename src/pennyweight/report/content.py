"""The paper's content: sections of paragraphs, tables and figures, made from facts alone.

One content, two outputs: `typeset` renders it as Typst and as LaTeX. Text holds no markup but
what `Text` says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pennyweight.budget.methods import METHODS
from pennyweight.report.facts import Facts, RunFacts
from pennyweight.report.figures import FIGURES

__all__ = ["Block", "Content", "Figure", "Section", "Table", "Text", "make_content"]


@dataclass(frozen=True, slots=True)
class Text:
    """A paragraph. `*word*` is emphasized, `**word**` bold, `` `word` `` code."""

    text: str
    is_item: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """A table with a caption; numbers are set as they are given."""

    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure by the name that `figures.FIGURES` gives it."""

    name: str
    caption: str


Block = Text | Table | Figure


@dataclass(frozen=True, slots=True)
class Section:
    """A section; the author's prose comes first, then what the facts say."""

    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True, slots=True)
class Content:
    """A whole paper."""

    title: str
    authors: tuple[str, ...]
    link: str | None
    abstract: str
    sections: tuple[Section, ...]
    references: tuple[str, ...] = field(default=())


_REFERENCES: Mapping[str, str] = {
    "roberta": "Liu, Y.; et al. 2019. RoBERTa: A Robustly Optimized BERT Pretraining Approach. "
    "arXiv:1907.11692.",
    "minilm": "Wang, W.; et al. 2020. MiniLM: Deep Self-Attention Distillation for Task-Agnostic "
    "Compression of Pre-Trained Transformers. arXiv:2002.10957.",
    "agnews": "Zhang, X.; Zhao, J.; and LeCun, Y. 2015. Character-level Convolutional Networks for "
    "Text Classification. arXiv:1509.01626.",
    "peft": "Mangrulkar, S.; et al. 2022. PEFT: State-of-the-art Parameter-Efficient Fine-Tuning "
    "methods. github.com/huggingface/peft.",
    "wilson": "Wilson, E. B. 1927. Probable Inference, the Law of Succession, and Statistical "
    "Inference. Journal of the American Statistical Association 22.",
    "calibration": "Guo, C.; et al. 2017. On Calibration of Modern Neural Networks. "
    "arXiv:1706.04599.",
    "distillation": "Hinton, G.; Vinyals, O.; and Dean, J. 2015. Distilling the Knowledge in a "
    "Neural Network. arXiv:1503.02531.",
    "qlora": "Dettmers, T.; et al. 2023. QLoRA: Efficient Finetuning of Quantized LLMs. "
    "arXiv:2305.14314.",
    "prior": "Saerens, M.; Latinne, P.; and Decaestecker, C. 2002. Adjusting the Outputs of a "
    "Classifier to New a Priori Probabilities. Neural Computation 14.",
    "mcnemar": "McNemar, Q. 1947. Note on the Sampling Error of the Difference Between Correlated "
    "Proportions or Percentages. Psychometrika 12.",
    "adamw": "Loshchilov, I.; and Hutter, F. 2019. Decoupled Weight Decay Regularization. "
    "arXiv:1711.05101.",
}


def make_content(
    facts: Facts,
    *,
    title: str,
    authors: tuple[str, ...],
    link: str | None,
    prose: Mapping[str, tuple[Text, ...]],
    drawn: frozenset[str],
) -> Content:
    """The paper of a report.

    Args:
        facts: runs and a study.
        title: of the paper.
        authors: in order.
        link: to the repository.
        prose: the author's own paragraphs by section, and of sections of their own.
        drawn: names of the figures that there are.
    """
    made = {
        "Overview": _overview(facts),
        "Methodology": _methodology(facts, drawn),
        "Results": _results(facts, drawn),
        "Lessons": _lessons(facts, drawn),
    }
    own = [name for name in prose if name not in made and name != "Abstract"]
    order = [*list(made)[:-1], *own, "Lessons"]
    sections = [
        Section(name, (*prose.get(name, ()), *made.get(name, ())))
        for name in order
        if prose.get(name) or made.get(name)
    ]
    given = prose.get("Abstract")
    abstract = " ".join(text.text for text in given) if given else _abstract(facts)
    return Content(title, authors, link, abstract, tuple(sections), _references(facts))


def _percent(value: float) -> str:
    return f"{100 * value:.2f} %"


def _base(run: RunFacts) -> str:
    """Its hub id, or the last part of a directory's name."""
    reference = str(run.record.base["reference"])
    return Path(reference).name if run.record.base["origin"] == "directory" else reference


def _accuracy(run: RunFacts, name: str) -> str:
    metrics = run.record.metrics[name]
    low, high = metrics["accuracy_interval"]
    return f"{_percent(metrics['accuracy'])} (95 % interval {100 * low:.2f} to {100 * high:.2f})"


def _abstract(facts: Facts) -> str:
    run = facts.main
    counts, classes = run.record.parameters, len(run.record.recipe["data"]["labels"])
    name = run.sets[0]
    return (
        f"We adapt {_base(run)} to {classes} classes "
        f"under a budget of {counts['budget']:,} trainable parameters. The saved artifact holds "
        f"{counts['file']:,}. Accuracy on {name} is {_accuracy(run, name)}, "
        f"over {run.record.metrics[name]['rows']:,} rows."
    )


def _overview(facts: Facts) -> tuple[Block, ...]:
    run = facts.main
    record = run.record
    sets = ", ".join(
        f"{name} {entry['rows']:,}" for name, entry in record.data.get("sets", {}).items()
    )
    removed = record.data.get("removed_from_train", 0)
    found = [
        Text(
            f"The base is {_base(run)}, frozen. Rows: {sets}. {removed} training "
            "rows stood in a held-out set too and were taken out before training. The labelled "
            "test was read once, after everything had been chosen on validation."
        ),
        Text(
            "Findings. "
            + " ".join(f"Accuracy on {name} is {_accuracy(run, name)}." for name in run.sets)
        ),
    ]
    return (*found, *(Text(note) for note in run.notes))


def _methodology(facts: Facts, drawn: frozenset[str]) -> tuple[Block, ...]:
    run = facts.main
    record, recipe = run.record, run.record.recipe
    adapter, optimizer, train = recipe["adapter"], recipe["optimizer"], recipe["train"]
    what = METHODS[adapter["method"]].summary if adapter["method"] in METHODS else "every weight"
    planned = record.plan["matrices"]
    counted: dict[str, int] = {}
    for matrix in planned:
        counted[matrix["kind"]] = counted.get(matrix["kind"], 0) + matrix["parameters"]
    rows = [
        ("adapter", f"{adapter['method']}: {what}{_cost(counted, adapter['method'])}"),
        ("targets", _targets(adapter)),
        ("rank, alpha", f"{_spread(planned, 'rank')}, {_spread(planned, 'alpha')}"),
        ("head", f"{adapter.get('head', 'full')}{_cost(counted, 'head')}"),
        ("optimizer", f"{optimizer['method']}, rate {optimizer['learning_rate']:g}"),
        ("schedule", _schedule(optimizer["schedule"])),
        ("epochs, batch", f"{train['epochs']}, {train['batch_rows']} rows"),
        ("cleaning", ", ".join(recipe["data"]["clean"]) or "none"),
    ]
    spent = ", ".join(f"{kind} {count:,}" for kind, count in counted.items())
    blocks: list[Block] = [
        Table("The recipe.", ("choice", "value"), tuple(rows)),
        Text(
            f"The budget goes to {spent}: {record.parameters['planned']:,} in all, "
            f"{record.parameters['planned'] / record.parameters['budget']:.1%} of what is allowed. "
            "Planned on shapes alone, the count was found again in the model that was trained and "
            "in the header of the saved file."
        ),
    ]
    for step in record.data.get("lab", {}).get("steps", []):
        told = ", ".join(
            f"{value:,} rows {key}"
            for key, value in step.items()
            if key in ("added", "removed") and isinstance(value, int)
        )
        blocks.append(Text(f"Data lab, {step['step']}: {told}.", is_item=True))
    if "ranks" in drawn:
        blocks.append(Figure("ranks", FIGURES["ranks"][0]))
    return tuple(blocks)


def _targets(adapter: Mapping[str, object]) -> str:
    targets = adapter.get("targets", ["*"])
    assert isinstance(targets, list)  # noqa: S101 - as the record's recipe has it
    return "every linear layer" if targets == ["*"] else ", ".join(targets)


def _cost(counted: Mapping[str, int], kind: str) -> str:
    return f"; {counted[kind]:,} parameters" if kind in counted else ""


def _spread(matrices: Sequence[Mapping[str, float]], key: str) -> str:
    """The one value that all adapters have, or the least and the most."""
    values = sorted({matrix[key] for matrix in matrices if matrix[key] is not None})
    if not values:
        return "none"
    return f"{values[0]:g}" if len(values) == 1 else f"{values[0]:g} to {values[-1]:g}"


def _schedule(schedule: Mapping[str, object]) -> str:
    steps, share = schedule.get("warmup_steps"), schedule.get("warmup_ratio")
    if steps:
        return f"{schedule['method']}, warm-up of {steps} steps"
    if isinstance(share, float) and share:
        return f"{schedule['method']}, warm-up of {share:.0%} of the steps"
    return str(schedule["method"])


def _results(facts: Facts, drawn: frozenset[str]) -> tuple[Block, ...]:
    run = facts.main
    rows = [
        (
            name,
            f"{m['rows']:,}",
            f"{100 * m['accuracy']:.2f}",
            "{:.2f}-{:.2f}".format(*(100 * x for x in m["accuracy_interval"])),
            f"{m['macro_f1']:.4f}",
            f"{m['ece']:.3f}",
        )
        for name in run.sets
        for m in (run.record.metrics[name],)
    ]
    counts = run.record.parameters
    blocks: list[Block] = [
        Table(
            "Accuracy in %, with its Wilson interval; macro F1; calibration error.",
            ("set", "rows", "acc.", "95 %", "F1", "ECE"),
            tuple(rows),
        ),
        Text(
            f"{counts['file']:,} trainable parameters, proved from the saved file; "
            f"{run.record.plan['total_parameters']:,} in all. The run took "
            f"{run.record.seconds:,.0f} seconds and {run.record.peak_memory_bytes / 1e9:.1f} GB at "
            f"its peak, on {run.record.compute['why'].split(',')[0]}."
        ),
    ]
    blocks += [
        Figure(name, f"{FIGURES[name][0]}{_on(run, name)}")
        for name in ("curves", "confusion", "reliability")
        if name in drawn
    ]
    return tuple(blocks)


def _on(run: RunFacts, name: str) -> str:
    return f" Set: {run.sets[0]}." if name == "confusion" else ""


def _lessons(facts: Facts, drawn: frozenset[str]) -> tuple[Block, ...]:
    blocks: list[Block] = []
    run = facts.main
    name = run.sets[0]
    metrics = run.record.metrics[name]
    worst = min(metrics["classes"], key=lambda entry: entry["f1"])
    best = max(metrics["classes"], key=lambda entry: entry["f1"])
    blocks.append(
        Text(
            f"On {name}, {best['label']} is the easiest class (F1 {best['f1']:.3f}) and "
            f"{worst['label']} the hardest (F1 {worst['f1']:.3f})."
        )
    )
    if facts.study is not None:
        blocks += [*_study_words(facts, name), _study_table(facts, name)]
    elif len(facts.runs) > 1:
        blocks.append(_runs_table(facts, name))
    for figure in ("comparison", "spending"):
        if figure in drawn:
            blocks.append(Figure(figure, FIGURES[figure][0]))
    return tuple(blocks)


def _study_words(facts: Facts, name: str) -> list[Block]:
    """What stands out in the study, with its test against the first row."""
    assert facts.study is not None  # noqa: S101 - asked for only then
    rows = [row for row in facts.study["rows"] if name in row["mean"]]
    if len(rows) < 2:
        return []
    first, best = rows[0], max(rows, key=lambda row: row["mean"][name])
    if best is first:
        return [Text(f"In the study no row is more accurate on {name} than {first['name']}.")]
    gain = 100 * (best["mean"][name] - first["mean"][name])
    p = best["p"].get(name)
    told = f"paired test over seeds: p = {p:.3f}" if p is not None else "too few seeds for a test"
    return [
        Text(
            f"In the study {best['name']} is the most accurate on {name}, {gain:.2f} points above "
            f"{first['name']} ({told})."
        )
    ]


def _study_table(facts: Facts, name: str) -> Table:
    assert facts.study is not None  # noqa: S101 - asked for only then
    rows = []
    for row in facts.study["rows"]:
        if name not in row["mean"]:
            continue
        interval = row["interval"][name]
        p = row["p"].get(name)
        rows.append(
            (
                row["name"],
                f"{100 * row['mean'][name]:.2f}",
                "{:.2f}-{:.2f}".format(*(100 * x for x in interval)) if interval else "",
                "" if p is None else f"{p:.3f}",
                f"{row['parameters']:,}",
            )
        )
    caption = f"{facts.study['summary'] or 'The study'}: accuracy on {name} in %, over seeds."
    return Table(caption, ("row", "acc.", "95 %", "p", "parameters"), tuple(rows))


def _runs_table(facts: Facts, name: str) -> Table:
    rows = [
        (
            run.name,
            f"{100 * run.record.metrics[name]['accuracy']:.2f}",
            f"{run.record.parameters['file']:,}",
            f"{run.record.seconds:,.0f}",
        )
        for run in facts.runs
        if name in run.record.metrics
    ]
    caption = f"Runs compared: accuracy on {name} in %, parameters, seconds."
    return Table(caption, ("run", "acc.", "parameters", "s"), tuple(rows))


def _references(facts: Facts) -> tuple[str, ...]:
    """Of the methods that the main run used, and of what its numbers rest on."""
    recipe = facts.main.record.recipe
    found = []
    method = recipe["adapter"]["method"]
    if method in METHODS:
        found.append(f"{METHODS[method].paper}.")
    base = str(facts.main.record.base["reference"]).lower()
    keys = ["peft", "wilson", "calibration"]
    keys += ["roberta"] if "roberta" in base else []
    keys += ["minilm"] if "minilm" in base else []
    keys += ["agnews"] if "ag_news" in str(recipe["data"]).lower() else []
    keys += ["distillation"] if recipe.get("distillation") else []
    keys += ["qlora"] if recipe["base"].get("quantization", "none") != "none" else []
    keys += ["adamw"] if recipe["optimizer"]["method"] == "adamw" else []
    prior = (recipe.get("transduction") or {}).get("prior")
    keys += ["prior"] if prior else []
    return tuple(sorted(found + [_REFERENCES[key] for key in keys]))
