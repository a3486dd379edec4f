"""Label shift: estimate class shares in unlabelled text, and correct probabilities for them.

All estimates assume label shift: within a class, texts look the same in the training set and in
the target; only the shares of the classes differ.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.special import log_softmax, softmax

__all__ = [
    "SMALLEST_SINGULAR_VALUE",
    "Estimate",
    "confusion_of",
    "correct_logits",
    "estimate_prior",
    "match_shares",
    "positive_shares",
    "prior_by_confusion",
    "prior_by_em",
]

# If P(predicted | true) has a smaller singular value, the classifier does not separate the classes
# well enough to estimate their shares.
SMALLEST_SINGULAR_VALUE = 0.1
_RESAMPLES = 200
_EM_STEPS, _EM_TOLERANCE = 1000, 1e-8
_SCALING_STEPS, _SCALING_TOLERANCE = 2000, 1e-8
_MOST_PIVOTS = 10_000_000
_SMALLEST_SHARE = 1e-6


@dataclass(frozen=True, slots=True)
class Estimate:
    """Estimated class shares of a set.

    Attributes:
        prior: float64 `[classes]`, summing to 1.
        low: lower ends of the 95% bootstrap intervals, `[classes]`.
        high: upper ends.
        refused: the reason why the shares could not be estimated; `prior` then holds the training
            shares. None for a valid estimate.
    """

    prior: np.ndarray
    low: np.ndarray
    high: np.ndarray
    refused: str | None = None


def confusion_of(predicted: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """Return P(predicted | true) as float64 `[predicted, true]`; each column sums to 1.

    A class without rows gets the column of a classifier that always recognizes it.

    Args:
        predicted: int `[rows]`.
        labels: int `[rows]`.
        classes: number of classes.
    """
    counts = np.zeros((classes, classes))
    np.add.at(counts, (predicted, labels), 1.0)
    empty = counts.sum(axis=0) == 0
    counts[empty, empty] = 1.0
    return counts / counts.sum(axis=0)


def prior_by_em(probabilities: np.ndarray, source: np.ndarray) -> np.ndarray:
    """Return the maximum-likelihood class shares by expectation maximization.

    Saerens et al. 2002, doi:10.1162/089976602753284446.

    Args:
        probabilities: a calibrated classifier's, for the rows of the target, `[rows, classes]`.
        source: class shares of its training rows, `[classes]`; see `positive_shares`.
    """
    prior = source = positive_shares(source)
    for _ in range(_EM_STEPS):
        weighted = probabilities * (prior / source)
        update = (weighted / weighted.sum(axis=1, keepdims=True)).mean(axis=0)
        if np.abs(update - prior).max() < _EM_TOLERANCE:
            return update
        prior = update
    return prior


def prior_by_confusion(confusion: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Return the class shares that explain the predictions (black-box shift estimation).

    Lipton et al. 2018, arXiv:1802.03916. Negative solutions are clipped to 0.

    Args:
        confusion: P(predicted | true) on validation rows, `[classes, classes]`.
        predicted: share of each class among the predictions for the target, `[classes]`.
    """
    solution, *_ = np.linalg.lstsq(confusion, predicted, rcond=None)
    solution = np.clip(solution, 0.0, None)
    return solution / solution.sum()


def estimate_prior(
    method: str,
    *,
    validation: np.ndarray,
    labels: np.ndarray,
    target: np.ndarray,
    source: np.ndarray,
    seed: int,
) -> Estimate:
    """Estimate the class shares of the target with bootstrap intervals.

    The estimate is refused if the classifier's confusion matrix on validation is nearly singular.
    The classifier knows nothing of a class without training rows, so the share of such a class
    stays 0.

    Args:
        method: "em" or "confusion".
        validation: calibrated logits of validation rows, `[rows, classes]`.
        labels: labels of the validation rows, int `[rows]`.
        target: calibrated logits of target rows, `[rows, classes]`.
        source: class shares of the training rows, `[classes]`.
        seed: of the bootstrap, which resamples target rows and, with "confusion", validation rows.
    """
    classes = validation.shape[1]
    impossible = np.where(source > 0.0, 0.0, -np.inf)
    validation, target = validation + impossible, target + impossible
    validation_classes = validation.argmax(axis=1)
    confusion = confusion_of(validation_classes, labels, classes)
    smallest = float(np.linalg.svd(confusion, compute_uv=False)[-1])
    if smallest < SMALLEST_SINGULAR_VALUE:
        return Estimate(
            source,
            source,
            source,
            "the classifier's confusion matrix on validation is nearly singular (smallest singular "
            f"value {smallest:.3f}, at least {SMALLEST_SINGULAR_VALUE} is required): it does not "
            "separate some of the classes, so their shares cannot be estimated",
        )
    probabilities = softmax(target, axis=1)
    target_classes = target.argmax(axis=1)

    def shares(target_rows: np.ndarray, validation_rows: np.ndarray) -> np.ndarray:
        if method == "em":
            return prior_by_em(probabilities[target_rows], source)
        counts = np.bincount(target_classes[target_rows], minlength=classes)
        return prior_by_confusion(
            confusion_of(validation_classes[validation_rows], labels[validation_rows], classes),
            counts / len(target_rows),
        )

    prior = shares(np.arange(len(target)), np.arange(len(validation)))
    resampled = _bootstrap(shares, len(target), len(validation), seed=seed)
    low, high = np.quantile(resampled, (0.025, 0.975), axis=0)
    return Estimate(prior, low, high)


def _bootstrap(
    shares: Callable[[np.ndarray, np.ndarray], np.ndarray],
    target_rows: int,
    validation_rows: int,
    *,
    seed: int,
) -> np.ndarray:
    """Return the shares of resampled rows, `[resamples, classes]`."""
    generator = np.random.default_rng((seed, 3))
    return np.array(
        [
            shares(
                generator.integers(target_rows, size=target_rows),
                generator.integers(validation_rows, size=validation_rows),
            )
            for _ in range(_RESAMPLES)
        ]
    )


def match_shares(
    logits: np.ndarray, shares: np.ndarray, *, entropy: float = 1.0, slack: float = 0.0
) -> np.ndarray:
    """Return the offset of each class's logit with which the target has the given class shares.

    Unlike the estimates above this makes no assumption about label shift, but the shares must be
    known from elsewhere. Rows are assigned to classes by optimal transport with the negative log
    probabilities as cost (Cuturi 2013, arXiv:1306.0895); the offsets are its dual variables.

    Args:
        logits: calibrated, of the target's rows, `[rows, classes]`.
        shares: required class shares, `[classes]`, summing to 1.
        entropy: weight of the assignment's entropy. With 1, the mean probabilities equal the
            shares (iterative scaling, Deming & Stephan 1940); with 0, each row has one class, and
            the numbers of rows predicted for the classes do.
        slack: how far the shares may be missed: the inverse weight of the Kullback-Leibler
            divergence from them (Chizat et al. 2018, arXiv:1607.05816); 0 for not at all. Needs
            an entropy above 0.

    Returns:
        Offsets with mean 0, float64 `[classes]`.
    """
    cost = -log_softmax(logits, axis=1)
    shares = positive_shares(shares)
    if entropy == 0.0:
        offset = _hard_assignment(cost, shares)
    elif slack == 0.0:
        offset = _balanced_assignment(cost, shares, entropy)
    else:
        offset = _relaxed_assignment(cost, shares, entropy, slack)
    return offset - offset.mean()


def positive_shares(shares: np.ndarray) -> np.ndarray:
    """Return class shares without zeros, which can be divided by and still sum to 1."""
    positive = np.maximum(shares, _SMALLEST_SHARE)
    return positive / positive.sum()


def _hard_assignment(cost: np.ndarray, shares: np.ndarray) -> np.ndarray:
    import ot

    _, log = ot.emd(_equal_weights(cost), shares, cost, numItermax=_MOST_PIVOTS, log=True)
    dual: np.ndarray = log["v"]
    return dual


def _balanced_assignment(cost: np.ndarray, shares: np.ndarray, entropy: float) -> np.ndarray:
    import ot

    _, log = ot.sinkhorn(
        _equal_weights(cost),
        shares,
        cost,
        entropy,
        method="sinkhorn_log",
        numItermax=_SCALING_STEPS,
        stopThr=_SCALING_TOLERANCE,
        warn=False,
        log=True,
    )
    dual: np.ndarray = entropy * log["log_v"]
    return dual


def _relaxed_assignment(
    cost: np.ndarray, shares: np.ndarray, entropy: float, slack: float
) -> np.ndarray:
    import ot

    with warnings.catch_warnings():
        # That the reference measure, which is not given, has no effect on the entropy.
        warnings.simplefilter("ignore", UserWarning)
        _, log = ot.unbalanced.sinkhorn_unbalanced(
            _equal_weights(cost),
            shares,
            cost,
            entropy,
            (float("inf"), 1.0 / slack),
            method="sinkhorn_stabilized",
            reg_type="entropy",
            numItermax=_SCALING_STEPS,
            log=True,
        )
    dual: np.ndarray = entropy * log["logv"]
    return dual


def _equal_weights(cost: np.ndarray) -> np.ndarray:
    return np.full(len(cost), 1.0 / len(cost))


def correct_logits(logits: np.ndarray, *, source: np.ndarray, prior: np.ndarray) -> np.ndarray:
    """Move calibrated logits from one set of class shares to another (Saerens et al. 2002).

    Args:
        logits: float `[rows, classes]`.
        source: class shares of the training rows, `[classes]`.
        prior: class shares to correct for, `[classes]` or `[rows, classes]`.
    """
    smallest = _SMALLEST_SHARE
    return logits + np.log(np.maximum(prior, smallest)) - np.log(np.maximum(source, smallest))
