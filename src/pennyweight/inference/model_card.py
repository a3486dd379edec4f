"""Model cards: the README.md of a run's adapter, of a fully trained model, and of a merged model.

The front matter is that of the Hugging Face Hub.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from huggingface_hub import EvalResult, ModelCardData

from pennyweight.budget.methods import METHODS
from pennyweight.evaluation.metrics import MultiLabelMetrics, headline_in
from pennyweight.inference.card_usage import (
    artifact_notes,
    hub_id,
    pennyweight_use,
    plain_use,
    usage_notes,
    whole_model_use,
)
from pennyweight.runs.directory import RunDirectory
from pennyweight.runs.record import RunRecord, write_text
from pennyweight.runs.results import BASELINES, baseline_headlines, ordered_sets

__all__ = [
    "CardMetadata",
    "merged_sections",
    "write_card",
    "write_merged_card",
    "write_model_card",
]

_FILE = "README.md"
# Labels that are listed; of more, the others are in pennyweight.json.
_LABELS = 20


@dataclass(frozen=True, slots=True)
class CardMetadata:
    """Entries of a card's front matter that are not in the run's record.

    Attributes:
        library_name: the library that loads the model, as the hub calls it.
        license_id: the license's identifier on the hub.
        datasets: ids of data sets on the hub that the model was trained on; those that the recipe
            names are added.
        relation: how the model relates to its base, as the hub calls it.
    """

    library_name: str
    license_id: str = "unknown"
    datasets: tuple[str, ...] = ()
    relation: Literal["adapter", "finetune", "merge", "quantized"] = "adapter"


def write_card(
    directory: Path, record: RunRecord, metadata: CardMetadata, sections: Sequence[str]
) -> None:
    """Write a card: front matter, the description of the run with its metrics, then sections.

    Raises:
        RunError: the file cannot be written.
    """
    blocks = (_front_matter(record, metadata), *_description(record), *sections)
    write_text(directory / _FILE, "\n\n".join(blocks) + "\n")


def write_model_card(run_directory: Path, record: RunRecord) -> None:
    """Write the card of a run's adapter, or of its model after full fine-tuning.

    Args:
        run_directory: of the run.
        record: of the run, with its counts and metrics.

    Raises:
        RunError: the file cannot be written.
    """
    method = METHODS[record.recipe.adapter.method]
    artifact = RunDirectory(run_directory).artifact(method.artifact)
    is_adapter = not method.trains_every_weight
    sections = [
        "## Use with Pennyweight",
        pennyweight_use(record, directory=run_directory.name),
        "`Classifier.load` needs the whole run directory, not this folder alone.",
        "## Use with PEFT" if is_adapter else "## Use with transformers",
        plain_use(artifact, record) if is_adapter else whole_model_use(record),
        *artifact_notes(record, artifact),
    ]
    if is_adapter:
        metadata = CardMetadata("peft")
    else:
        metadata = CardMetadata("transformers", relation="finetune")
    write_card(artifact, record, metadata, sections)


def write_merged_card(directory: Path, record: RunRecord) -> None:
    """Write the card of a merged model.

    Raises:
        RunError: the file cannot be written.
    """
    metadata = CardMetadata("transformers", relation="merge")
    write_card(directory, record, metadata, merged_sections(record))


def merged_sections(record: RunRecord) -> list[str]:
    """Return the sections of a merged model's card that say how it is used."""
    is_whole = METHODS[record.recipe.adapter.method].trains_every_weight
    return [
        *([] if is_whole else [_merged(record)]),
        "## Use with transformers",
        whole_model_use(record),
        "## What you have to do yourself",
        "\n".join(f"- {note}" for note in usage_notes(record)),
    ]


def _merged(record: RunRecord) -> str:
    text = "The adapter is merged into the weights of the base."
    if record.calibration is None:
        return text
    return (
        f"{text} The temperature {record.calibration.temperature:.4f}, which calibrates the "
        "probabilities, is folded into the output layer."
    )


def _front_matter(record: RunRecord, metadata: CardMetadata) -> str:
    base = hub_id(record)
    datasets = dict.fromkeys((*metadata.datasets, *_hub_datasets(record)))
    data = ModelCardData(
        license=metadata.license_id,
        library_name=metadata.library_name,
        base_model=base,
        base_model_relation=None if base is None else metadata.relation,
        datasets=list(datasets) or None,
        pipeline_tag="text-classification",
        tags=["pennyweight", record.recipe.adapter.method],
        model_name=record.recipe.name,
        eval_results=list(_eval_results(record)) or None,
    )
    return f"---\n{data.to_yaml()}\n---"


def _hub_datasets(record: RunRecord) -> list[str]:
    train = record.recipe.data.train
    if train is None or not train.location.startswith("hub:"):
        return []
    return [train.location.split(":")[1]]


def _eval_results(record: RunRecord) -> Iterator[EvalResult]:
    """Yield the accuracy and the macro F1 on each set, in the hub's format."""
    for name in ordered_sets(record):
        metrics = record.metrics[name]
        facts = None if record.data is None else record.data.sets.get(name)
        kind, _, place = ("" if facts is None else facts.source).partition(":")
        for metric, shown in (("accuracy", "Accuracy"), ("macro_f1", "Macro F1")):
            headline = headline_in(metrics, metric)
            values: dict[str, Any] = {} if metric == "accuracy" else {"average": "macro"}
            if headline.interval is not None:
                values["interval_95"] = [round(float(each), 6) for each in headline.interval]
            yield EvalResult(
                task_type="text-classification",
                task_name="Text classification",
                dataset_type=place.split(":")[0] if kind == "hub" else name,
                dataset_name=f"{name} ({metrics.rows:,} rows)",
                metric_type="f1" if metric == "macro_f1" else metric,
                metric_name=shown,
                metric_value=round(float(headline.value), 6),
                metric_args=values or None,
            )


def _description(record: RunRecord) -> list[str]:
    """Return the title, the facts and the metrics."""
    recipe = record.recipe
    labels = recipe.data.label_names
    named = ", ".join(f"`{label}`" for label in labels[:_LABELS])
    if len(labels) > _LABELS:
        named += f", and {len(labels) - _LABELS} more"
    facts = {
        "Base": _base(record),
        "Task": _task(record),
        "Labels, in the order of the logits": named,
        "Method": _method(record),
        "Trainable parameters": _parameters(record),
        "Training rows": _training_rows(record),
        "Combined from": _combination(record),
    }
    lines = [f"- **{name}:** {value}" for name, value in facts.items() if value]
    blocks = [f"# {recipe.name}", recipe.summary, "\n".join(lines)]
    if record.metrics:
        blocks += ["## Metrics", _metrics(record), _metrics_note(record)]
    blocks += [f"**{mark}**" for mark in record.marks]
    return [block for block in blocks if block]


def _task(record: RunRecord) -> str:
    number = len(record.recipe.data.label_names)
    pair = record.pair_columns
    text = "text" if pair is None else f"pair of texts (`{pair[0]}`, `{pair[1]}`)"
    if record.is_multi_label:
        return (
            f"any number of {number} labels for each {text}; a label is given if its probability "
            "reaches its threshold, and the thresholds are in `pennyweight.json`"
        )
    return f"one of {number} classes for each {text}"


def _base(record: RunRecord) -> str:
    base = record.base
    if base is None:
        return f"`{record.recipe.base.name}`"
    if base.origin == "directory":
        return f"a model in a local directory called `{Path(base.reference).name}`"
    revision = f", revision `{base.revision}`" if base.revision else ""
    return f"`{base.reference}`{revision}"


def _method(record: RunRecord) -> str:
    adapter = record.recipe.adapter
    method = METHODS[adapter.method]
    return f"{adapter.method}: {method.summary}" + (f" ({method.paper})" if method.paper else "")


def _parameters(record: RunRecord) -> str:
    counts = record.parameters
    if counts is None:
        return f"{record.plan.trainable_parameters:,}, planned"
    state = "over the budget" if record.over_budget else "of a budget"
    return f"{counts.file:,} in the saved file, {state} of {counts.budget:,}"


def _training_rows(record: RunRecord) -> str:
    data = record.data
    if data is None:
        return ""
    rows = data.training.rows if data.training else data.sets["train"].rows
    sources = {name: facts.rows for name, facts in data.sets.items() if name != "train"}
    others = ", ".join(f"{name} {number:,}" for name, number in sources.items())
    return f"{rows:,}" + (f" (other rows: {others})" if others else "")


def _combination(record: RunRecord) -> str:
    """Return the runs that a run was made of, with their weights; empty for a trained one."""
    combination = record.combination
    if combination is None:
        return ""
    runs = ", ".join(
        f"`{Path(each.run).name}` (seed {each.seed}, weight {each.share:.3g})"
        for each in combination.runs
    )
    return f"{runs}, by the method {combination.method} on {combination.space}"


def _metrics(record: RunRecord) -> str:
    """Return a table with a line for each set, in the metric that the first set leads with."""
    sets = ordered_sets(record)
    metric = record.metrics[sets[0]].headline.metric
    baselines = [name for name in BASELINES if name in record.baselines]
    lines = {name: _scores(record, name, metric=metric) for name in sets}
    header = ["set", "rows", *lines[sets[0]], *(BASELINES[name].full for name in baselines)]
    rows = [header, ["---"] * len(header)]
    for name, scores in lines.items():
        values = baseline_headlines(record, name, metric=metric)
        cells = (f"{values[each].value:.2%}" if each in values else "" for each in baselines)
        rows.append([name, f"{record.metrics[name].rows:,}", *scores.values(), *cells])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows).replace(" --- ", "---")


def _scores(record: RunRecord, name: str, *, metric: str) -> dict[str, str]:
    """Return the scores on a set by their column, the leading metric first."""
    metrics = record.metrics[name]
    first = headline_in(metrics, metric)
    value = f"{first.value:.2%}"
    if first.interval is not None:
        low, high = first.interval
        value += f" ({low:.2%} to {high:.2%})"
    if isinstance(metrics, MultiLabelMetrics):
        return {
            "macro F1 (95% interval)": value,
            "micro F1": f"{metrics.micro_f1:.4f}",
            "mean average precision": f"{metrics.mean_average_precision:.4f}",
            "all labels right": f"{metrics.accuracy:.2%}",
        }
    if metric == "macro_f1":
        return {"macro F1 (95% interval)": value, "accuracy": f"{metrics.accuracy:.2%}"}
    return {"accuracy (95% interval)": value, "macro F1": f"{metrics.macro_f1:.4f}"}


def _metrics_note(record: RunRecord) -> str:
    if not record.baselines:
        return ""
    metric = record.metrics[ordered_sets(record)[0]].headline.metric
    shown = {"accuracy": "accuracy", "macro_f1": "macro F1"}[metric]
    return f"Of the baselines, which were trained on the same rows, the {shown} is given."
