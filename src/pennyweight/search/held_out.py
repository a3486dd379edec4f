"""The only look of a search at held-out sets: once it is over, at two of its classifiers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pennyweight.engine.batches.tokenize import label_array
from pennyweight.evaluation.answers import answered_rows
from pennyweight.evaluation.decisions import answers_of
from pennyweight.evaluation.differences import compare_answers
from pennyweight.evaluation.metrics import AnyMetrics, headline_in, measure
from pennyweight.inference.classifier import Classifier
from pennyweight.inference.evaluate import read_for
from pennyweight.inference.spool import open_input
from pennyweight.recipe.data import SourceTable
from pennyweight.search.results import HeldOut
from pennyweight.settings.assemble import source_of

__all__ = ["compare_on_held_out"]


@dataclass(frozen=True, slots=True)
class _Answers:
    """Metrics of a classifier on a set, its answers, and the labels."""

    metrics: AnyMetrics
    given: np.ndarray
    labels: np.ndarray


def compare_on_held_out(best: Path, default: Path | None) -> dict[str, HeldOut]:
    """Measure a search's best trial and the recipe itself on the held-out sets of the recipe.

    Args:
        best: run directory of the best trial.
        default: that of the recipe itself; None if its trial is not complete.

    Raises:
        RunError: a run's files were changed.
        DataError: a set cannot be read.
    """
    classifier = Classifier.load(best)
    evaluate = classifier.record.recipe.evaluate
    test = {} if evaluate.test is None else {"test": evaluate.test}
    sets: dict[str, Any] = {**test, **evaluate.also}
    other = None
    if default is not None and default != best:
        other = Classifier.load(default)
    compared = {}
    for name, table in sets.items():
        first = _answers(classifier, best, table)
        second = first if default == best else None
        if other is not None and default is not None:
            second = _answers(other, default, table)
        compared[name] = _compare(first, second)
    return compared


def _answers(classifier: Classifier, run: Path, table: SourceTable) -> _Answers:
    settings = classifier.settings
    with open_input(source_of(table)) as rows_in:
        rows = read_for(
            classifier, run, rows_in, "evaluate", on_bad_row=settings.data.read.on_bad_row
        )
        logits = classifier.outputs(rows.table).logits
        labels = label_array(rows.table, settings.multi_label_classes)
    metrics = measure(
        logits,
        labels,
        names=classifier.labels,
        bins=settings.inference.calibration_bins,
        thresholds=classifier.thresholds,
    )
    return _Answers(metrics, answers_of(logits, classifier.thresholds), labels)


def _compare(best: _Answers, default: _Answers | None) -> HeldOut:
    leader = (default or best).metrics.headline
    own = headline_in(best.metrics, leader.metric)
    if default is None:
        return HeldOut(leader.metric, best.metrics.rows, own.value, own.interval)
    answers = answered_rows(
        best.labels,
        [default.given, best.given],
        classes=len(best.metrics.classes),
        metric=leader.metric,
    )
    # Two single runs, whose seeds do not matter.
    found = compare_answers(answers, reference_seeds=(0,), seeds=(0,))
    return HeldOut(
        leader.metric,
        best.metrics.rows,
        own.value,
        own.interval,
        default=leader.value,
        difference=own.value - leader.value,
        only_best=found.only_system,
        only_default=found.only_reference,
        p=found.p,
        test=found.test,
    )
