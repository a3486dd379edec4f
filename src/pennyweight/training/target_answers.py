"""Answers of finished runs for a target's rows, corrected for its class shares."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import log_softmax, logsumexp

from pennyweight.data.splits import Splits
from pennyweight.evaluation.metrics import Metrics, MultiLabelMetrics
from pennyweight.inference.classifier import Classifier
from pennyweight.inference.correction import ShiftEvidence, estimate_correction, find_groups
from pennyweight.inference.groups import Groups
from pennyweight.inference.texts import texts_of
from pennyweight.settings.values import PriorSettings
from pennyweight.training.class_shares import learned_class_shares
from pennyweight.training.pseudo_labels import TargetAnswers

__all__ = ["answer_target", "best_on_validation"]


@dataclass(frozen=True, slots=True)
class _Given:
    """The answers of a teacher, and its metrics on its own validation rows."""

    teacher: str
    validation: Metrics | MultiLabelMetrics | None
    logits: np.ndarray


def answer_target(
    splits: Splits,
    teachers: Sequence[str],
    prior: PriorSettings | None,
    *,
    seed: int,
    log: Callable[[str], None],
) -> TargetAnswers:
    """Return what the teachers answer, as logits, and the groups of the first one.

    Rows unlike the training texts get the mean probabilities of all teachers, and the others that
    of the teachers that are the best on texts like the training texts; see `best_on_validation`.

    A teacher that corrects for class shares gives corrected answers. Another one is corrected here,
    where the recipe has a prior.

    Args:
        splits: with the target, and the rows that a correction is estimated from.
        teachers: directories of finished runs.
        prior: how teachers without a correction are corrected; None for not at all.
        seed: of the correction.
        log: gets a line for each teacher that is corrected.
    """
    given: list[_Given] = []
    groups: np.ndarray | None = None
    groups_of_target: Groups | None = None
    for teacher in teachers:
        classifier = Classifier.load(teacher)
        if prior is None or classifier.has_correction:
            corrected, members = _own_answers(classifier, splits)
        else:
            log(f"self-training: {teacher} is corrected for the class shares of the target")
            evidence = _evidence(classifier, splits, prior)
            # Texts are told apart in the same way whichever classifier answers.
            if groups_of_target is None or prior.discriminator == "hidden-states":
                groups_of_target = find_groups(evidence, prior, seed=seed)
            corrected, members = _corrected_answers(evidence, prior, groups_of_target, seed=seed)
        logits = log_softmax(corrected.astype(np.float64), axis=1)
        given.append(_Given(teacher, classifier.record.metrics.get("validation"), logits))
        groups = members if groups is None else groups
    assert groups is not None  # noqa: S101 - a recipe names at least one teacher
    return _joined(given, groups, log)


def _joined(
    given: Sequence[_Given], groups: np.ndarray, log: Callable[[str], None]
) -> TargetAnswers:
    is_best = best_on_validation([each.validation for each in given])
    best = [each for each, is_one in zip(given, is_best, strict=True) if is_one]
    if len(given) > 1:
        names = ", ".join(each.teacher for each in best)
        log(f"self-training: rows like the training texts are labelled by {names}")
    own = TargetAnswers(_mean(best), groups)
    return TargetAnswers(np.where(own.unlike_training[:, None], _mean(given), own.logits), groups)


def best_on_validation(metrics: Sequence[Metrics | MultiLabelMetrics | None]) -> list[bool]:
    """Return which runs are as accurate on their validation rows as the best one.

    A run is as accurate if it is behind by no more than the standard error of the difference. Runs
    without validation rows are not, unless no run has any: then the first one is the best.

    Args:
        metrics: of each run on its own validation rows, which need not be those of another.
    """
    known = [each for each in metrics if isinstance(each, Metrics)]
    if not known:
        return [number == 0 for number in range(len(metrics))]
    best = max(known, key=lambda each: each.accuracy)
    return [isinstance(each, Metrics) and _is_as_good(each, best) for each in metrics]


def _is_as_good(metrics: Metrics, best: Metrics) -> bool:
    variance = sum(each.accuracy * (1.0 - each.accuracy) / each.rows for each in (metrics, best))
    return best.accuracy - metrics.accuracy <= math.sqrt(variance)


def _mean(given: Sequence[_Given]) -> np.ndarray:
    """Return the logarithms of mean probabilities."""
    mean: np.ndarray = logsumexp([each.logits for each in given], axis=0) - np.log(len(given))
    return mean


def _own_answers(classifier: Classifier, splits: Splits) -> tuple[np.ndarray, np.ndarray]:
    assert splits.target is not None  # noqa: S101 - self-training needs a target
    return classifier.outputs(splits.target).logits, classifier.groups(splits.target)


def _evidence(classifier: Classifier, splits: Splits, prior: PriorSettings) -> ShiftEvidence:
    assert splits.target is not None  # noqa: S101 - self-training needs a target
    needs_features = prior.discriminator == "hidden-states"
    return ShiftEvidence(
        names=classifier.labels,
        source=learned_class_shares(classifier.settings, splits.train, record=classifier.record),
        validation=classifier.outputs(splits.validation, features=needs_features),
        labels=np.asarray(splits.validation["label"][:]),
        target=classifier.outputs(splits.target, features=needs_features),
        texts=(texts_of(splits.train), texts_of(splits.target)),
    )


def _corrected_answers(
    evidence: ShiftEvidence, prior: PriorSettings, groups: Groups | None, *, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    correction, _ = estimate_correction(evidence, prior, groups=groups, seed=seed)
    target, texts = evidence.target, evidence.texts[1]
    members = correction.groups_of(texts, target.features)
    return correction.apply(target, texts).logits, members
