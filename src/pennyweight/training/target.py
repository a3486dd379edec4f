"""The contributions of unlabelled target text: pseudo-labelled rows, unlabelled rows, weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import datasets
import numpy as np
from scipy.special import softmax

from pennyweight.data.splits import Splits
from pennyweight.errors import DataError
from pennyweight.lab.populations import density_ratios
from pennyweight.runs.record import RowStep
from pennyweight.settings.values import (
    BalancedRows,
    ConfidentRows,
    DensityRatioSettings,
    SelfTrainingSettings,
)
from pennyweight.training.finished_run import finished_run
from pennyweight.training.pseudo_labels import (
    TargetAnswers,
    add_second_view,
    surest_of_each_class,
)
from pennyweight.training.target_answers import answer_target

__all__ = [
    "PseudoLabelledRows",
    "check_self_training",
    "consistency_rows",
    "density_weights",
    "labelled_table",
    "self_training_rows",
]

Log = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class PseudoLabelledRows:
    """Target rows to train on, with what finished runs say about their classes.

    Attributes:
        table: columns text and label, the most probable class.
        step: for the record.
        soft_labels: float32 `[rows, classes]`, the probabilities that are taught; None to teach the
            labels.
        weights: float32 `[rows]`, in the loss; None for equal weights.
    """

    table: datasets.Dataset
    step: RowStep
    soft_labels: np.ndarray | None = None
    weights: np.ndarray | None = None


def labelled_table(texts: Sequence[str], labels: np.ndarray) -> datasets.Dataset:
    """Return texts and class indices (-1 where there is none) as a table to train on."""
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.Value("int64")}
    )
    values = {"text": list(texts), "label": labels.tolist()}
    return datasets.Dataset.from_dict(values, features=features)


def self_training_rows(
    splits: Splits, settings: SelfTrainingSettings, labels: Sequence[str], *, seed: int, log: Log
) -> PseudoLabelledRows:
    """Return the target rows that finished runs label, as far as they are selected.

    Args:
        splits: with the target.
        settings: the teachers, and how rows are selected.
        labels: names of the classes.
        seed: of the correction of teachers.
        log: gets a line for each thing that is done.

    Raises:
        RecipeError: a teacher is no run, or has other classes.
        RunError: a teacher is unfinished.
        DataError: no row is selected.
    """
    check_self_training(settings, labels)
    target = splits.target
    assert target is not None  # noqa: S101 - self-training needs a target
    answers = answer_target(splits, settings.teachers, settings.prior, seed=seed, log=log)
    rows = settings.rows
    if isinstance(rows, ConfidentRows):
        selected = _confident_rows(answers, rows, labels)
    else:
        if rows.has_second_view:
            answers = add_second_view(target["text"][:], answers, rounds=rows.rounds)
        selected = surest_of_each_class(answers, share=rows.share)
    predicted = answers.logits.argmax(axis=1)[selected]
    counts = dict(zip(labels, np.bincount(predicted, minlength=len(labels)).tolist(), strict=True))
    if len(selected) == 0:
        raise DataError(
            f"transduction.self_training: {', '.join(settings.teachers)}: no target row is "
            "labelled with enough confidence; lower the confidence, or raise the share"
        )
    by_class = ", ".join(f"{name} {count:,}" for name, count in counts.items())
    log(f"self-training: {len(selected):,} of {len(target):,} target rows added ({by_class})")
    if missing := [name for name, count in counts.items() if not count]:
        log(
            f"self-training: no row of {', '.join(missing)} is labelled with enough confidence, so "
            "the added rows shift the class balance; lower the confidence for it"
        )
    step = RowStep(step="self-training", added=len(selected), by_class=counts)
    return _taught_rows(target, answers, selected, rows, step)


def _taught_rows(
    target: datasets.Dataset,
    answers: TargetAnswers,
    selected: np.ndarray,
    settings: ConfidentRows | BalancedRows,
    step: RowStep,
) -> PseudoLabelledRows:
    """Return the selected rows of the target with their labels, probabilities and weights."""
    if isinstance(settings, ConfidentRows):
        settings = BalancedRows(share=1.0, has_second_view=False, rounds=1)
    indices = np.tile(selected, settings.copies)
    probabilities = softmax(answers.logits[indices], axis=1).astype(np.float32)
    return PseudoLabelledRows(
        labelled_table(target.select(indices)["text"][:], probabilities.argmax(axis=1)),
        step,
        soft_labels=probabilities if settings.soft else None,
        weights=probabilities.max(axis=1) if settings.weighted else None,
    )


def _confident_rows(
    answers: TargetAnswers, settings: ConfidentRows, labels: Sequence[str]
) -> np.ndarray:
    """Return the indices of the rows whose labels are probable enough, ascending."""
    probabilities = softmax(answers.logits, axis=1)
    predicted, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    selected = []
    for index, name in enumerate(labels):
        threshold = settings.by_class.get(name, settings.confidence)
        rows = np.flatnonzero((predicted == index) & (confidence >= threshold))
        order = np.argsort(-confidence[rows], kind="stable")[: settings.most_per_class]
        selected.append(rows[order])
    return np.sort(np.concatenate(selected))


def check_self_training(settings: SelfTrainingSettings, labels: Sequence[str]) -> None:
    """Refuse a teacher that is missing, unfinished, or of other classes, without loading it.

    Raises:
        RecipeError: a teacher is no run, or has other classes.
        RunError: a teacher is unfinished.
    """
    for run in settings.teachers:
        finished_run("transduction.self_training.teachers", Path(run), labels)


def consistency_rows(target: datasets.Dataset, count: int | None, *, seed: int) -> datasets.Dataset:
    """Return so many target rows, drawn at random, without labels; None for all of them."""
    drawn = np.random.default_rng((seed, 4)).permutation(len(target))[: count or len(target)]
    return labelled_table(target.select(np.sort(drawn))["text"][:], np.full(len(drawn), -1))


def density_weights(
    rows: datasets.Dataset,
    target: datasets.Dataset,
    settings: DensityRatioSettings,
    *,
    seed: int,
    log: Log,
) -> tuple[np.ndarray, RowStep]:
    """Return the weight of each training row, float32 `[rows]`, 1 on average over labelled rows.

    It is a power of the row's density ratio, capped; see `density_ratios`.
    """
    labelled = np.flatnonzero(np.asarray(rows["label"][:]) >= 0)
    ratio = density_ratios(rows.select(labelled)["text"][:], target["text"][:], seed=seed)
    capped = np.minimum(ratio**settings.power, settings.largest)
    weights = np.ones(len(rows), dtype=np.float32)
    weights[labelled] = capped / capped.mean()
    effective = float(weights[labelled].sum() ** 2 / (weights[labelled] ** 2).sum())
    log(
        f"density ratio: weights from {capped.min():.2f} to {capped.max():.2f}, equivalent to "
        f"{effective:,.0f} of {len(labelled):,} rows with equal weights"
    )
    return weights, RowStep(step="density ratio", effective_rows=effective)
