"""The losses of labelled rows, for soft targets: cross-entropy, focal, and logit-adjusted.

A single-label target is a distribution over the classes, a multi-label target a probability for
each class; both may be smoothed, mixed and weighted. Losses are summed over classes and rows.

The sum over the classes of a multi-label task is not divided by their number, so that learning
rates carry over from single-label tasks: once the probability of a class equals its share of the
rows, the gradient of a row with one label has a norm near 1 in both kinds of task, however many
classes there are. A mean over the classes would make it smaller the more classes there are.
"""

from __future__ import annotations

import torch
from torch.nn import functional

__all__ = ["bernoulli_divergence", "multi_label_loss", "single_label_loss"]

# Powers of smaller numbers than this have gradients that are not finite for gamma below 1.
_SMALLEST = 1e-12


def single_label_loss(
    logits: torch.Tensor, distribution: torch.Tensor, *, gamma: float = 0.0
) -> torch.Tensor:
    """Return the cross-entropy with a softmax, or the focal loss, summed over rows.

    The focal loss (Lin et al. 2017, arXiv:1708.02002) multiplies the cross-entropy of each class by
    (1 - p)^gamma, so that rows that are classified well already count less.

    Args:
        logits: float32 `[rows, classes]`.
        distribution: target times the row's weight, float32 `[rows, classes]`.
        gamma: exponent of the focal loss; 0 for cross-entropy.
    """
    log = functional.log_softmax(logits, dim=1)
    return -(distribution * _focused(log, gamma)).sum()


def multi_label_loss(
    logits: torch.Tensor, positive: torch.Tensor, negative: torch.Tensor, *, gamma: float = 0.0
) -> torch.Tensor:
    """Return the binary cross-entropy or focal loss, summed over classes and rows.

    Args:
        logits: float32 `[rows, classes]`.
        positive: weight of "has the class" in the target, float32 `[rows, classes]`.
        negative: weight of "has it not", float32 `[rows, classes]`.
        gamma: exponent of the focal loss; 0 for cross-entropy.
    """
    has, lacks = functional.logsigmoid(logits), functional.logsigmoid(-logits)
    return -(positive * _focused(has, gamma) + negative * _focused(lacks, gamma)).sum()


def _focused(log: torch.Tensor, gamma: float) -> torch.Tensor:
    """Return log-probabilities times (1 - p)^gamma."""
    if gamma == 0.0:
        return log
    return log * (-torch.expm1(log)).clamp(min=_SMALLEST).pow(gamma)


def bernoulli_divergence(logits: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """Return the Kullback-Leibler divergence from other logits' sigmoids, summed over classes.

    It is the sum over the classes of D(sigmoid(others) || sigmoid(logits)), `[rows]`.

    Args:
        logits: float32 `[rows, classes]`.
        others: float32 `[rows, classes]`.
    """
    share = others.sigmoid()
    has = functional.logsigmoid(others) - functional.logsigmoid(logits)
    lacks = functional.logsigmoid(-others) - functional.logsigmoid(-logits)
    return (share * has + (1.0 - share) * lacks).sum(dim=1)
