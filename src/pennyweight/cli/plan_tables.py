"""Plans in the terminal: the trained parameters by role, and the ranks as a heat map."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.color import Color
from rich.console import Console
from rich.style import Style
from rich.table import Table
from rich.text import Text

from pennyweight.cli.tables import print_line, show_table

if TYPE_CHECKING:
    from pennyweight.budget.summary import Matrix, PlanSummary, RankTable

__all__ = ["show_comparison", "show_plan", "show_ranks"]

# From the lightest to the darkest cell; ColorBrewer's Blues, which prints well without colour too.
_SHADES = ("#deebf7", "#c6dbef", "#9ecae1", "#6baed6", "#4292c6", "#2171b5", "#08519c")
# From this shade on, text is white.
_DARK = 4


def show_plan(plan: PlanSummary) -> None:
    """Print the trained parameters by role, the ranks as a heat map, and the total."""
    groups: dict[tuple[str, str], list[Matrix]] = {}
    order = {role: number for number, role in enumerate(plan.ranks().roles)}
    for matrix in sorted(plan.matrices, key=lambda each: order.get(each.role, len(order))):
        groups.setdefault((matrix.role, matrix.kind), []).append(matrix)
    show_table(
        ("matrices", "kind", *_sizes(plan), "alpha", "number", "parameters"),
        [
            (
                role,
                kind,
                _range([matrix.rank for matrix in matrices]),
                _range([matrix.alpha for matrix in matrices]),
                str(len(matrices)),
                f"{sum(matrix.parameters for matrix in matrices):,}",
            )
            for (role, kind), matrices in groups.items()
        ],
    )
    ranks = plan.ranks()
    if not ranks.is_uniform:
        print_line(f"\n{_sizes(plan)[0]} by layer:")
        show_ranks(ranks)
        print_line("")
    if lowest := _lowest_layer(plan):
        print_line(f"no adapters in the lowest {lowest} layer{'' if lowest == 1 else 's'}")
    share = plan.trainable_parameters / plan.budget
    print_line(
        f"trainable {plan.trainable_parameters:,} of {plan.budget:,} allowed ({share:.1%}); "
        f"total {plan.total_parameters:,}"
    )
    if not plan.within_budget:
        print_line("over budget: it can serve as a teacher or a baseline, but cannot be submitted")


def _lowest_layer(plan: PlanSummary) -> int:
    """Return the number of the lowest layer with an adapter; 0 with one outside the layers."""
    adapters = [matrix for matrix in plan.matrices if matrix.kind not in ("head", "bias")]
    return min((matrix.layer or 0 for matrix in adapters), default=0)


def _sizes(*plans: PlanSummary) -> list[str]:
    """Return the keys that set the sizes of the adapters of these plans; one of a single plan."""
    from pennyweight.budget.methods import METHODS

    kinds = {matrix.kind for plan in plans for matrix in plan.matrices}
    keys = [row.dial.key for kind, row in METHODS.items() if kind in kinds and row.dial]
    return list(dict.fromkeys(keys)) or ["rank"]


def _range(values: Sequence[float | None]) -> str:
    """Return the only value, or the smallest and the largest; nothing where there is none."""
    numbers = sorted({value for value in values if value is not None})
    if not numbers:
        return ""
    low, high = f"{numbers[0]:g}", f"{numbers[-1]:g}"
    return low if low == high else f"{low} to {high}"


def show_ranks(ranks: RankTable) -> None:
    """Print the ranks as a heat map: a row for each role and a column for each layer.

    Where the terminal has no colours, the numbers alone are printed. A dot is a matrix without an
    adapter.
    """
    digits = max(len(str(int(ranks.ranks.max()))), len(str(len(ranks.layers) - 1)))
    width = Console().width
    names = max(cell_len(role) for role in ranks.roles)
    # As many layers side by side as fit; the others follow below.
    number = max(1, (width - names - 2) // (digits + 2))
    for start in range(0, len(ranks.layers), number):
        _print_block(ranks, range(start, min(start + number, len(ranks.layers))), digits)


def _print_block(ranks: RankTable, layers: range, digits: int) -> None:
    table = Table(box=None, show_header=True, padding=0, pad_edge=False)
    table.add_column("layer", no_wrap=True)
    for layer in layers:
        table.add_column(f" {layer:>{digits}} ", justify="right", no_wrap=True)
    largest = max(1, int(ranks.ranks.max()))
    for role, row in zip(ranks.roles, ranks.ranks.tolist(), strict=True):
        table.add_row(f"{role}  ", *(_cell(row[layer], largest, digits) for layer in layers))
    print_line(table)


def _cell(rank: int, largest: int, digits: int) -> Text:
    if not rank:
        return Text(f" {'.':>{digits}} ", style=Style(dim=True))
    shade = min(len(_SHADES) - 1, (rank - 1) * len(_SHADES) // largest)
    colours = Style(
        color=Color.parse("white" if shade >= _DARK else "black"),
        bgcolor=Color.parse(_SHADES[shade]),
    )
    return Text(f" {rank:>{digits}} ", style=colours)


def show_comparison(plans: Mapping[str, PlanSummary]) -> None:
    """Print plans side by side: mean rank and parameters of each role, and the totals."""
    roles = dict.fromkeys(
        (matrix.role, matrix.kind) for plan in plans.values() for matrix in plan.matrices
    )
    lines = [
        (role, kind, *(_mean_rank(plan, role, kind) for plan in plans.values()))
        for role, kind in roles
    ]
    totals = [f"{plan.trainable_parameters:,}" for plan in plans.values()]
    budgets = [f"{plan.budget:,}" for plan in plans.values()]
    show_table(
        (f"mean {' or '.join(_sizes(*plans.values()))}, parameters", "kind", *plans),
        [*lines, ("trainable", "", *totals), ("allowed", "", *budgets)],
    )


def _mean_rank(plan: PlanSummary, role: str, kind: str) -> str:
    matrices = [m for m in plan.matrices if (m.role, m.kind) == (role, kind)]
    if not matrices:
        return "none"
    parameters = f"{sum(matrix.parameters for matrix in matrices):,}"
    ranks = [matrix.rank for matrix in matrices if matrix.rank is not None]
    layers = max(1, len(plan.ranks().layers)) if matrices[0].layer is not None else 1
    return f"{sum(ranks) / layers:.1f}, {parameters}" if ranks else parameters
