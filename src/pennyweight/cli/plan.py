"""The `pennyweight plan` command."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pennyweight.cli.flatten import flatten_options
from pennyweight.cli.options import Json, RecipeOptions
from pennyweight.cli.output import (
    log_to_stderr,
    preload,
    print_json,
    quiet_libraries,
)
from pennyweight.errors import RecipeError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pennyweight.budget.plan import Plan
    from pennyweight.defaults import Completed
    from pennyweight.recipe import Recipe

__all__ = ["PlanOutputs", "command"]

# What the default recipe is planned for without rows: the number of classes has to be known.
_SAMPLE = "sample:train"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanOutputs:
    """Outputs of a plan besides the table in the terminal."""

    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="FILE", help="Write a plan file that can be edited and trained with."
        ),
    ] = None
    figure: Annotated[
        Path | None,
        typer.Option(
            "--figure",
            metavar="FILE",
            help="Draw the ranks into an SVG, PNG or PDF file; needs pennyweight[report].",
        ),
    ] = None
    compare: Annotated[
        list[str] | None,
        typer.Option(
            "--compare",
            metavar="RECIPE_OR_PLAN",
            help="Another recipe, run or plan file to show beside this plan. Can be repeated.",
        ),
    ] = None


@dataclass(frozen=True, slots=True)
class _Planned:
    """A plan, and how its recipe was completed."""

    completed: Completed
    recipe: Recipe
    plan: Plan
    base: Any
    notes: tuple[str, ...]


@flatten_options
def command(
    recipe: RecipeOptions,
    outputs: PlanOutputs,
    explain: Annotated[
        bool,
        typer.Option("--explain", help="Print how each automatic setting was derived, and why."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Show where a recipe spends its budget, and the exact count.

    The count is exact. Weights are loaded only for an allocation that measures what ranks gain. A
    plan over budget is refused with exit code 2. Without a recipe and rows, the default recipe is
    planned for the bundled sample.
    """
    loaded = recipe.load(data=_SAMPLE)
    quiet_libraries()
    preload("peft", "pennyweight.defaults")
    planned = _plan(loaded)
    others = {name: _plan(_other(recipe, name)).plan for name in outputs.compare or ()}
    if explain and not as_json:
        for line in planned.completed.lines():
            typer.echo(line)
    if outputs.out is not None:
        _write(planned, outputs.out)
    plans = {name: plan.summary for name, plan in _titles(loaded.name, planned.plan, others)}
    if outputs.figure is not None:
        _draw(plans, outputs.figure)
    if as_json:
        _print_as_json(planned, others)
        return
    _show(planned, plans)
    for path in (outputs.out, outputs.figure):
        if path is not None:
            typer.echo(f"written to {path}")
    if not recipe.recipe and recipe.data is None:
        typer.echo("(planned for the 4 classes of the bundled sample; name your rows with --data)")


def _plan(recipe: Recipe) -> _Planned:
    from pennyweight.defaults import allocate, complete
    from pennyweight.settings import find_base, plan

    completed = complete(recipe)
    allocated = allocate(completed.recipe, log=log_to_stderr)
    base = find_base(allocated.recipe, config_only=True)
    planned = plan(allocated.recipe, base=base)
    return _Planned(completed, allocated.recipe, planned, base, allocated.notes)


def _other(options: RecipeOptions, name: str) -> Recipe:
    """Return the recipe to compare with: the same with another plan file, or another recipe.

    Rows, base and budget of the options apply to both.
    """
    from dataclasses import replace

    path = Path(name)
    if path.suffix == ".toml" and _is_plan_file(path):
        return replace(options, plan=path).load(data=_SAMPLE)
    return replace(options, recipe=name, plan=None, overrides=None).load()


def _is_plan_file(path: Path) -> bool:
    from pennyweight.documents import read_toml

    try:
        return "matrices" in read_toml(path)
    except (OSError, ValueError):
        # The recipe's own error says what is wrong.
        return False


def _titles(own: str, plan: Plan, others: dict[str, Plan]) -> Iterator[tuple[str, Plan]]:
    """Yield each plan with a short name: of a file its stem, of a run its last two parts."""
    short = [_short(name) for name in others]
    are_distinct = len({own, *short}) == len(short) + 1
    yield own if own not in others else f"{own} (as given)", plan
    yield from zip(short if are_distinct else others, others.values(), strict=True)


def _short(name: str) -> str:
    path = Path(name)
    return path.stem if path.suffix == ".toml" else "/".join(path.parts[-2:])


def _write(planned: _Planned, path: Path) -> None:
    from pennyweight.base import skeleton
    from pennyweight.budget.layout import layout_of
    from pennyweight.budget.spending import Spending, select_targets
    from pennyweight.recipe.plan_file import dump_plan_file, write_plan_file

    given: Any = planned.completed.recipe.adapter
    if not hasattr(given, "plan"):
        raise RecipeError(
            f"--out {path}: {given.method} has no rank of its own for each matrix, so there is no "
            "plan file; use lora, rslora, dora, rsdora or lora-fa"
        )
    layout = layout_of(skeleton(planned.base), labels=len(planned.recipe.data.label_names))
    adapted = {matrix.name for matrix in planned.plan.matrices}
    targets = select_targets(layout, Spending.of(given.model_dump()))
    write_plan_file(
        path,
        dump_plan_file(
            planned.plan.summary,
            planned.recipe.adapter,
            head_dense=None if layout.head_dense is None else layout.head_dense.name,
            left_out=[matrix.name for matrix in targets if matrix.name not in adapted],
            origin=f"{planned.recipe.name} on {planned.base.name}",
        ),
    )


def _draw(plans: dict[str, Any], path: Path) -> None:
    from pennyweight.errors import ReportError

    try:
        from pennyweight.report.plan_figure import write_plan_figure
    except ImportError:
        raise ReportError(
            "--figure: needs matplotlib; install it with: pip install 'pennyweight[report]'"
        ) from None
    write_plan_figure(plans, path)


def _print_as_json(planned: _Planned, others: dict[str, Plan]) -> None:
    derived = [asdict(reason) for reason in planned.completed.reasons]
    compared = {name: asdict(plan.summary) for name, plan in others.items()}
    print_json(
        {
            "recipe": planned.recipe.name,
            "base": planned.base.name,
            "derived": derived,
            **asdict(planned.plan.summary),
            **({"compared": compared} if compared else {}),
        }
    )


def _show(planned: _Planned, plans: dict[str, Any]) -> None:
    from pennyweight.cli.plan_tables import show_comparison, show_plan, show_ranks

    for line in planned.notes:
        typer.echo(line)
    if len(plans) == 1:
        show_plan(planned.plan.summary)
    else:
        show_comparison(plans)
        for name, summary in plans.items():
            if summary.ranks().roles:
                typer.echo(f"\n{name}:")
                show_ranks(summary.ranks())
    if planned.base.origin == "known config":
        typer.echo(f"({planned.base.name}: planned with the config that ships with Pennyweight)")
