"""The generated sections about what was measured: Results and Lessons."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pennyweight.errors import RunError
from pennyweight.evaluation.confusions import MATRIX_CLASSES, largest_confusions
from pennyweight.evaluation.metrics import (
    ClassMetrics,
    LabelMetrics,
    Metrics,
    MultiLabelMetrics,
)
from pennyweight.evaluation.statistics import holm
from pennyweight.report.baselines import baseline_blocks
from pennyweight.report.captions import caption_of
from pennyweight.report.content import Block, Figure, Table, Text, plain
from pennyweight.report.facts import Facts, RunFacts, StudyFacts
from pennyweight.report.leaderboard import leaderboard_blocks
from pennyweight.report.phrases import cite, duration, interval, join, percent, plural, title
from pennyweight.report.shares import share_blocks
from pennyweight.runs.predictions import mcnemar_of_runs

__all__ = ["lessons", "results"]

# Metrics that are written in percent.
_PERCENT = frozenset({"accuracy", "macro_f1", "micro_f1", "mean_average_precision"})
# Rows of the table of the hardest classes, and characters of a label in it.
_HARDEST = 8
_LABEL_LENGTH = 30


def results(facts: Facts, shown: frozenset[str]) -> tuple[Block, ...]:
    """Return the section about the main run's metrics, with its figures and baselines."""
    run = facts.main
    name = run.sets[0]
    blocks: list[Block] = [
        Text(f"{_results_sentence(run)} {_cost(run)}"),
        _results_table(run),
        *baseline_blocks(run),
    ]
    sentences = {
        "curves": _curve_sentence(run),
        "confusion": _confusion_sentence(name, run.main_metrics)
        if isinstance(run.main_metrics, Metrics)
        else "",
        "reliability": _reliability_sentence(run),
    }
    for figure, sentence in sentences.items():
        if figure in shown:
            blocks += [Text(sentence), Figure(figure, caption_of(figure, facts))]
    if isinstance(run.main_metrics, MultiLabelMetrics):
        blocks += [
            Text(f"[tab:hardest] lists labels on {name}, those with the lowest F1 first."),
            _labels_table(name, run.main_metrics),
        ]
    elif len(run.main_metrics.classes) > MATRIX_CLASSES:
        blocks += [
            Text(f"[tab:hardest] lists the classes with the lowest F1 on {name}."),
            _hardest_table(name, run.main_metrics),
        ]
    return (*blocks, *share_blocks(run))


def _results_sentence(run: RunFacts) -> str:
    error = f"the expected calibration error (ECE){cite('1706.04599')}"
    if run.is_multi_label:
        return (
            f"[tab:results] gives the macro F1 with its 95% bootstrap interval{cite('efron')}, the "
            f"micro F1, the mean average precision (AP), which needs no thresholds, and {error}."
        )
    if run.metric == "macro_f1":
        return (
            "The classes have very different numbers of rows, so the macro F1 comes first: a "
            "classifier that always predicts the largest class has a high accuracy. [tab:results] "
            f"gives the macro F1 with its 95% bootstrap interval{cite('efron')}, the accuracy and "
            f"{error}."
        )
    return (
        f"[tab:results] gives the accuracy with its 95% interval{cite('wilson')}, the macro F1 and "
        f"{error}."
    )


def _hardest_table(name: str, metrics: Metrics) -> Table:
    hardest = sorted(metrics.classes, key=lambda entry: entry.f1)[:_HARDEST]
    rows = [
        (
            _shortened(entry.label),
            *(f"{score:.3f}" for score in (entry.precision, entry.recall, entry.f1)),
            f"{entry.rows:,}",
        )
        for entry in hardest
    ]
    caption = f"The {len(rows)} of {len(metrics.classes)} classes with the lowest F1 on {name}."
    return Table("hardest", caption, ("class", "prec.", "recall", "F1", "rows"), tuple(rows))


def _labels_table(name: str, metrics: MultiLabelMetrics) -> Table:
    """Return the labels with the lowest F1, with their thresholds."""
    hardest = sorted(metrics.classes, key=lambda entry: entry.f1)[:_HARDEST]
    rows = [
        (
            _shortened(entry.label),
            *(f"{score:.3f}" for score in (entry.precision, entry.recall, entry.f1)),
            f"{entry.threshold:.3f}",
            f"{entry.rows:,}",
        )
        for entry in hardest
    ]
    number = len(metrics.classes)
    of = f"{len(rows)} of {number} labels" if len(rows) < number else f"{number} labels"
    caption = (
        f"The {of} on {name}, those with the lowest F1 first. A text is given a label if its "
        "probability is at least the threshold (thr.)."
    )
    header = ("label", "prec.", "recall", "F1", "thr.", "rows")
    return Table("hardest", caption, header, tuple(rows))


def _shortened(label: str) -> str:
    """Return a label that fits a column of the paper."""
    return label if len(label) <= _LABEL_LENGTH else f"{label[: _LABEL_LENGTH - 3]}..."


def _cost(run: RunFacts) -> str:
    record = run.record
    text = f"Training and evaluation took {duration(record.seconds)}"
    if record.compute is not None:
        text += f" on {title(record.compute.device.split(':')[0])} in {record.compute.precision}"
    text += f", with a peak memory of {record.peak_memory_bytes / 1e9:.1f} GB."
    if record.parameters is not None:
        text += f" The saved artifact contains {record.parameters.file:,} trainable parameters"
        text += f"; the whole model has {record.plan.total_parameters:,} parameters."
    return text


def _results_table(run: RunFacts) -> Table:
    rows = [_results_row(run, name) for name in run.sets]
    header: tuple[str, ...]
    if run.is_multi_label:
        header = ("set", "rows", "F1", "95%", "micro F1", "AP", "ECE")
        caption = (
            "Macro F1 in percent with its bootstrap interval, micro F1, mean average precision, "
            "and calibration error."
        )
    elif run.metric == "macro_f1":
        header = ("set", "rows", "F1", "95%", "acc.", "ECE")
        caption = (
            "Macro F1 in percent with its bootstrap interval, accuracy, and calibration error."
        )
    else:
        header = ("set", "rows", "acc.", "95%", "F1", "ECE")
        caption = "Accuracy in percent with its Wilson interval, macro F1, and calibration error."
    return Table("results", caption, header, tuple(rows))


def _results_row(run: RunFacts, name: str) -> tuple[str, ...]:
    metrics, first = run.record.metrics[name], run.headline(name)
    others: tuple[str, ...]
    if isinstance(metrics, MultiLabelMetrics):
        others = (f"{metrics.micro_f1:.4f}", f"{metrics.mean_average_precision:.4f}")
    else:
        second = metrics.macro_f1 if first.metric == "accuracy" else metrics.accuracy
        others = (f"{second:.4f}",)
    return (
        name,
        f"{metrics.rows:,}",
        f"{100 * first.value:.2f}",
        "" if first.interval is None else interval(first.interval),
        *others,
        f"{metrics.ece:.3f}",
    )


def _curve_sentence(run: RunFacts) -> str:
    best = run.record.best
    text = f"[fig:curves] shows the training loss and the validation {title(run.curve_metric)}."
    if best is not None:
        value = percent(best.value) if best.metric in _PERCENT else f"{best.value:.4f}"
        text += f" The checkpoint of step {best.step:,} was kept ({title(best.metric)} {value})."
    return text


def _confusion_sentence(name: str, metrics: Metrics) -> str:
    largest = largest_confusions(metrics, limit=1)
    if not largest:
        return f"[fig:confusion] shows no error on {name}."
    return (
        f"[fig:confusion] compares labels with predictions on {name}. The most frequent error is "
        f"to predict {plain(largest[0].predicted)} for {plain(largest[0].label)} "
        f"({plural(largest[0].rows, 'row')})."
    )


def _reliability_sentence(run: RunFacts) -> str:
    """Describe the set on which confidence and accuracy differ most."""
    name = max(run.sets, key=lambda each: run.record.metrics[each].ece)
    metrics = run.record.metrics[name]
    total = sum(each.rows for each in metrics.reliability)
    confidence = sum(each.confidence * each.rows for each in metrics.reliability) / total
    accuracy = sum(each.accuracy * each.rows for each in metrics.reliability) / total
    if run.is_multi_label:
        return (
            "[fig:reliability] compares the probability of a label with the share of rows that "
            f"have it. The calibration error is largest on {name}, where the mean probability of a "
            f"label is {percent(confidence)}, and on average {percent(accuracy)} of the rows have "
            "a label."
        )
    return (
        f"[fig:reliability] compares confidence with accuracy. The calibration error is largest on "
        f"{name}, where the mean confidence is {percent(confidence)} and the accuracy "
        f"{percent(accuracy)}.{_temperature_sentence(run, name)}"
    )


def _temperature_sentence(run: RunFacts, name: str) -> str:
    """Return what the temperature did to the calibration error of a set."""
    calibration = run.record.calibration
    if calibration is None or name not in calibration.ece_without:
        return ""
    return (
        f" The logits are divided by a temperature of {calibration.temperature:.3f}, fitted on the "
        f"validation rows; without it, the error would be {calibration.ece_without[name]:.3f} "
        f"instead of {run.record.metrics[name].ece:.3f}."
    )


def lessons(facts: Facts, shown: frozenset[str]) -> tuple[Block, ...]:
    """Return the section about strengths, weaknesses, and comparisons with other runs."""
    run = facts.main
    name, metrics = run.sets[0], run.main_metrics
    classes: Sequence[ClassMetrics | LabelMetrics] = metrics.classes
    worst = min(classes, key=lambda entry: entry.f1)
    best = max(classes, key=lambda entry: entry.f1)
    remarks = [
        f"On {name}, {plain(best.label)} is the easiest class (F1 {best.f1:.3f}) and "
        f"{plain(worst.label)} the hardest (F1 {worst.f1:.3f})."
    ]
    for other in run.sets[1:]:
        gap = 100 * (run.headline(name).value - run.headline(other).value)
        if other != "validation" and gap > 0:
            remarks.append(
                f"The {title(run.metric)} is {gap:.2f} points lower on {other} than on {name}, "
                f"and the calibration error is {run.record.metrics[other].ece:.3f} instead of "
                f"{metrics.ece:.3f}."
            )
    blocks: list[Block] = [Text(" ".join(remarks))]
    if facts.study is not None and facts.study.has_datasets:
        blocks += leaderboard_blocks(facts.study, shown)
    elif facts.study is not None:
        blocks += [_study_text(facts.study, name), _study_table(facts.study, name)]
        if len(facts.groups) > 1:
            blocks.append(
                Text(
                    f"Not all rows of the study were evaluated on the same {name} rows; compare "
                    "only those that were."
                )
            )
    else:
        blocks += _comparisons(facts, name)
    sentences = {
        "comparison": "[fig:comparison] shows the results with their 95% intervals.",
        "spending": f"[fig:spending] relates {title(run.metric)} to the number of trained "
        "parameters.",
    }
    for figure, sentence in sentences.items():
        if figure in shown:
            blocks += [Text(sentence), Figure(figure, caption_of(figure, facts))]
    return tuple(blocks)


def _comparisons(facts: Facts, name: str) -> list[Block]:
    """Return a table for each group of at least two runs that were evaluated on the same rows."""
    groups = facts.groups
    blocks: list[Block] = []
    if len(groups) > 1:
        others = [run for group in groups[1:] for run in group]
        sentence = (
            f"{_named_with_result(facts, others, name)} evaluated on other {name} rows than "
            f"{plain(facts.label(facts.main))}, so their results cannot be compared with it."
        )
        blocks.append(Text(sentence))
    for number, group in enumerate(groups, start=1):
        if len(group) < 2:
            continue
        table = _runs_table(facts, group, name=name, number=number)
        text = (
            f"[{table.label}] compares the runs on {name}. The p-values are mid-p-values of "
            f"McNemar's test{cite('mcnemar', 'midp')} against {plain(facts.label(group[0]))}, "
            "which compares how many rows are answered correctly."
        )
        if len(group) > 2:
            text += f" They are adjusted for their number by Holm's method{cite('holm')}."
        blocks += [Text(text), table]
    return blocks


def _named_with_result(facts: Facts, runs: Sequence[RunFacts], name: str) -> str:
    named = [
        f"{plain(facts.label(run))} ({_result(run, name, metric=facts.main.metric)})"
        for run in runs
    ]
    return f"{join(named)} {'was' if len(named) == 1 else 'were'}"


def _result(run: RunFacts, name: str, *, metric: str) -> str:
    rows = f"{run.record.metrics[name].rows:,} rows"
    value = percent(run.headline(name, metric=metric).value)
    return f"{value} of {rows}" if metric == "accuracy" else f"{title(metric)} {value} on {rows}"


def _study_text(study: StudyFacts, name: str) -> Text:
    """Return the paragraph about the study's table, with the best row and its test."""
    rows = study.rows_with(name)
    text = f"[tab:comparison] gives the mean {title(study.metric)} of each variation on {name}."
    if any(row.adjusted_p for row in rows):
        text += f" Its p-values are adjusted for their number by Holm's method{cite('holm')}."
    if len(rows) < 2:
        return Text(text)
    first, best = rows[0], max(rows, key=lambda row: row.mean[name])
    if best is first:
        return Text(f"{text} No variation is better than {plain(first.name)}.")
    gain, p = 100 * (best.mean[name] - first.mean[name]), best.shown_p(name)
    adjusted = "Holm-adjusted " if name in best.adjusted_p else ""
    test = "too few seeds for a test"
    if p is not None:
        test = f"paired test over seeds, {adjusted}p = {p:.3f}"
    return Text(
        f"{text} The best variation is {plain(best.name)}, {gain:.2f} points above "
        f"{plain(first.name)} ({test})."
    )


def _study_table(study: StudyFacts, name: str) -> Table:
    rows = []
    for row in study.rows_with(name):
        bounds, p = row.interval[name], row.shown_p(name)
        rows.append(
            (
                row.name,
                f"{100 * row.mean[name]:.2f}",
                interval(bounds) if bounds else "",
                "" if p is None else f"{p:.3f}",
                f"{row.parameters:,}",
            )
        )
    subject = study.summary or "The study"
    caption = f"{subject}: mean {title(study.metric)} on {name} in percent, over seeds."
    header = ("variation", _short(study.metric), "95%", "p", "parameters")
    return Table("comparison", caption, header, tuple(rows))


def _short(metric: str) -> str:
    return "acc." if metric == "accuracy" else "F1"


def _runs_table(facts: Facts, runs: Sequence[RunFacts], *, name: str, number: int) -> Table:
    """Return the table that compares runs with the first of them, all on the same rows."""
    rows, p_values = [], _mcnemar_p_values(runs, name)
    for run in runs:
        counts = run.record.parameters
        rows.append(
            (
                facts.label(run),
                f"{100 * run.headline(name, metric=facts.main.metric).value:.2f}",
                f"{p_values[run.path]:.3f}" if run.path in p_values else "",
                f"{counts.file:,}" if counts else "",
                f"{run.record.seconds:,.0f}",
            )
        )
    metric = facts.main.metric
    caption = f"Runs compared: {title(metric)} on {name} in percent, trainable parameters, seconds."
    label = "comparison" if number == 1 else f"comparison-{number}"
    return Table(label, caption, ("run", _short(metric), "p", "parameters", "s"), tuple(rows))


def _mcnemar_p_values(runs: Sequence[RunFacts], name: str) -> dict[Path, float]:
    """Return adjusted p-values against the first run, by the path of the other one."""
    p_values = {}
    for run in runs[1:]:
        try:
            p_values[run.path] = mcnemar_of_runs(runs[0].path, run.path, name).p
        except RunError:
            continue  # the runs were evaluated on different rows
    return dict(zip(p_values, holm(list(p_values.values())), strict=True))
