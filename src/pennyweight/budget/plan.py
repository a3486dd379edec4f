"""The plan: a rank and an alpha for every matrix, counted exactly and never over budget."""

from __future__ import annotations

import itertools
import shlex
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pennyweight.budget.choose import choose, smallest_size
from pennyweight.budget.count import total_parameters, trainable_sizes
from pennyweight.budget.facts import ArtifactFacts
from pennyweight.budget.formula import count_by_formula, trained_biases
from pennyweight.budget.layout import Layout, layout_of
from pennyweight.budget.methods import Choice, Head, Method
from pennyweight.budget.methods.method import trained_head_modules
from pennyweight.budget.peft_warnings import ignore_expected_warnings
from pennyweight.budget.spending import Spending, select_targets
from pennyweight.budget.summary import Matrix, PlanSummary
from pennyweight.data.label import Task
from pennyweight.errors import BudgetError, RecipeError

if TYPE_CHECKING:
    from peft import PeftConfig
    from torch import nn

__all__ = ["Matrix", "Plan", "Spending", "freeze", "make_plan"]

# Stands in a suggestion for the rank that "fill" gives.
_FILLED = "<rank>"


@dataclass(frozen=True, slots=True)
class Plan:
    """The allocation of all trainable parameters.

    Attributes:
        method: the row of the adapter method.
        summary: the counts, and every trained part.
        peft_config: PEFT's config that builds exactly these adapters; None if every weight is
            trained.
        output_layer: the name of the layer that produces the logits.
        initialization: the adapters' initialization, such as "eva"; None if the method has one
            only.
    """

    method: Method
    summary: PlanSummary
    peft_config: PeftConfig | None
    output_layer: str
    initialization: str | None = None

    @property
    def budget(self) -> int:
        """The largest number of trainable parameters allowed."""
        return self.summary.budget

    @property
    def trainable_parameters(self) -> int:
        """Number of trainable parameters."""
        return self.summary.trainable_parameters

    @property
    def total_parameters(self) -> int:
        """Parameters of base, adapters and PEFT's copy of the head together."""
        return self.summary.total_parameters

    @property
    def within_budget(self) -> bool:
        """Whether the plan keeps to the budget."""
        return self.summary.within_budget

    @property
    def matrices(self) -> tuple[Matrix, ...]:
        """Every trained part, adapters first."""
        return self.summary.matrices

    def artifact_facts(
        self, labels: Sequence[str], *, task: Task = "single-label"
    ) -> ArtifactFacts:
        """Return the facts that are saved beside the trained weights."""
        return ArtifactFacts(tuple(labels), self.method.name, self.method.frozen, task)


def make_plan(skeleton: nn.Module, spending: Spending, *, labels: int, budget: int) -> Plan:
    """Settle rank and alpha of every matrix and count the trainable parameters.

    Args:
        skeleton: the base with its head on the meta device. It gets the adapters, so that the
            count is of the very model that training builds, and cannot be planned on again.
        spending: the values of the recipe's `[adapter]` section.
        labels: number of classes.
        budget: the largest number of trainable parameters allowed.

    Raises:
        RecipeError: a pattern matches nothing, or a rank does not fit its matrix.
        BudgetError: the plan is over budget; the message names the excess and changes that fit.
    """
    import peft

    layout, method = layout_of(skeleton, labels=labels), spending.row
    if method.config is None:
        return _plan_every_weight(layout, method, budget=budget)
    try:
        choice = choose(layout, spending, budget=budget)
    except BudgetError as error:
        raise BudgetError(f"{error}; {_advice(layout, spending, budget=budget)}") from None
    by_formula = count_by_formula(layout, choice, method=method)
    if by_formula > budget:
        raise BudgetError(_over_budget(layout, spending, count=by_formula, budget=budget))
    config = method.config(layout, choice)
    with ignore_expected_warnings():
        model = peft.get_peft_model(skeleton, method.shapes_only(config))
    freeze(model, method.frozen)
    sizes = trainable_sizes(model)
    matrices = _trained_parts(layout, choice, sizes, method=method)
    listed, in_model = sum(matrix.parameters for matrix in matrices), sum(sizes.values())
    if not listed == by_formula == in_model:
        raise BudgetError(
            f"the counts of trainable parameters disagree: {by_formula:,} by formula, {listed:,} "
            f"listed, {in_model:,} in the model; please report this defect of Pennyweight"
        )
    return Plan(
        method=method,
        summary=PlanSummary(budget, in_model, total_parameters(model), True, matrices),
        peft_config=config,
        output_layer=layout.head_output.name,
        initialization=spending.options.get("initialization"),
    )


def _plan_every_weight(layout: Layout, method: Method, *, budget: int) -> Plan:
    total = sum(layout.sizes.values())
    matrices = tuple(
        Matrix.trained_in_full(name, kind=method.name, parameters=size)
        for name, size in layout.sizes.items()
    )
    return Plan(
        method=method,
        summary=PlanSummary(budget, total, total, total <= budget, matrices),
        peft_config=None,
        output_layer=layout.head_output.name,
    )


def freeze(model: nn.Module, parts: Sequence[str]) -> None:
    """Freeze the parameters whose names contain one of these parts."""
    for name, parameter in model.named_parameters():
        if any(part in name for part in parts):
            parameter.requires_grad_(False)


def _trained_parts(
    layout: Layout, choice: Choice, sizes: Mapping[str, int], *, method: Method
) -> tuple[Matrix, ...]:
    """Return every trained part with its count in the model: adapters, biases, head.

    What the adapters of all matrices share comes after the adapters.
    """
    adapters = [
        Matrix(
            name=matrix.name,
            kind=method.name,
            rank=adapted.rank if method.dial else None,
            alpha=adapted.alpha,
            parameters=sum(n for name, n in sizes.items() if method.owns(name, matrix=matrix.name)),
            layer=matrix.layer,
            role=matrix.role,
        )
        for adapted in choice.adapted
        for matrix in (adapted.matrix,)
    ]
    if shared := sum(size for name, size in sizes.items() if method.is_shared(name)):
        adapters.append(Matrix.shared(kind=method.name, parameters=shared))
    biases = [
        Matrix.trained_in_full(name, kind="bias", parameters=size)
        for name, size in trained_biases(layout, choice).items()
    ]
    head = [
        Matrix.trained_in_full(name, kind="head", parameters=size)
        for module in trained_head_modules(layout, choice.head)
        for name, size in layout.elements_in(module).items()
    ]
    return (*adapters, *biases, *head)


def _over_budget(layout: Layout, spending: Spending, *, count: int, budget: int) -> str:
    """Return the message for a plan over budget, with the mildest changes that fit."""
    return (
        f"over budget: {count:,} trainable parameters, {count - budget:,} more than the "
        f"{budget:,} allowed; {_advice(layout, spending, budget=budget)}"
    )


def _advice(layout: Layout, spending: Spending, *, budget: int) -> str:
    """Return the mildest changes that bring a plan within the budget.

    If there are none, the cheapest plan that trains the output layer is named, with its count.
    """
    fitting = sorted(_cheaper(layout, spending, budget=budget), reverse=True)[:3]
    if fitting:
        changes = "; ".join(f"{change} ({count:,})" for count, change in fitting)
        return f"smallest changes that fit: {changes}"
    count, change = min(_cheapest(layout, spending, budget=budget))
    if count <= budget:
        return f"no single change fits; these together do: {change} ({count:,})"
    needed = _smallest_budget(layout, spending, most=count)
    if needed < count:
        return f"raise budget.trainable_parameters to at least {needed:,}"
    return (
        f"no change of [adapter] that trains the output layer fits: the smallest, {change}, trains "
        f"{count:,}; raise budget.trainable_parameters to at least {count:,}"
    )


def _smallest_budget(layout: Layout, spending: Spending, *, most: int) -> int:
    """Return the smallest budget that a plan needs as it is, or `most` if that is not enough."""

    def fits(budget: int) -> bool:
        try:
            choice = choose(layout, spending, budget=budget)
        except BudgetError:
            return False
        return count_by_formula(layout, choice, method=spending.row) <= budget

    return bisect_left(range(most), True, key=fits)


def _cheapest(layout: Layout, spending: Spending, *, budget: int) -> Iterable[tuple[int, str]]:
    """Yield plans with the smallest adapters on one of the targets, with their counts."""
    heads: tuple[Head, ...] = ("full", "low-rank", "output-only")
    dial = spending.row.dial
    for head, target in itertools.product(heads, spending.targets):
        changed = replace(spending, head=head, targets=(target,), bias="none", head_rank=1)
        if isinstance(spending.alpha, Mapping):
            changed = replace(changed, alpha=1.0)
        changed_layout = _layout_for(layout, changed)
        try:
            changed = replace(changed, rank=smallest_size(layout, changed))
            choice = choose(changed_layout, changed, budget=budget)
        except RecipeError:
            continue
        options = [
            f"adapter.head={head}",
            *(["adapter.head_rank=1"] if head == "low-rank" else []),
            *([f"adapter.{dial.key}={changed.rank}"] if dial else []),
            *([f'adapter.targets=["{target}"]'] if len(spending.targets) > 1 else []),
            *(["adapter.bias=none"] if spending.bias != "none" else []),
        ]
        change = " ".join(f"--set {shlex.quote(option)}" for option in options)
        yield count_by_formula(changed_layout, choice, method=spending.row), change


def _layout_for(layout: Layout, spending: Spending) -> Layout:
    """Return the layout of the base that these values would build."""
    return layout.with_head_rank(spending.head_rank if spending.head == "low-rank" else None)


def _cheaper(layout: Layout, spending: Spending, *, budget: int) -> Iterable[tuple[int, str]]:
    """Yield the single changes that bring the plan within the budget, with their counts."""
    heads: tuple[Head, ...] = ("low-rank", "output-only")
    changes = [(f"--set adapter.head={head}", replace(spending, head=head)) for head in heads]
    if dial := spending.row.dial:
        fill = f"--set adapter.{dial.key}={_FILLED}"
        filled = [(f"{change} {fill}", replace(c, rank="fill")) for change, c in changes]
        changes += [(fill, replace(spending, rank="fill")), *filled]
    if spending.bias != "none":
        changes.append(("--set adapter.bias=none", replace(spending, bias="none")))
    if len(spending.targets) > 1:
        for omitted in spending.targets:
            targets = tuple(target for target in spending.targets if target != omitted)
            changes.append(
                (f"leave {omitted} out of adapter.targets", replace(spending, targets=targets))
            )
    for change, changed in changes:
        changed_layout = _layout_for(layout, changed)
        try:
            choice = choose(changed_layout, changed, budget=budget)
        except (RecipeError, BudgetError):
            continue
        count = count_by_formula(changed_layout, choice, method=spending.row)
        rank = str(choice.adapted[0].rank)
        if changed.rank == "fill" and _leaves_out(changed_layout, changed, choice):
            rank = "fill"
        if count <= budget:
            yield count, change.replace(_FILLED, rank)


def _leaves_out(layout: Layout, spending: Spending, choice: Choice) -> bool:
    """Return whether a choice adapts some of the targets only."""
    adapted = {each.matrix.name for each in choice.adapted}
    return any(matrix.name not in adapted for matrix in select_targets(layout, spending))
