"""Plan the spending: a rank and an alpha for every matrix, counted exactly, never over budget."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import peft
from peft import LoraConfig, PeftConfig, PeftType
from torch import nn

from pennyweight.budget import patterns
from pennyweight.budget.count import total_parameters, trainable_sizes
from pennyweight.budget.layout import Layout, WeightMatrix, layout_of
from pennyweight.budget.methods import METHODS, AdaptedMatrix, Bias, Choice, Head, trained_whole
from pennyweight.errors import BudgetError, RecipeError

__all__ = ["FULL", "Matrix", "Plan", "Spending", "freeze", "make_plan"]

# The method that adapts nothing and trains every weight.
FULL = "full"
# Stands in a suggestion for the rank that "fill" finds.
_FILLED = "<rank>"

Rank = int | Literal["fill"] | Mapping[str, int]
Alpha = float | Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Spending:
    """How a recipe wants the budget spent; the plain values of its `[adapter]` section."""

    method: str
    targets: tuple[str, ...]
    rank: Rank
    alpha: Alpha | None
    dropout: float
    bias: Bias
    head: Head
    head_rank: int
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Matrix:
    """One thing that is trained, and what it costs.

    Attributes:
        name: the module's name, or of a head or bias the parameter's.
        kind: the adapter method, "head" or "bias".
        rank: of an adapter; None for what is trained whole.
        alpha: of an adapter; the scaling is alpha / rank.
        parameters: number of trained elements.
    """

    name: str
    kind: str
    rank: int | None
    alpha: float | None
    parameters: int


@dataclass(frozen=True, slots=True)
class Plan:
    """Where every trainable parameter goes.

    Attributes:
        budget: the most that may be trained.
        matrices: everything that is trained.
        trainable_parameters: their sum, counted on the model itself.
        total_parameters: of base, adapters and PEFT's copy of the head, as PEFT prints them.
        peft_config: PEFT's config that builds exactly this; None where every weight is trained.
        output_layer: name of the layer that gives the logits.
        frozen: parts of names of the adapter's tensors that are not trained.
    """

    budget: int
    matrices: tuple[Matrix, ...]
    trainable_parameters: int
    total_parameters: int
    peft_config: PeftConfig | None
    output_layer: str
    frozen: tuple[str, ...] = ()

    @property
    def within_budget(self) -> bool:
        """Whether the plan may be trained."""
        return self.trainable_parameters <= self.budget

    def to_json(self, *, recipe: str, base: str) -> dict[str, Any]:
        """The plan as `pennyweight plan --json` prints it."""
        return {
            "recipe": recipe,
            "base": base,
            "budget": self.budget,
            "trainable_parameters": self.trainable_parameters,
            "total_parameters": self.total_parameters,
            "within_budget": self.within_budget,
            "matrices": [
                {
                    "name": matrix.name,
                    "kind": matrix.kind,
                    "rank": matrix.rank,
                    "alpha": matrix.alpha,
                    "parameters": matrix.parameters,
                }
                for matrix in self.matrices
            ],
        }


def make_plan(skeleton: nn.Module, spending: Spending, *, labels: int, budget: int) -> Plan:
    """Settle rank and alpha of every matrix and count what is trained.

    Args:
        skeleton: the base with its head on the meta device; it gets the adapters, so that the
            count is of the very model that training builds. It cannot be planned on again.
        spending: what the recipe asks for.
        labels: number of classes.
        budget: the most that may be trained.

    Raises:
        RecipeError: a pattern matches nothing, or a rank does not fit its matrix.
        BudgetError: the plan is over budget; the text names the excess and what would fit.
    """
    layout = layout_of(skeleton, labels=labels)
    if spending.method == FULL:
        return _plan_of_everything(layout, budget=budget)
    choice = _choose(layout, spending, budget=budget)
    counted = _count_by_formula(layout, choice, method=spending.method)
    if counted > budget:
        raise BudgetError(_over_budget(layout, spending, counted=counted, budget=budget))
    method = METHODS[spending.method]
    config = method.config(layout, choice)
    model = peft.get_peft_model(skeleton, _without_values(config))
    freeze(model, method.frozen)
    sizes = trainable_sizes(model)
    matrices = _matrices(layout, choice, sizes, method=spending.method)
    plan = Plan(
        budget=budget,
        matrices=matrices,
        trainable_parameters=sum(sizes.values()),
        total_parameters=total_parameters(model),
        peft_config=config,
        output_layer=layout.head_output.name,
        frozen=method.frozen,
    )
    listed = sum(matrix.parameters for matrix in matrices)
    if not listed == counted == plan.trainable_parameters:
        raise BudgetError(
            f"the count does not add up: {counted:,} by formula, {listed:,} listed, "
            f"{plan.trainable_parameters:,} in the model; this is a defect of Pennyweight"
        )
    return plan


def _plan_of_everything(layout: Layout, *, budget: int) -> Plan:
    """Full fine-tuning, which may be over budget: what it leaves is a teacher."""
    total = sum(layout.sizes.values())
    return Plan(
        budget=budget,
        matrices=tuple(Matrix(name, FULL, None, None, n) for name, n in layout.sizes.items()),
        trainable_parameters=total,
        total_parameters=total,
        peft_config=None,
        output_layer=layout.head_output.name,
    )


def freeze(model: nn.Module, parts: tuple[str, ...]) -> None:
    """Stop the training of an adapter's tensors whose names hold one of these parts."""
    for name, parameter in model.named_parameters():
        if any(part in name for part in parts):
            parameter.requires_grad_(False)


def _without_values(config: PeftConfig) -> PeftConfig:
    """The same shapes, without looking at the base's weights, which a skeleton does not have."""
    if not isinstance(config, LoraConfig) or config.peft_type == PeftType.ADALORA:
        return config
    return replace(config, init_lora_weights=True, eva_config=None)


def _count_by_formula(layout: Layout, choice: Choice, *, method: str) -> int:
    """What a choice trains, by arithmetic alone; `make_plan` holds it against the model."""
    whole = trained_whole(layout, choice.head)
    head = [size for module in whole for size in layout.elements_in(module).values()]
    formula = METHODS[method].parameters
    adapters = [formula(a.matrix, a.rank) for a in choice.adapted]
    return sum(head) + sum(adapters) + sum(_biases(layout, choice).values())


def _biases(layout: Layout, choice: Choice) -> dict[str, int]:
    """Sizes of the biases that are trained outside the parts of the head trained whole."""
    whole = tuple(f"{module}." for module in trained_whole(layout, choice.head))
    free = {
        name: size
        for name, size in layout.sizes.items()
        if "bias" in name and not name.startswith(whole)
    }
    if choice.bias == "all":
        return free
    targeted = {f"{a.matrix.name}.bias" for a in choice.adapted} if choice.bias != "none" else set()
    return {name: size for name, size in free.items() if name in targeted}


def _choose(layout: Layout, spending: Spending, *, budget: int) -> Choice:
    """Rank and alpha per matrix: patterns looked up, "fill" solved for the budget."""
    targets = _targets(layout, spending.targets)
    names = [matrix.name for matrix in targets]
    head = _head_adapter(layout, spending)
    for key, value, known in (
        ("rank", spending.rank, names),
        ("alpha", spending.alpha, [*names, *(a.matrix.name for a in head)]),
    ):
        if isinstance(value, Mapping):
            _check_patterns(f"adapter.{key}", value, known)

    def at_rank(rank: int | Mapping[str, int]) -> Choice:
        adapted = [_adapted(matrix, rank, spending.alpha) for matrix in targets]
        kept = [a for a in adapted if a.rank > 0]
        return Choice(
            (*kept, *head), spending.dropout, spending.bias, spending.head, spending.options
        )

    rank = spending.rank
    if rank == "fill":
        rank = _fill(
            lambda r: _count_by_formula(layout, at_rank(r), method=spending.method), budget
        )
        rank = min(rank, *(min(matrix.rows, matrix.columns) for matrix in targets))
    assert not isinstance(rank, str)  # noqa: S101 - narrows the type
    choice = at_rank(rank)
    if not choice.adapted:
        raise RecipeError("adapter.rank: every target is at rank 0, so there is nothing to adapt")
    for adapted in choice.adapted:
        largest = min(adapted.matrix.rows, adapted.matrix.columns)
        # VeRA's random matrices may have any rank.
        if adapted.rank > largest and spending.method != "vera":
            key = "adapter.head_rank" if adapted in head else "adapter.rank"
            raise RecipeError(
                f"{key}: {adapted.matrix.name}: given {adapted.rank}; allowed: up to "
                f"{largest}, the rank of the matrix itself"
            )
    return choice


def _adapted(
    matrix: WeightMatrix, rank: int | Mapping[str, int], alpha: Alpha | None
) -> AdaptedMatrix:
    found_rank = patterns.lookup(rank, matrix.name) if isinstance(rank, Mapping) else rank
    found_alpha = patterns.lookup(alpha, matrix.name) if isinstance(alpha, Mapping) else alpha
    for key, found in (("rank", found_rank), ("alpha", found_alpha)):
        if found is None and not (key == "alpha" and alpha is None):
            raise RecipeError(
                f"adapter.{key}: no pattern covers {matrix.name}; begin the table with "
                f'"*" = the {key} of all others'
            )
    assert found_rank is not None  # noqa: S101 - as above
    return AdaptedMatrix(matrix, found_rank, found_alpha)


def _head_adapter(layout: Layout, spending: Spending) -> tuple[AdaptedMatrix, ...]:
    if spending.head != "low-rank":
        return ()
    if METHODS[spending.method].is_uniform:
        raise RecipeError(
            f'adapter.head: given "low-rank", which {spending.method} cannot do; '
            'allowed with it: "full", "output-only", "frozen"'
        )
    dense = layout.head_dense
    if dense is None:
        raise RecipeError(
            'adapter.head: given "low-rank", but this base has no dense layer before its output '
            'layer; allowed here: "full", "output-only", "frozen"'
        )
    alpha = spending.alpha
    if isinstance(alpha, Mapping):
        found = patterns.lookup(alpha, dense.name)
        alpha = found if found is not None else float(spending.head_rank)
    return (AdaptedMatrix(dense, spending.head_rank, alpha),)


def _targets(layout: Layout, wanted: Sequence[str]) -> list[WeightMatrix]:
    for pattern in wanted:
        if not any(patterns.ends(pattern, matrix.name) for matrix in layout.encoder):
            raise RecipeError(
                f'adapter.targets: "{pattern}" matches no weight matrix of the encoder; '
                f"there are {', '.join(_kinds(layout.encoder))}"
            )
    return [m for m in layout.encoder if any(patterns.ends(p, m.name) for p in wanted)]


def _kinds(matrices: Iterable[WeightMatrix]) -> list[str]:
    """The ends of names that tell the kinds of matrices apart: query, output.dense, ..."""
    tails = {re.split(r"\.\d+\.", matrix.name)[-1] for matrix in matrices}
    return sorted(tails)


def _check_patterns(key: str, table: Mapping[str, object], names: Sequence[str]) -> None:
    for pattern in patterns.unused(table, names):
        raise RecipeError(
            f'{key}: "{pattern}" matches none of the targets, such as {names[0]}; '
            "patterns are parts of such names"
        )


def _fill(count: Any, budget: int) -> int:
    """The largest rank for all targets that fits: the count is linear in the rank."""
    per_rank = count(2) - count(1)
    fixed = count(1) - per_rank
    rank = (budget - fixed) // per_rank
    if rank < 1:
        raise BudgetError(
            f'adapter.rank: "fill" finds no room: without adapters {fixed:,} parameters are '
            f"trained and a rank costs {per_rank:,}, but the budget is {budget:,}; "
            'try --set adapter.head="low-rank" or fewer targets'
        )
    return int(rank)


def _is_adapter_of(matrix: str, parameter: str) -> bool:
    return any(f".{matrix}.{kind}_" in parameter for kind in ("lora", "vera", "hada"))


def _matrices(
    layout: Layout, choice: Choice, sizes: Mapping[str, int], *, method: str
) -> tuple[Matrix, ...]:
    """Everything that is trained, adapters first, each with its count from the model."""
    listed = [
        Matrix(
            a.matrix.name,
            method,
            a.rank,
            a.alpha,
            sum(n for name, n in sizes.items() if _is_adapter_of(a.matrix.name, name)),
        )
        for a in choice.adapted
    ]
    listed += [Matrix(name, "bias", None, None, n) for name, n in _biases(layout, choice).items()]
    for module in trained_whole(layout, choice.head):
        listed += [
            Matrix(name, "head", None, None, n) for name, n in layout.elements_in(module).items()
        ]
    return tuple(listed)


def _over_budget(layout: Layout, spending: Spending, *, counted: int, budget: int) -> str:
    excess = counted - budget
    fits = sorted(_cheaper(layout, spending, budget=budget), reverse=True)[:3]
    ways = "; ".join(f"{change} ({count:,})" for count, change in fits)
    how = f"cheapest changes that fit: {ways}" if ways else "no single change fits; combine several"
    return (
        f"over budget: {counted:,} trainable parameters, {excess:,} more than the {budget:,} "
        f"allowed; {how}"
    )


def _cheaper(layout: Layout, spending: Spending, *, budget: int) -> Iterable[tuple[int, str]]:
    """Single changes that bring the plan within the budget, with the count they give."""
    changes = [(f"--set adapter.rank={_FILLED}", replace(spending, rank="fill"))]
    heads: tuple[Head, ...] = ("low-rank", "output-only")
    for head in heads:
        changed = replace(spending, head=head)
        how = f"--set adapter.head={head}"
        changes.append((how, changed))
        changes.append((f"{how} --set adapter.rank={_FILLED}", replace(changed, rank="fill")))
    if spending.bias != "none":
        changes.append(("--set adapter.bias=none", replace(spending, bias="none")))
    if len(spending.targets) > 1:
        for left_out in spending.targets:
            rest = tuple(target for target in spending.targets if target != left_out)
            changes.append(
                (f"leave {left_out} out of adapter.targets", replace(spending, targets=rest))
            )
    for change, changed in changes:
        try:
            choice = _choose(layout, changed, budget=budget)
        except (RecipeError, BudgetError):
            continue
        count = _count_by_formula(layout, choice, method=spending.method)
        if count <= budget:
            yield count, change.replace(_FILLED, str(choice.adapted[0].rank))
