"""How a recipe spends its budget: the keys of `[adapter]`, its targets, and its head."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pennyweight.budget import patterns
from pennyweight.budget.layout import Layout, WeightMatrix
from pennyweight.budget.methods import METHODS, AdaptedMatrix, Bias, Head, Method
from pennyweight.budget.methods.sections import DEFAULT_HEAD_RANK
from pennyweight.errors import RecipeError

__all__ = ["AUTO_SCALING", "Alpha", "Spending", "head_adapter", "select_targets"]

Rank = int | Literal["fill"] | Mapping[str, int]
Alpha = float | Literal["auto"] | Mapping[str, float]

# Alpha over rank with "auto": the same scaling of the adapter whatever rank the budget allows.
AUTO_SCALING = 2.0
# Keys that say where ranks come from.
_SETTLED = ("allocate", "plan")


@dataclass(frozen=True, slots=True)
class Spending:
    """How the budget is to be spent: the plain values of a recipe's `[adapter]` section.

    Attributes:
        method: the adapter method's name.
        targets: patterns of the matrices that get an adapter.
        rank: one for all targets, one per pattern, or "fill" for the largest that fits. Of a method
            with another dial, the value of that key; None without a dial.
        alpha: one for all targets, one per pattern, or "auto" for twice the rank; None if the
            method has none.
        dropout: dropout probability on the adapters' input.
        bias: which biases are trained.
        head: how much of the classification head is trained.
        head_rank: with a low-rank head, rank of the adapter on the head's dense layer, or of a
            pooled head's weights.
        options: the method's own keys.
        top_layers: number of layers, counted from the top, in which matrices get an adapter; None
            for all of them, and for matrices outside the layers as well.
    """

    method: str
    targets: tuple[str, ...]
    rank: Rank | None
    alpha: Alpha | None
    dropout: float
    bias: Bias
    head: Head
    head_rank: int
    options: Mapping[str, Any] = field(default_factory=dict)
    top_layers: int | None = None

    @classmethod
    def of(cls, section: Mapping[str, Any]) -> Spending:
        """Return the values of a recipe's `[adapter]` section."""
        # A plan file and an allocation are read before, and by nothing else.
        options = {key: value for key, value in section.items() if key not in _SETTLED}
        dial = METHODS[options["method"]].dial
        head: Any = options.pop("head", None) or "full"
        top_layers: Any = options.pop("top_layers", "all")
        return cls(
            method=options.pop("method"),
            targets=options.pop("targets", ()),
            rank=options.pop(dial.key) if dial else None,
            alpha=options.pop("alpha", None),
            dropout=options.pop("dropout", 0.0),
            bias=options.pop("bias", "none"),
            # "auto": the rows are not known yet.
            head="full" if head == "auto" else head,
            head_rank=_known(options.pop("head_rank", DEFAULT_HEAD_RANK)),
            options=options,
            # "auto": the time that all layers would take is not known yet.
            top_layers=None if top_layers == "all" else top_layers,
        )

    @property
    def row(self) -> Method:
        """The method's row in the table."""
        return METHODS[self.method]


def _known(head_rank: int | Literal["auto"]) -> int:
    return DEFAULT_HEAD_RANK if head_rank == "auto" else head_rank


def select_targets(layout: Layout, spending: Spending) -> list[WeightMatrix]:
    """Return the layers that the patterns of `adapter.targets` match, of those it can adapt.

    With `adapter.top_layers`, they are those in the top layers of the encoder.

    Raises:
        RecipeError: a pattern matches nothing, or nothing in these layers.
    """
    matrices, targets = spending.row.targets(layout), spending.targets
    for pattern in targets:
        if not any(patterns.matches_end(pattern, *matrix.names) for matrix in matrices):
            roles = sorted({matrix.role for matrix in matrices})
            raise RecipeError(
                f'adapter.targets: "{pattern}" matches no layer that this method can adapt; '
                f'they are {", ".join(roles)}; "*" matches all of them'
            )
    matched = [
        matrix
        for matrix in matrices
        if any(patterns.matches_end(pattern, *matrix.names) for pattern in targets)
    ]
    return matched if spending.top_layers is None else _in_top(layout, spending.top_layers, matched)


def _in_top(layout: Layout, number: int, matrices: list[WeightMatrix]) -> list[WeightMatrix]:
    """Return the matrices in the top layers; those outside the layers are none of them."""
    if number > layout.layers:
        raise RecipeError(
            f"adapter.top_layers: given {number}; the encoder of this base has {layout.layers} "
            f'layer{"" if layout.layers == 1 else "s"}; allowed: 1 to {layout.layers}, "all"'
        )
    first = layout.layers - number
    selected = [matrix for matrix in matrices if matrix.layer is not None and matrix.layer >= first]
    if not selected:
        raise RecipeError(
            f"adapter.top_layers: none of adapter.targets, such as {matrices[0].name}, is in the "
            f"top {number} of {layout.layers} layers; raise it, or choose other targets"
        )
    return selected


def _check_head(layout: Layout, head: Head) -> None:
    if head in ("output-only", "low-rank") and len(layout.head_modules) > 1:
        dense, output = layout.head_modules
        raise RecipeError(
            f'adapter.head: given "{head}", but with this base PEFT trains {dense} whenever it '
            f'trains {output}; allowed here: "full", "frozen"; or set base.pooling'
        )


def head_adapter(layout: Layout, spending: Spending) -> tuple[AdaptedMatrix, ...]:
    """Return the adapter of the dense layer of a low-rank head; empty for other heads.

    Raises:
        RecipeError: the base or the method does not allow this head.
    """
    _check_head(layout, spending.head)
    if spending.head != "low-rank":
        return ()
    if layout.head_down is not None:
        _check_head_rank(layout, layout.head_down)
        return ()
    if not spending.row.support.low_rank_head:
        raise RecipeError(
            f'adapter.head: given "low-rank", which {spending.method} does not support; '
            'allowed with it: "full", "output-only", "frozen"'
        )
    dense = layout.head_dense
    if dense is None:
        raise RecipeError(
            'adapter.head: given "low-rank", but this base has no dense layer before its output '
            'layer; allowed here: "full", "output-only", "frozen"; or set base.pooling'
        )
    alpha = spending.alpha
    if isinstance(alpha, Mapping):
        own_alpha = patterns.lookup(alpha, *dense.names)
        alpha = own_alpha if own_alpha is not None else float(spending.head_rank)
    if alpha == "auto":
        alpha = AUTO_SCALING * spending.head_rank
    return (AdaptedMatrix(dense, spending.head_rank, alpha),)


def _check_head_rank(layout: Layout, down: WeightMatrix) -> None:
    """Refuse a pooled head of a low rank that costs no less than a full matrix."""
    rows, columns, rank = layout.head_output.rows, down.columns, down.rows
    largest = (rows * columns - 1) // (rows + columns)
    if rank > largest:
        raise RecipeError(
            f'adapter.head_rank: given {rank}; with {rows} classes, adapter.head = "low-rank" '
            f"saves parameters up to {largest}; "
            + ("use a smaller rank" if largest else 'use adapter.head = "full"')
        )
