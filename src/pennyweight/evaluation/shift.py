"""Label shift: shares of the classes in unlabelled text, and probabilities corrected for them.

The assumption throughout: within a class, texts look alike in training and target; only the
classes' shares differ.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

__all__ = [
    "SMALLEST_SINGULAR_VALUE",
    "Estimate",
    "confusion_of",
    "correct_logits",
    "estimate_prior",
    "match_shares",
    "prior_by_confusion",
    "prior_by_em",
    "temperature_of",
]

# Below this singular value of P(predicted | true), classes cannot be told apart well enough for
# their shares to be told.
SMALLEST_SINGULAR_VALUE = 0.1
_RESAMPLES = 200


@dataclass(frozen=True, slots=True)
class Estimate:
    """Shares of the classes in a set.

    Attributes:
        prior: float64 `[classes]`, 1 in all.
        low: lower end of the 95 % bootstrap interval of each share.
        high: upper end.
        refused: why the shares cannot be told; `prior` is then the training rows'.
    """

    prior: np.ndarray
    low: np.ndarray
    high: np.ndarray
    refused: str | None = None


def temperature_of(logits: np.ndarray, labels: np.ndarray) -> float:
    """The temperature that makes labelled rows most likely (Guo et al. 2017, arXiv:1706.04599)."""

    def loss(log_temperature: float) -> float:
        scaled = log_softmax(logits / np.exp(log_temperature), axis=1)
        return -float(scaled[np.arange(len(labels)), labels].mean())

    found = minimize_scalar(loss, bounds=(-3.0, 3.0), method="bounded")
    return float(np.exp(found.x))


def confusion_of(predicted: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """P(predicted | true), `[predicted, true]`; a class without rows counts as never mistaken."""
    counts = np.zeros((classes, classes))
    np.add.at(counts, (predicted, labels), 1.0)
    empty = counts.sum(axis=0) == 0
    counts[empty, empty] = 1.0
    return counts / counts.sum(axis=0)


def prior_by_em(
    probabilities: np.ndarray, source: np.ndarray, *, steps: int = 1000, tolerance: float = 1e-8
) -> np.ndarray:
    """The most likely shares, by expectation maximization (Saerens et al. 2002).

    Args:
        probabilities: of a calibrated classifier for the target's rows, `[rows, classes]`.
        source: shares in its training rows.
        steps: at most.
        tolerance: change of a share at which it has converged.
    """
    prior = source.copy()
    for _ in range(steps):
        weighted = probabilities * (prior / source)
        found = (weighted / weighted.sum(axis=1, keepdims=True)).mean(axis=0)
        if np.abs(found - prior).max() < tolerance:
            return found
        prior = found
    return prior


def prior_by_confusion(confusion: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Shares that give these predictions (black-box shift estimation, arXiv:1802.03916).

    Args:
        confusion: P(predicted | true) on validation rows, `[classes, classes]`.
        predicted: share of each class among the target's predictions.
    """
    found, *_ = np.linalg.lstsq(confusion, predicted, rcond=None)
    found = np.clip(found, 0.0, None)
    return found / found.sum()


def estimate_prior(
    method: str,
    *,
    validation: np.ndarray,
    labels: np.ndarray,
    target: np.ndarray,
    source: np.ndarray,
    seed: int,
) -> Estimate:
    """The target's class shares with an interval, or why they cannot be told.

    Args:
        method: "em" or "confusion".
        validation: calibrated logits of validation rows, `[rows, classes]`.
        labels: of the validation rows.
        target: calibrated logits of target rows.
        source: shares in the training rows.
        seed: of the bootstrap, over target rows and, by confusion, validation rows too.
    """
    classes = validation.shape[1]
    answers = validation.argmax(axis=1)
    smallest = float(np.linalg.svd(confusion_of(answers, labels, classes), compute_uv=False)[-1])
    if smallest < SMALLEST_SINGULAR_VALUE:
        return Estimate(
            source,
            source,
            source,
            "the classifier's confusion matrix on validation is nearly singular (smallest singular "
            f"value {smallest:.3f}, at least {SMALLEST_SINGULAR_VALUE} is needed): some classes "
            "cannot be told apart, so neither can their shares",
        )
    probabilities = softmax(target, axis=1)
    predicted = target.argmax(axis=1)

    def once(rows: np.ndarray, checked: np.ndarray) -> np.ndarray:
        if method == "em":
            return prior_by_em(probabilities[rows], source)
        confusion = confusion_of(answers[checked], labels[checked], classes)
        return prior_by_confusion(
            confusion, np.bincount(predicted[rows], minlength=classes) / len(rows)
        )

    prior = once(np.arange(len(target)), np.arange(len(validation)))
    resampled = _bootstrap(once, len(target), len(validation), seed=seed)
    low, high = np.quantile(resampled, (0.025, 0.975), axis=0)
    return Estimate(prior, low, high)


def _bootstrap(
    once: Callable[[np.ndarray, np.ndarray], np.ndarray], rows: int, checked: int, *, seed: int
) -> np.ndarray:
    draw = np.random.default_rng((seed, 3))
    return np.array(
        [
            once(draw.integers(rows, size=rows), draw.integers(checked, size=checked))
            for _ in range(_RESAMPLES)
        ]
    )


def match_shares(
    logits: np.ndarray, shares: np.ndarray, *, steps: int = 500, tolerance: float = 1e-6
) -> np.ndarray:
    """What to add to each class's logit so that mean probabilities are these shares, `[classes]`.

    Unlike the estimates above, this assumes nothing of how the classes look; the shares must come
    from somebody who knows them. Iterative scaling (Deming & Stephan 1940).

    Args:
        logits: calibrated, of the target's rows, `[rows, classes]`.
        shares: wanted, 1 in all.
        steps: at most.
        tolerance: difference of a share at which they match.
    """
    shift = np.zeros(logits.shape[1])
    for _ in range(steps):
        mean = softmax(logits + shift, axis=1).mean(axis=0)
        if np.abs(mean - shares).max() < tolerance:
            break
        shift += np.log(np.maximum(shares, 1e-6)) - np.log(np.maximum(mean, 1e-12))
    found: np.ndarray = shift - shift.mean()
    return found


def correct_logits(logits: np.ndarray, *, source: np.ndarray, prior: np.ndarray) -> np.ndarray:
    """Calibrated logits as they would be had training had these shares (Saerens et al. 2002)."""
    floor = 1e-6
    return logits + np.log(np.maximum(prior, floor)) - np.log(np.maximum(source, floor))
