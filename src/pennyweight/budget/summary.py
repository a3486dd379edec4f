"""A plan's result as plain values, which a run's record and the tables read without torch."""

from __future__ import annotations

from dataclasses import dataclass

from pennyweight.budget.layout import layer_of, role_of

__all__ = ["SHARED", "Matrix", "PlanSummary"]

# The name of what the adapters of all matrices share.
SHARED = "shared by all matrices"


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
