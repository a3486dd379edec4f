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

__all__ = [
    "bernoulli_divergence",
    "contrastive_loss",
    "multi_label_loss",
    "single_label_loss",
]

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


def contrastive_loss(
    features: torch.Tensor, labels: torch.Tensor, *, temperature: float
) -> torch.Tensor:
    """Return the supervised contrastive loss of a batch, times its number of rows.

    Each row is an anchor whose positives are the rows with the same label (Khosla et al. 2020,
    arXiv:2004.11362, equation 2). Rows with several labels are positives in the degree to which
    their labels overlap (Jaccard index). Anchors without a positive and unlabelled rows do not
    count.

    Args:
        features: the input of the output layer, float `[rows, hidden]`.
        labels: int64 `[rows]`, -1 for unlabelled rows; or `[rows, classes]` of 0 and 1.
        temperature: divides the cosine similarities.
    """
    unit = functional.normalize(features.float(), dim=1)
    itself = torch.eye(len(unit), dtype=torch.bool, device=unit.device)
    similarities = (unit @ unit.T / temperature).masked_fill(itself, float("-inf"))
    log = functional.log_softmax(similarities, dim=1).masked_fill(itself, 0.0)
    positives = _overlap(labels).masked_fill(itself, 0.0)
    totals = positives.sum(dim=1)
    is_anchor = totals > 0
    if not bool(is_anchor.any()):
        return unit.sum() * 0.0
    losses = -(positives * log).sum(dim=1)[is_anchor] / totals[is_anchor]
    return losses.mean() * len(unit)


def _overlap(labels: torch.Tensor) -> torch.Tensor:
    """Return how much the labels of each pair of rows agree, float32 `[rows, rows]`, 0 to 1."""
    if labels.ndim == 1:
        return ((labels[:, None] == labels[None]) & (labels[:, None] >= 0)).float()
    has = labels.clamp(min=0).float()
    shared = has @ has.T
    either = has.sum(dim=1)[:, None] + has.sum(dim=1)[None] - shared
    return shared / either.clamp(min=1.0)
