"""A plan's result as plain values, which a run's record and the tables read without torch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pennyweight.budget.layout import layer_of, role_of

__all__ = ["SHARED", "Matrix", "PlanSummary", "RankTable"]

# The name of what the adapters of all matrices share.
SHARED = "shared by all matrices"
_MOST_LAYERS = 10_000


@dataclass(frozen=True, slots=True)
class Matrix:
    """One trained part of a model and its number of parameters.

    Attributes:
        name: the name of the adapted module, or of a trained parameter of the head or a bias;
            `SHARED` for what the adapters of all matrices share.
        kind: the adapter method's name, "head" or "bias".
        rank: the adapter's rank, or the value of the key that takes its place (see `Dial`); None
            for adapters of one size only, and for parts that are trained in full.
        alpha: the adapter's alpha, of which scaling = alpha / rank; None where there is none.
        parameters: number of trained elements.
        layer: number of the transformer layer; None outside the layers.
        role: the name inside the layer, such as "attention.self.query"; outside the layers the
            whole name.
    """

    name: str
    kind: str
    rank: int | None
    alpha: float | None
    parameters: int
    layer: int | None
    role: str

    @classmethod
    def trained_in_full(cls, name: str, *, kind: str, parameters: int) -> Matrix:
        """Return the entry of a parameter that is trained itself, without an adapter."""
        return cls(name, kind, None, None, parameters, layer_of(name), role_of(name))

    @classmethod
    def shared(cls, *, kind: str, parameters: int) -> Matrix:
        """Return the entry of the parameters that the adapters of all matrices share."""
        return cls(SHARED, kind, None, None, parameters, None, SHARED)


@dataclass(frozen=True, slots=True)
class RankTable:
    """The ranks of a plan's adapters inside the layers.

    Attributes:
        roles: names of the adapted matrices inside a layer, such as "attention.self.query".
        layers: numbers of the layers, from 0 to the highest one with an adapter.
        ranks: int `[roles, layers]`; 0 where a matrix has no adapter.
    """

    roles: tuple[str, ...]
    layers: tuple[int, ...]
    ranks: np.ndarray

    @property
    def is_uniform(self) -> bool:
        """Whether all ranks are equal, so that a heat map of them would show nothing."""
        return len(np.unique(self.ranks)) <= 1


@dataclass(frozen=True, slots=True)
class PlanSummary:
    """The counts of a plan.

    Attributes:
        budget: the largest number of trainable parameters allowed.
        trainable_parameters: number of trainable parameters, counted on the model itself.
        total_parameters: parameters of base, adapters and PEFT's copy of the head together.
        within_budget: whether the plan keeps to the budget.
        matrices: every trained part, adapters first.
    """

    budget: int
    trainable_parameters: int
    total_parameters: int
    within_budget: bool
    matrices: tuple[Matrix, ...]

    def ranks(self) -> RankTable:
        """Return the rank of every adapted matrix by role and layer."""
        by_place = {
            (matrix.role, matrix.layer): matrix.rank
            for matrix in self.matrices
            if matrix.rank is not None and matrix.layer is not None
        }
        by_layer: dict[int, list[str]] = {}
        for role, layer in by_place:
            by_layer.setdefault(layer, []).append(role)
        # The layer with the most adapters has the model's own order of the roles.
        ordered = sorted(by_layer.values(), key=len, reverse=True)
        roles = tuple(dict.fromkeys(role for each in ordered for role in each))
        # A record that anybody may have written can name any layer.
        layers = tuple(range(min(max(by_layer, default=-1) + 1, _MOST_LAYERS)))
        table = [[by_place.get((role, layer), 0) for layer in layers] for role in roles]
        return RankTable(roles, layers, np.array(table, dtype=int).reshape(len(roles), len(layers)))
