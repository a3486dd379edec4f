"""From the keys of `[adapter]` to a rank and an alpha for every matrix, counted by formula."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from pennyweight.budget import patterns
from pennyweight.budget.layout import Layout, WeightMatrix
from pennyweight.budget.methods import METHODS, AdaptedMatrix, Bias, Choice, Dial, Head, Method
from pennyweight.budget.methods.method import trained_head_modules
from pennyweight.budget.methods.sections import DEFAULT_HEAD_RANK
from pennyweight.errors import BudgetError, RecipeError

__all__ = ["Spending", "choose", "count_by_formula", "smallest_size", "trained_biases"]

Rank = int | Literal["fill"] | Mapping[str, int]
Alpha = float | Literal["auto"] | Mapping[str, float]

# Alpha over rank with "auto": the same scaling of the adapter whatever rank the budget allows.
_AUTO_SCALING = 2.0
# Allowed values that a message lists at most.
_MOST_SHOWN = 12


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

    @classmethod
    def of(cls, section: Mapping[str, Any]) -> Spending:
        """Return the values of a recipe's `[adapter]` section."""
        options = dict(section)
        dial = METHODS[options["method"]].dial
        head: Any = options.pop("head", None) or "full"
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
        )

    @property
    def row(self) -> Method:
        """The method's row in the table."""
        return METHODS[self.method]


def choose(layout: Layout, spending: Spending, *, budget: int) -> Choice:
    """Return rank and alpha of every adapted matrix: patterns looked up, "fill" solved.

    Raises:
        RecipeError: a pattern matches nothing, or a rank does not fit its matrix or method.
        BudgetError: "fill" leaves no room for a rank of 1.
    """
    targets = _select_targets(spending.row.targets(layout), spending.targets)
    _check_head(layout, spending.head)
    head = _head_adapter(layout, spending)
    _check_patterns(spending, targets, head)

    def at_rank(rank: int | Mapping[str, int]) -> Choice:
        adapted = [_adapt(matrix, rank, spending.alpha) for matrix in targets]
        return Choice(
            adapted=(*(matrix for matrix in adapted if matrix.rank > 0), *head),
            dropout=spending.dropout,
            bias=spending.bias,
            head=spending.head,
            options=spending.options,
        )

    dial = spending.row.dial
    if dial is None:
        return at_rank(1)
    if spending.rank == "fill":
        rank = _largest(
            dial,
            _values(dial, targets, spending.options),
            lambda r: count_by_formula(layout, at_rank(r), method=spending.row),
            budget=budget,
        )
        choice = at_rank(rank)
    else:
        choice = at_rank(1 if spending.rank is None else spending.rank)
    if not choice.adapted:
        raise RecipeError("adapter.rank: every target has rank 0, so there is nothing to adapt")
    _check_ranks(choice, head, spending.row)
    return choice


def smallest_size(layout: Layout, spending: Spending) -> int | None:
    """Return the least costly value of the method's dial for these targets; None without a dial.

    Raises:
        RecipeError: a pattern of the targets matches nothing.
    """
    dial = spending.row.dial
    if dial is None:
        return None
    targets = _select_targets(spending.row.targets(layout), spending.targets)
    return _values(dial, targets, spending.options)[0]


def count_by_formula(layout: Layout, choice: Choice, *, method: Method) -> int:
    """Return the number of parameters that a choice trains, by arithmetic alone."""
    modules = trained_head_modules(layout, choice.head)
    head = [size for module in modules for size in layout.elements_in(module).values()]
    adapters = [method.parameters(a.matrix, a.rank, choice.options) for a in choice.adapted]
    biases = trained_biases(layout, choice)
    return sum(head) + sum(adapters) + method.shared(choice) + sum(biases.values())


def trained_biases(layout: Layout, choice: Choice) -> dict[str, int]:
    """Return the sizes of the trained biases, without those of head modules trained in full."""
    in_head = tuple(f"{module}." for module in trained_head_modules(layout, choice.head))
    biases = {
        name: size
        for name, size in layout.sizes.items()
        if name.endswith(".bias") and not name.startswith(in_head)
    }
    if choice.bias == "all":
        return biases
    targeted = {f"{a.matrix.name}.bias" for a in choice.adapted} if choice.bias != "none" else set()
    return {name: size for name, size in biases.items() if name in targeted}


def _known(head_rank: int | Literal["auto"]) -> int:
    return DEFAULT_HEAD_RANK if head_rank == "auto" else head_rank


def _select_targets(matrices: Sequence[WeightMatrix], targets: Sequence[str]) -> list[WeightMatrix]:
    for pattern in targets:
        if not any(patterns.matches_end(pattern, *matrix.names) for matrix in matrices):
            roles = sorted({matrix.role for matrix in matrices})
            raise RecipeError(
                f'adapter.targets: "{pattern}" matches no layer that this method can adapt; '
                f'they are {", ".join(roles)}; "*" matches all of them'
            )
    return [
        matrix
        for matrix in matrices
        if any(patterns.matches_end(pattern, *matrix.names) for pattern in targets)
    ]


def _check_head(layout: Layout, head: Head) -> None:
    if head in ("output-only", "low-rank") and len(layout.head_modules) > 1:
        dense, output = layout.head_modules
        raise RecipeError(
            f'adapter.head: given "{head}", but with this base PEFT trains {dense} whenever it '
            f'trains {output}; allowed here: "full", "frozen"; or set base.pooling'
        )


def _head_adapter(layout: Layout, spending: Spending) -> tuple[AdaptedMatrix, ...]:
    """Return the adapter of the dense layer of a low-rank head; empty for other heads."""
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
        alpha = _AUTO_SCALING * spending.head_rank
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


def _check_patterns(
    spending: Spending, targets: Sequence[WeightMatrix], head: Sequence[AdaptedMatrix]
) -> None:
    names = [name for matrix in targets for name in matrix.names]
    if isinstance(spending.rank, Mapping) and not spending.row.support.rank_per_matrix:
        raise RecipeError(
            f"adapter.rank: given a table, but {spending.method} has one rank for all targets; "
            "give a whole number"
        )
    for key, table, known in (
        ("rank", spending.rank, names),
        ("alpha", spending.alpha, [*names, *(name for a in head for name in a.matrix.names)]),
    ):
        if isinstance(table, Mapping) and (unmatched := patterns.unmatched(table, known)):
            raise RecipeError(
                f'adapter.{key}: "{unmatched[0]}" matches none of the targets, such as '
                f"{names[0]}; a pattern consists of parts of such names"
            )


def _adapt(
    matrix: WeightMatrix, rank: int | Mapping[str, int], alpha: Alpha | None
) -> AdaptedMatrix:
    own_rank = patterns.lookup(rank, *matrix.names) if isinstance(rank, Mapping) else rank
    own_alpha = patterns.lookup(alpha, *matrix.names) if isinstance(alpha, Mapping) else alpha
    if own_alpha == "auto":
        own_alpha = None if own_rank is None else _AUTO_SCALING * own_rank
    if own_rank is None:
        raise _uncovered("rank", matrix)
    if own_alpha is None and alpha is not None:
        raise _uncovered("alpha", matrix)
    return AdaptedMatrix(matrix, own_rank, own_alpha)


def _uncovered(key: str, matrix: WeightMatrix) -> RecipeError:
    return RecipeError(
        f"adapter.{key}: no pattern covers {matrix.name}; start the table with "
        f'"*" = the {key} of all other matrices'
    )


def _check_ranks(choice: Choice, head: Sequence[AdaptedMatrix], method: Method) -> None:
    """Refuse ranks that do not fit their matrix, or one rank that does not fit all matrices."""
    dial = method.dial
    if dial is None or not dial.is_limit:
        return
    for adapted in choice.adapted:
        values = _values(dial, (adapted.matrix,), choice.options)
        if adapted.rank not in values:
            key = "adapter.head_rank" if adapted in head else f"adapter.{dial.key}"
            raise RecipeError(
                f"{key}: {adapted.matrix.name}: given {adapted.rank}; allowed: "
                f"{_shown(values)}, {dial.allowed}"
            )


def _values(
    dial: Dial, matrices: Sequence[WeightMatrix], options: Mapping[str, Any]
) -> Sequence[int]:
    """Return the dial's values for some matrices.

    Raises:
        RecipeError: there is none.
    """
    if values := dial.values(matrices, options):
        return values
    raise RecipeError(
        f"adapter.{dial.key}: no value fits {matrices[0].name}; allowed: {dial.allowed}; change "
        "adapter.targets or the method's other keys"
    )


def _shown(values: Sequence[int]) -> str:
    """Return the allowed values in a few words."""
    if isinstance(values, range) and values.step == 1:
        first = "up" if values[0] == 1 else f"{values[0]}"
        return f"{first} to {values[-1]}"
    ordered = sorted(values)
    if ordered == list(range(1, len(ordered) + 1)):
        return f"up to {ordered[-1]}"
    if len(ordered) <= _MOST_SHOWN:
        return ", ".join(map(str, ordered))
    return f"{', '.join(map(str, ordered[: _MOST_SHOWN - 1]))}, ... {ordered[-1]}"


def _largest(dial: Dial, values: Sequence[int], count: Callable[[int], int], *, budget: int) -> int:
    """Return the most costly of the dial's values whose plan fits."""
    fitting = bisect_right(values, budget, key=count)
    if fitting == 0:
        raise BudgetError(
            f'adapter.{dial.key}: "fill" has no room: the smallest adapters, with {dial.key} = '
            f"{values[0]}, make {count(values[0]):,} trainable parameters in all, but the budget "
            f"is {budget:,}"
        )
    return values[fitting - 1]
