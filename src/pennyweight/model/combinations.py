"""The table of the methods that combine trained weights into one adapter."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal

import torch

from pennyweight.model.combine import (
    Residual,
    average_factors,
    average_tensors,
    concatenate,
    drop_and_rescale,
    elect_signs,
    sum_updates,
    truncate,
)
from pennyweight.model.trained_weights import LowRank, TrainedWeights

__all__ = ["COMBINATIONS", "Combination", "Combined", "HeadSource", "Ingredients", "Space", "Trial"]

Space = Literal["factors", "deltas", "ranks"]
HeadSource = Literal["average", "first"]


@dataclass(frozen=True, slots=True)
class Ingredients:
    """Adapters to combine, and the options of the method.

    Attributes:
        members: the trained weights, which all have the same classes in the same order.
        weights: of each member, adding up to 1.
        space: whether the factors A and B are averaged, or the deltas B A, which are then brought
            back to the ranks of the result, or whether the ranks of the members add up.
        parts: rank and scaling of each matrix of the result.
        head: whether the heads are averaged, or that of the first member is kept.
        density: the share of the entries of each delta that "ties" and "dare" keep.
        seed: of what "dare" drops.
        score: returns the validation metric of combined weights, larger for better ones; None if
            the method does not ask.
    """

    members: tuple[TrainedWeights, ...]
    weights: tuple[float, ...]
    space: Space
    parts: Mapping[str, tuple[int, float]]
    head: HeadSource = "average"
    density: float = 1.0
    seed: int = 0
    score: Callable[[TrainedWeights], float] | None = None

    def only(self, indices: Sequence[int]) -> Ingredients:
        """Return some of the members, in this order, with equal weights."""
        return replace(
            self,
            members=tuple(self.members[index] for index in indices),
            weights=(1.0 / len(indices),) * len(indices),
        )


@dataclass(frozen=True, slots=True)
class Trial:
    """A member that "greedy" tried, with the validation metric that it led to."""

    member: int
    score: float
    is_kept: bool


@dataclass(frozen=True, slots=True)
class Combined:
    """The result of a combination.

    Attributes:
        weights: the combined weights.
        shares: the weight of each member in it; 0 for one that is not used.
        residuals: what was lost in each matrix that was brought back to its rank, by its name.
        trials: the members that were tried one by one, in this order.
    """

    weights: TrainedWeights
    shares: tuple[float, ...]
    residuals: Mapping[str, Residual]
    trials: tuple[Trial, ...] = ()


@dataclass(frozen=True, slots=True)
class Combination:
    """One method.

    Attributes:
        name: the value of `--method`.
        summary: what it does, in a few words.
        paper: the method's paper.
        combine: the function that does it.
        spaces: what it can average.
        options: the options that it takes.
        needs: the options that it cannot do without.
        fewest: the smallest number of runs.
        most: the largest number of runs; None if there is none.
        scores: whether it decides by validation rows.
    """

    name: str
    summary: str
    paper: str
    combine: Callable[[Ingredients], Combined]
    spaces: tuple[Space, ...] = ("factors", "deltas")
    options: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    fewest: int = 2
    most: int | None = None
    scores: bool = False


def _average(ingredients: Ingredients) -> Combined:
    """Combine the members with their weights, in whichever space is chosen."""
    updates, residuals = dict[str, LowRank](), dict[str, Residual]()
    for matrix, (rank, scaling) in ingredients.parts.items():
        present = _present(ingredients, matrix)
        each, shares = [update for update, _ in present], [share for _, share in present]
        match ingredients.space:
            case "factors":
                updates[matrix] = average_factors(each, shares)
            case "ranks":
                updates[matrix] = concatenate(each, shares, scaling=scaling)
            case "deltas":
                updates[matrix], residuals[matrix] = sum_updates(
                    each, shares, rank=rank, scaling=scaling
                )
    return _with_rest(ingredients, updates, residuals, shares=ingredients.weights)


def _greedy(ingredients: Ingredients) -> Combined:
    """Add one member after the other, and keep each if validation does not get worse."""
    score = ingredients.score
    assert score is not None  # noqa: S101 - given to methods that score
    kept: list[int] = []
    trials: list[Trial] = []
    best: tuple[float, Combined] | None = None
    for index in range(len(ingredients.members)):
        candidate = _average(ingredients.only([*kept, index]))
        value = score(candidate.weights)
        is_kept = best is None or value >= best[0]
        trials.append(Trial(index, value, is_kept))
        if is_kept:
            kept.append(index)
            best = (value, candidate)
    assert best is not None  # noqa: S101 - the first member is kept
    shares = tuple(1.0 / len(kept) if i in kept else 0.0 for i in range(len(ingredients.members)))
    return replace(best[1], shares=shares, trials=tuple(trials))


def _ties(ingredients: Ingredients) -> Combined:
    density = ingredients.density
    return _by_delta(
        ingredients,
        lambda deltas, weights, _: elect_signs(deltas, weights, density=density),
    )


def _dare(ingredients: Ingredients) -> Combined:
    return _by_delta(
        ingredients,
        lambda deltas, weights, matrix: drop_and_rescale(
            deltas,
            weights,
            density=ingredients.density,
            # Other entries are dropped in each matrix, whatever other matrices there are.
            seed=ingredients.seed + zlib.crc32(matrix.encode()),
        ),
    )


def _by_delta(
    ingredients: Ingredients,
    merge: Callable[[Sequence[torch.Tensor], Sequence[float], str], torch.Tensor],
) -> Combined:
    """Merge the whole deltas of each matrix, and bring the result back to its rank."""
    updates, residuals = dict[str, LowRank](), dict[str, Residual]()
    for matrix, (rank, scaling) in ingredients.parts.items():
        known = [member.updates.get(matrix) for member in ingredients.members]
        shape = next(update.delta().shape for update in known if update is not None)
        deltas = [torch.zeros(shape) if update is None else update.delta() for update in known]
        merged = merge(deltas, ingredients.weights, matrix)
        updates[matrix], residuals[matrix] = truncate(merged, rank=rank, scaling=scaling)
    return _with_rest(ingredients, updates, residuals, shares=ingredients.weights)


def _present(ingredients: Ingredients, matrix: str) -> list[tuple[LowRank, float]]:
    """Return the updates of a matrix with their weights; a member without one adds nothing."""
    pairs = zip(ingredients.members, ingredients.weights, strict=True)
    return [(each.updates[matrix], share) for each, share in pairs if matrix in each.updates]


def _with_rest(
    ingredients: Ingredients,
    updates: Mapping[str, LowRank],
    residuals: dict[str, Residual],
    *,
    shares: tuple[float, ...],
) -> Combined:
    """Add the averages of all other tensors, and the head."""
    members, first = ingredients.members, ingredients.members[0]
    tensors = average_tensors([member.tensors for member in members], ingredients.weights)
    if ingredients.head == "first":
        head = dict(first.head)
    else:
        head = average_tensors([member.head for member in members], ingredients.weights)
        if first.product is not None and ingredients.space != "factors":
            down, out = first.product
            factors = [LowRank(each.head[down], each.head[out], 1.0) for each in members]
            product, residuals[down] = sum_updates(
                factors, ingredients.weights, rank=factors[0].rank, scaling=1.0
            )
            head |= {down: product.a, out: product.b}
    return Combined(TrainedWeights(updates, tensors, head, first.product), shares, residuals)


_ROWS = (
    Combination(
        "average",
        "the average of all runs (uniform soup)",
        "Wortsman et al. 2022, model soups, arXiv:2203.05482",
        _average,
    ),
    Combination(
        "greedy",
        "the average of those runs that do not make validation worse, tried from the best on "
        "(greedy soup)",
        "Wortsman et al. 2022, model soups, arXiv:2203.05482",
        _greedy,
        scores=True,
    ),
    Combination(
        "weighted",
        "the average with the weights of --weights",
        "Wortsman et al. 2022, model soups, arXiv:2203.05482",
        _average,
        options=("weights",),
        needs=("weights",),
    ),
    Combination(
        "ties",
        "the largest entries of each delta, averaged over the runs that have the elected sign",
        "Yadav et al. 2023, TIES-Merging, arXiv:2306.01708",
        _ties,
        spaces=("deltas",),
        options=("weights", "density"),
    ),
    Combination(
        "dare",
        "the average of deltas, of which random entries are dropped and the others rescaled",
        "Yu et al. 2023, DARE, arXiv:2311.03099",
        _dare,
        spaces=("deltas",),
        options=("weights", "density", "seed"),
    ),
    Combination(
        "concatenated",
        "exactly the weighted sum of deltas: the ranks add up",
        "",
        _average,
        spaces=("ranks",),
        options=("weights",),
    ),
    Combination(
        "interpolate",
        "the point --toward between two runs, or between the untrained adapter and a run",
        "Wortsman et al. 2021, WiSE-FT, arXiv:2109.01903",
        _average,
        options=("toward",),
        needs=("toward",),
        fewest=1,
        most=2,
    ),
)
COMBINATIONS: Mapping[str, Combination] = MappingProxyType({row.name: row for row in _ROWS})
