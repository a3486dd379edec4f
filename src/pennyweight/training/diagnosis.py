"""Signs that a training went wrong or ended too early, each one sentence with a suggested fix."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

__all__ = ["describe_collapse", "describe_falling_loss"]

# A model has collapsed if it gives this share of the rows the same answer,
_COLLAPSED_SHARE = 0.95
# and the share of the rows whose label is that answer is lower by at least this much.
_EXCESS_SHARE = 0.05
# Fewer rows, or fewer recorded losses, say too little.
_FEWEST_ROWS = 20
_FEWEST_LOSSES = 12
# The loss still falls fast if it fell by this fraction within a tenth of the training,
_FALL = 0.1
# and by this many standard errors, so that the noise of single batches is no reason.
_STANDARD_ERRORS = 2.0
# A loss below this fraction of that at the beginning has little left to lose.
_DONE = 0.05


def describe_collapse(
    predicted: np.ndarray, labels: np.ndarray, *, names: Sequence[str]
) -> str | None:
    """Return a warning if nearly all validation rows get the same answer; otherwise None.

    Args:
        predicted: int `[rows]`, or `[rows, classes]` of 0 and 1 in a multi-label task.
        labels: of the same shape.
        names: of the classes.
    """
    if len(labels) < _FEWEST_ROWS:
        return None
    answers, counts = np.unique(predicted, axis=0, return_counts=True)
    answer, share = answers[counts.argmax()], counts.max() / len(labels)
    is_label = np.asarray(labels == answer)
    true_share = (is_label.all(axis=1) if is_label.ndim == 2 else is_label).mean()
    if share < _COLLAPSED_SHARE or share - true_share < _EXCESS_SHARE:
        return None
    return (
        f"warning: the model predicts {_in_words(answer, names)} for {share:.1%} of the validation "
        f"rows, but only {true_share:.1%} of them have this label; try a lower "
        "optimizer.learning_rate, more epochs or, if the classes are uneven, "
        "--set train.class_weights=balanced"
    )


def _in_words(answer: np.ndarray, names: Sequence[str]) -> str:
    if answer.ndim == 0:
        return f'"{names[int(answer)]}"'
    given = [f'"{names[index]}"' for index in np.flatnonzero(answer).tolist()]
    return " and ".join(given) if given else "no label"


def describe_falling_loss(losses: Sequence[float], *, epochs: int) -> str | None:
    """Return a warning if the training loss was still falling fast at the end; otherwise None.

    The mean of the last tenth of the losses is compared with that of the tenth before it; a tenth
    is at least three losses.

    Args:
        losses: recorded training losses, in the order of the steps.
        epochs: passes over the training rows that were planned.
    """
    if len(losses) < _FEWEST_LOSSES:
        return None
    tenth = max(3, len(losses) // 10)
    last, before = np.array(losses[-tenth:]), np.array(losses[-2 * tenth : -tenth])
    fall = float(before.mean() - last.mean())
    error = math.sqrt((before.var(ddof=1) + last.var(ddof=1)) / tenth)
    is_fast = fall > max(_FALL * before.mean(), _STANDARD_ERRORS * error)
    if not is_fast or before.mean() < _DONE * np.mean(losses[:tenth]):
        return None
    return (
        f"warning: the training loss was still falling at the end, from {before.mean():.4g} to "
        f"{last.mean():.4g} within the last tenth of the training; train longer, for example with "
        f"--set train.epochs={2 * epochs}"
    )
