"""What finished runs say about the rows of a target, corrected for its class shares."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy.special import log_softmax, logsumexp

from pennyweight.data.splits import Splits
from pennyweight.inference.classifier import Classifier
from pennyweight.inference.correction import ShiftEvidence, estimate_correction
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
    """Return the mean probabilities of the teachers, as logits, and the groups of the first one.

    A teacher that corrects for class shares gives corrected answers. Another one is corrected here,
    where the recipe has a prior.

    Args:
        splits: with the target, and the rows that a correction is estimated from.
        teachers: directories of finished runs.
        prior: how teachers without a correction are corrected; None for not at all.
        seed: of the correction.
        log: gets a line for each teacher that is corrected.
    """
    logits, groups = [], None
    for teacher in teachers:
        classifier = Classifier.load(teacher)
        if prior is None or classifier.has_correction:
            corrected, members = _own_answers(classifier, splits)
        else:
            log(f"self-training: {teacher} is corrected for the class shares of the target")
            corrected, members = _corrected_answers(classifier, splits, prior, seed=seed)
        logits.append(log_softmax(corrected.astype(np.float64), axis=1))
        groups = members if groups is None else groups
    assert groups is not None  # noqa: S101 - a recipe names at least one teacher
    return TargetAnswers(logsumexp(logits, axis=0) - np.log(len(logits)), groups)


def _own_answers(classifier: Classifier, splits: Splits) -> tuple[np.ndarray, np.ndarray]:
    assert splits.target is not None  # noqa: S101 - self-training needs a target
    return classifier.outputs(splits.target).logits, classifier.groups(splits.target)


def _corrected_answers(
    classifier: Classifier, splits: Splits, prior: PriorSettings, *, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    assert splits.target is not None  # noqa: S101 - self-training needs a target
    needs_features = prior.discriminator == "hidden-states"
    labels = np.asarray(splits.train["label"][:])
    counts = np.bincount(labels, minlength=len(classifier.labels))
    target = classifier.outputs(splits.target, features=needs_features)
    texts = texts_of(splits.target)
    evidence = ShiftEvidence(
        names=classifier.labels,
        source=counts / counts.sum(),
        validation=classifier.outputs(splits.validation, features=needs_features),
        labels=np.asarray(splits.validation["label"][:]),
        target=target,
        texts=(texts_of(splits.train), texts),
    )
    correction, _ = estimate_correction(evidence, prior, seed=seed)
    return correction.apply(target, texts).logits, correction.groups_of(texts, target.features)
