"""The maths of combining adapters.

Factors are averaged; deltas are summed, merged by TIES or DARE, and brought back to a rank by a
truncated singular value decomposition.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from peft.utils.merge_utils import (
    calculate_majority_sign_mask,
    dare_linear,
    prune,
    task_arithmetic,
)

from pennyweight.model.trained_weights import LowRank

__all__ = [
    "Residual",
    "average_factors",
    "average_tensors",
    "concatenate",
    "drop_and_rescale",
    "elect_signs",
    "sum_updates",
    "truncate",
]


@dataclass(frozen=True, slots=True)
class Residual:
    """Losses of a truncated decomposition, as squared Frobenius norms.

    Attributes:
        lost: of the singular values beyond the rank.
        total: of all singular values.
    """

    lost: float = 0.0
    total: float = 0.0

    @property
    def relative(self) -> float:
        """The relative error, from 0 to 1: the norm of what is lost over the norm of all."""
        return math.sqrt(self.lost / self.total) if self.total > 0.0 else 0.0

    def __add__(self, other: Residual) -> Residual:
        return Residual(self.lost + other.lost, self.total + other.total)


def average_tensors(
    members: Sequence[Mapping[str, torch.Tensor]], weights: Sequence[float]
) -> dict[str, torch.Tensor]:
    """Return the weighted sum of each tensor over all members, by name."""
    shares = torch.tensor(weights)
    return {
        name: task_arithmetic([member[name] for member in members], shares) for name in members[0]
    }


def average_factors(updates: Sequence[LowRank], weights: Sequence[float]) -> LowRank:
    """Return the update with the weighted sums of A and of B (Wortsman et al., arXiv:2203.05482).

    The product of averages is not the average of products: this is meant for updates that were
    trained from the same start, whose factors correspond. All have the scaling of the first.
    """
    shares = torch.tensor(weights)
    return LowRank(
        task_arithmetic([update.a for update in updates], shares),
        task_arithmetic([update.b for update in updates], shares),
        updates[0].scaling,
    )


def concatenate(updates: Sequence[LowRank], weights: Sequence[float], *, scaling: float) -> LowRank:
    """Return the update whose delta is exactly the weighted sum of deltas; the ranks add up.

    Args:
        updates: of the same matrix.
        weights: of each update.
        scaling: of the result.
    """
    factors = [
        weight * each.scaling / scaling for each, weight in zip(updates, weights, strict=True)
    ]
    b = torch.cat([each.b * factor for each, factor in zip(updates, factors, strict=True)], dim=1)
    return LowRank(torch.cat([each.a for each in updates]), b, scaling)


def sum_updates(
    updates: Sequence[LowRank], weights: Sequence[float], *, rank: int, scaling: float
) -> tuple[LowRank, Residual]:
    """Return the best approximation of the weighted sum of deltas at a rank, and its error.

    The singular values are those of a matrix as small as the ranks together, so the deltas
    themselves are never computed. At the sum of the ranks the result is exact.

    Args:
        updates: of the same matrix.
        weights: of each update.
        rank: of the result.
        scaling: of the result.
    """
    whole = concatenate(updates, weights, scaling=1.0)
    basis_b, core_b = torch.linalg.qr(whole.b.double())
    basis_a, core_a = torch.linalg.qr(whole.a.double().T)
    u, s, v = torch.linalg.svd(core_b @ core_a.T)
    return _truncated(basis_b @ u, s, v @ basis_a.T, rank=rank, scaling=scaling)


def truncate(delta: torch.Tensor, *, rank: int, scaling: float) -> tuple[LowRank, Residual]:
    """Return the best approximation of a matrix at a rank (Eckart & Young 1936), and its error.

    Args:
        delta: `[rows, columns]`.
        rank: of the result.
        scaling: of the result.
    """
    u, s, v = torch.linalg.svd(delta.double(), full_matrices=False)
    return _truncated(u, s, v, rank=rank, scaling=scaling)


def _truncated(
    u: torch.Tensor, s: torch.Tensor, v: torch.Tensor, *, rank: int, scaling: float
) -> tuple[LowRank, Residual]:
    """Return the largest singular values, shared by both factors; missing ranks are zero."""
    kept = min(rank, len(s))
    root = (s[:kept] / scaling).sqrt()
    a, b = v.new_zeros(rank, v.shape[1]), u.new_zeros(u.shape[0], rank)
    a[:kept] = root[:, None] * v[:kept]
    b[:, :kept] = u[:, :kept] * root
    squares = s.square()
    residual = Residual(float(squares[kept:].sum()), float(squares.sum()))
    return LowRank(a.float(), b.float(), scaling), residual


def elect_signs(
    deltas: Sequence[torch.Tensor], weights: Sequence[float], *, density: float
) -> torch.Tensor:
    """Return deltas merged by TIES (Yadav et al. 2023, arXiv:2306.01708).

    Of each delta the entries of largest magnitude are kept; each entry of the result is the
    weighted average over those deltas that have its elected sign, which is that of the weighted
    sum. With equal weights this is what PEFT's `ties` returns.

    Args:
        deltas: of the same matrix, `[rows, columns]` each.
        weights: of each delta, 0 or more.
        density: the share of entries that is kept.
    """
    # PEFT's own merge multiplies by the weights and divides by the number of deltas with the sign.
    with _without_warning_of_full_density():
        pruned = [prune(delta, density, method="magnitude") for delta in deltas]
    share = torch.tensor(weights).view(-1, 1, 1)
    weighted = share * torch.stack(pruned)
    has_sign = calculate_majority_sign_mask(weighted)
    total = (share * has_sign).sum(dim=0)
    return (weighted * has_sign).sum(dim=0) / total.clamp(min=torch.finfo(total.dtype).tiny)


def drop_and_rescale(
    deltas: Sequence[torch.Tensor], weights: Sequence[float], *, density: float, seed: int
) -> torch.Tensor:
    """Return the weighted sum of deltas after DARE (Yu et al. 2023, arXiv:2311.03099).

    Entries are dropped at random, and those that are left are divided by `density`.

    Args:
        deltas: of the same matrix, `[rows, columns]` each.
        weights: of each delta.
        density: the share of entries that is kept.
        seed: of what is dropped.
    """
    with torch.random.fork_rng(devices=[]), _without_warning_of_full_density():
        torch.manual_seed(seed)
        return dare_linear(list(deltas), torch.tensor(weights), density)


@contextmanager
def _without_warning_of_full_density() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The density 1.0 is greater than or equal to 1")
        yield
