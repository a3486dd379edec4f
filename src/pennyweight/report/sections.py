"""The generated sections of a paper: Overview and Methodology; `findings` has the others."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from pennyweight.budget.methods import METHODS, Method
from pennyweight.evaluation.confusions import MATRIX_CLASSES
from pennyweight.recipe.train import Train
from pennyweight.report.captions import caption_of
from pennyweight.report.content import Block, Figure, Table, Text, plain
from pennyweight.report.facts import Facts, RunFacts
from pennyweight.report.findings import lessons, results
from pennyweight.report.phrases import cite, join, percent, plural, score, spell, title
from pennyweight.report.references import combination_keys, method_keys
from pennyweight.runs.record import RowStep

__all__ = ["BUILDERS"]

_BASE_PAPERS: Mapping[str, str] = MappingProxyType(
    {"minilm": "2002.10957", "roberta": "1907.11692"}
)
_OPTIMIZER_PAPERS: Mapping[str, str] = MappingProxyType(
    {
        "adafactor": "1804.04235",
        "adam": "1412.6980",
        "adamw": "1711.05101",
        "lion": "2302.06675",
        "muon": "muon",
    }
)
# Rows of the table of settings that full fine-tuning does not have.
_ADAPTER_ROWS = ("matrices", "alpha", "head")
# With more classes, their counts of generated rows are left out.
_CLASSES_SHOWN = 10
_PRIOR_PAPERS: Mapping[str, str] = MappingProxyType({"em": "saerens", "confusion": "1802.03916"})


def _overview(facts: Facts, shown: frozenset[str]) -> tuple[Block, ...]:
    run = facts.main
    labels = run.record.recipe.data.label_names
    papers = [key for part, key in _BASE_PAPERS.items() if part in run.base_name.lower()]
    trained = (
        "whose weights stay frozen: only adapters and the classification head are trained"
        if run.adapted
        else "all of whose weights are trained"
    )
    scores = join([f"{score(run.headline(name))} on {name}" for name in run.sets])
    return (
        Text(
            f"The task is {_task(run, len(labels))}{_named(labels)}. "
            f"The base model is {plain(run.base_name)}{cite(*papers)}, {trained}. The budget of "
            "trainable parameters is a hard limit, and the classification head counts towards it."
        ),
        Text(_data_sentences(run)),
        Text(f"The {title(run.metric)} is {scores}."),
        *(Text(plain(note)) for note in run.notes),
    )


def _task(run: RunFacts, number: int) -> str:
    text = "a text" if run.record.pair_columns is None else "a pair of texts"
    if run.is_multi_label:
        return f"to give {text} any number of {spell(number)} labels"
    return f"to assign {text} to one of {spell(number)} classes"


def _named(labels: Sequence[str]) -> str:
    """Return the names of the classes after a colon, or a few of them where there are many."""
    if len(labels) > MATRIX_CLASSES:
        return f", such as {plain(join(labels[:3]))}"
    return f": {plain(join(labels))}"


def _data_sentences(run: RunFacts) -> str:
    record = run.record
    data = record.data
    if data is None:
        return "The record of this run does not describe its data."
    rows = {name: facts.rows for name, facts in data.sets.items()}
    trained = data.training.rows if data.training else rows.get("train", 0)
    is_ag_news = "ag_news" in str(record.recipe.data.train).lower()
    held_out = [name for name in run.sets if name in rows and name != "validation"]
    sentences = [f"We train on {plural(trained, 'row')}{' of AG News' if is_ag_news else ''}"]
    sentences[0] += f"{cite('1509.01626') if is_ag_news else ''}"
    if "validation" in rows and (record.best is not None or record.combination is None):
        metric = title(record.best.metric if record.best else record.recipe.train.keep_best)
        sentences[0] += f" and select the checkpoint with the best {metric} on "
        sentences[0] += f"{plural(rows['validation'], 'validation row')}"
    if held_out:
        sets = join([f"{name} ({plural(rows[name], 'row')})" for name in held_out])
        sentences.append(f"The final evaluation is on {sets}")
    if data.removed_from_train:
        removed = plural(data.removed_from_train, "training row")
        sentences.append(f"We removed {removed} whose text also appears in a held-out set")
    elif not any(pair.exact for pair in data.overlaps if pair.rows_of == "train"):
        sentences.append("No training text appears in a held-out set")
    if "test" in held_out:
        sentences.append(
            "The labelled test set was read only once, after every choice had been made on "
            "validation data"
        )
    return ". ".join(sentences) + "."


def _methodology(facts: Facts, shown: frozenset[str]) -> tuple[Block, ...]:
    run = facts.main
    method = run.record.recipe.adapter.method
    optimizer = run.record.recipe.optimizer
    papers = (*method_keys(method), *(["peft"] if run.adapted else []))
    adapters = f"{title(method)}{cite(*papers)}"
    optimizer_papers = [_OPTIMIZER_PAPERS[key] for key in [optimizer.method]
                        if key in _OPTIMIZER_PAPERS]  # fmt: skip
    training = f"{title(optimizer.method)}{cite(*optimizer_papers)}"
    if optimizer.b_ratio != 1.0:
        training += f" with LoRA+ step sizes{cite('2402.12354')}"
    steps = run.record.data.training.steps if run.record.data and run.record.data.training else ()
    blocks: list[Block] = [
        Text(
            f"We use {adapters} and train with {training}. [tab:recipe] lists the settings. "
            f"{_spending(run)}"
        ),
        *(Text(sentence) for sentence in (*_combination(run), *_extras(run))),
        *(Text(_step_sentence(step), is_item=True) for step in steps),
        Table(
            "recipe", f"Settings of the recipe {run.name}.", ("setting", "value"), _settings(run)
        ),
    ]
    if "ranks" in shown and not run.ranks().is_uniform:
        blocks.insert(1, Text("[fig:ranks] shows the rank of every adapted matrix."))
        blocks.append(Figure("ranks", caption_of("ranks", facts)))
    return tuple(blocks)


def _spending(run: RunFacts) -> str:
    record = run.record
    planned = record.plan.trainable_parameters
    places = {"head": "on the classification head", "bias": "on biases"}
    adapters = "on {} adapters" if run.adapted else "on {}"
    shares = [
        f"{count:,} {places.get(kind, adapters.format(title(kind)))}"
        for kind, count in run.parameters_by_kind.items()
    ]
    shares[0] = shares[0].replace(" on ", " parameters on ", 1)
    total = f", {planned:,} in total" if len(shares) > 1 else ""
    text = (
        f"The plan spends {join(shares)}{total}: {planned / record.plan.budget:.1%} of the budget."
    )
    if record.parameters is not None:
        text += (
            f" This number is computed from the shapes of the weight matrices before training, and "
            f"agrees with the trained model ({record.parameters.model:,}) and with the header of "
            f"the saved file ({record.parameters.file:,})."
        )
    return text


def _extras(run: RunFacts) -> list[str]:
    """Return a sentence about each optional part of the system that is in use."""
    recipe = run.record.recipe
    sentences = []
    if recipe.base.quantization != "none":
        sentences.append(
            f"The frozen weights are stored as {title(recipe.base.quantization)}"
            f"{cite('2305.14314')}."
        )
    if recipe.distillation is not None:
        sentences.append(
            f"The model also learns from {plural(len(recipe.distillation.teachers), 'teacher')} by "
            f"distillation{cite('1503.02531')} at temperature "
            f"{recipe.distillation.temperature:g}; the share of the teachers in the loss is "
            f"{recipe.distillation.soft:g}."
        )
    if run.is_multi_label:
        fitted = (
            "was fitted on the validation rows" if "validation" in run.sets else "is 0.5 throughout"
        )
        sentences.append(
            "A text is given every label whose probability reaches the label's threshold, which "
            f"{fitted}."
        )
    prior = recipe.transduction.prior if recipe.transduction else None
    if prior is not None:
        papers = [_PRIOR_PAPERS[prior.method]] if prior.method in _PRIOR_PAPERS else []
        sentences.append(
            f"Predictions are corrected for the class shares of the target texts{cite(*papers)}."
        )
    return sentences


def _combination(run: RunFacts) -> list[str]:
    """Return how the run was made of others; nothing for a trained one."""
    combination = run.record.combination
    if combination is None:
        return []
    runs = [each for each in combination.runs if each.share > 0]
    averaged = {
        "factors": "The factors of the adapters were averaged",
        "deltas": "The products of the factors were combined and brought back to the ranks by a "
        "truncated singular value decomposition",
        "ranks": "The ranks of the adapters were added up",
    }[combination.space]
    error = ""
    if combination.error is not None:
        error = f", with a relative error of {percent(combination.error)}"
    paper = combination_keys(combination.method)
    return [
        f"The classifier was not trained itself: it combines the adapters of "
        f"{plural(len(runs), 'finished run')} by the method {plain(combination.method)}"
        f"{cite(*paper)}. {averaged}{error}."
    ]


def _step_sentence(step: RowStep) -> str:
    changes = []
    if step.added is not None:
        changes.append(f"{plural(step.added, 'row')} added")
    if step.removed is not None:
        changes.append(f"{plural(step.removed, 'row')} removed")
    if step.effective_rows is not None:
        changes.append(f"worth {step.effective_rows:,.0f} rows of equal weight")
    sentence = f"{plain(step.step[:1].upper() + step.step[1:])}: {join(changes or ['no change'])}."
    return f"{sentence} {_gates_sentence(step)}" if step.written_by_class else sentence


def _gates_sentence(step: RowStep) -> str:
    """Return how many generated texts passed the gates, and the class balance before and after."""
    before, after, rejected = step.written_by_class or {}, step.by_class or {}, step.rejected or {}
    written = sum(before.values())
    passed = written - sum(rejected.values())
    reasons = [f"{count:,} as {gate}" for gate, count in rejected.items() if count]
    text = (
        f"{passed:,} of {written:,} generated texts ({percent(passed / written)}) passed the gates"
        + (f"; rejected: {join(reasons)}." if reasons else ".")
    )
    if len(before) > _CLASSES_SHOWN:
        return text
    balance = [f"{plain(name)} {after.get(name, 0):,} of {n:,}" for name, n in before.items()]
    return f"{text} Added by class: {join(balance)}."


def _settings(run: RunFacts) -> tuple[tuple[str, str], ...]:
    recipe = run.record.recipe
    method = METHODS.get(recipe.adapter.method)
    targets = getattr(recipe.adapter, "targets", ("*",))
    rows = [
        ("method", f"{title(recipe.adapter.method)}: {method.summary}" if method else "full"),
        ("matrices", _matrices(run, targets)),
        (_size_key(method), _range([matrix.rank for matrix in run.adapted])),
        ("alpha", _range([matrix.alpha for matrix in run.adapted])),
        ("head", f"{getattr(recipe.adapter, 'head', 'full')}"),
        ("optimizer", f"{title(recipe.optimizer.method)}, "
                      f"learning rate {recipe.optimizer.learning_rate:g}"),
        ("schedule", _schedule(run)),
        ("training", _training(recipe.train)),
        ("text", f"at most {recipe.data.max_tokens} tokens"),
        ("cleaning", ", ".join(recipe.data.clean) or "none"),
        ("seed", str(recipe.seed)),
    ]  # fmt: skip
    hidden = () if run.adapted else (*_ADAPTER_ROWS, "rank")
    return tuple(row for row in rows if row[0] not in hidden)


def _size_key(method: Method | None) -> str:
    """Return the name of what sets the size of a method's adapters."""
    return method.dial.key.replace("_", " ") if method and method.dial else "rank"


def _matrices(run: RunFacts, targets: tuple[str, ...]) -> str:
    """Return the targets in words; of allocated ranks, which name each matrix, the types."""
    if targets == ("*",):
        return "all linear layers"
    if set(targets) <= {matrix.name for matrix in run.adapted}:
        types = dict.fromkeys(matrix.role for matrix in run.adapted if matrix.layer is not None)
        return f"{len(targets)} of the types {', '.join(types)}"
    return ", ".join(targets)


def _training(train: Train) -> str:
    # A recipe in a record is complete.
    epochs, rows = int(train.epochs), int(train.batch_rows)
    return f"{plural(epochs, 'epoch')}, batches of {plural(rows, 'row')}"


def _range(values: list[int | None] | list[float | None]) -> str:
    numbers = sorted({value for value in values if value is not None})
    if not numbers:
        return "none"
    low, high = numbers[0], numbers[-1]
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"


def _schedule(run: RunFacts) -> str:
    schedule = run.record.recipe.optimizer.schedule
    if schedule.warmup_steps:
        return f"{schedule.method}, {schedule.warmup_steps} steps of warm-up"
    if schedule.warmup_ratio:
        return f"{schedule.method}, {schedule.warmup_ratio:.0%} of the steps as warm-up"
    return schedule.method


BUILDERS: Mapping[str, Callable[[Facts, frozenset[str]], tuple[Block, ...]]] = MappingProxyType(
    {
        "Overview": _overview,
        "Methodology": _methodology,
        "Results": results,
        "Lessons": lessons,
    }
)
