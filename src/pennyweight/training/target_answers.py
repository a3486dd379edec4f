"""Answers of finished runs for a target's rows, corrected for its class shares."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy.special import log_softmax, logsumexp

from pennyweight.data.splits import Splits
from pennyweight.inference.classifier import Classifier
from pennyweight.inference.correction import ShiftEvidence, estimate_correction, find_groups
from pennyweight.inference.groups import Groups
from pennyweight.inference.texts import texts_of
from pennyweight.settings.values import PriorSettings
from pennyweight.training.pseudo_labels import TargetAnswers

__all__ = ["answer_target"]


def answer_target(
    splits: Splits,
    teachers: Sequence[str],
    prior: PriorSettings | None,
    *,
    seed: int,
    log: Callable[[str], None],
) -> TargetAnswers:
    """Return what the teachers answer, as logits, and the groups of the first one.

    Rows unlike the training texts get the mean probabilities of all teachers, and the others those
    of the first teacher, which is to be the best one on texts like the training texts.

    A teacher that corrects for class shares gives corrected answers. Another one is corrected here,
    where the recipe has a prior.

    Args:
        splits: with the target, and the rows that a correction is estimated from.
        teachers: directories of finished runs.
        prior: how teachers without a correction are corrected; None for not at all.
        seed: of the correction.
        log: gets a line for each teacher that is corrected.
    """
    logits: list[np.ndarray] = []
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
        logits.append(log_softmax(corrected.astype(np.float64), axis=1))
        groups = members if groups is None else groups
    assert groups is not None  # noqa: S101 - a recipe names at least one teacher
    first = TargetAnswers(logits[0], groups)
    mean = logsumexp(logits, axis=0) - np.log(len(logits))
    return TargetAnswers(np.where(first.unlike_training[:, None], mean, first.logits), groups)


def _own_answers(classifier: Classifier, splits: Splits) -> tuple[np.ndarray, np.ndarray]:
    assert splits.target is not None  # noqa: S101 - self-training needs a target
    return classifier.outputs(splits.target).logits, classifier.groups(splits.target)


def _evidence(classifier: Classifier, splits: Splits, prior: PriorSettings) -> ShiftEvidence:
    assert splits.target is not None  # noqa: S101 - self-training needs a target
    needs_features = prior.discriminator == "hidden-states"
    labels = np.asarray(splits.train["label"][:])
    counts = np.bincount(labels, minlength=len(classifier.labels))
    return ShiftEvidence(
        names=classifier.labels,
        source=counts / counts.sum(),
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
