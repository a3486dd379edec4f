"""The `pennyweight methods` command."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Annotated

import typer
from rich.console import Console

from pennyweight.cli.options import Json
from pennyweight.cli.output import print_json, quiet_libraries

__all__ = ["MethodKind", "command", "list_methods"]

# In a narrower terminal, the other columns need the room.
_WIDTH_WITH_PAPERS = 100
_IDENTIFIER = re.compile(r"arXiv:[\d.]+|openreview\.net\S+")


class MethodKind(StrEnum):
    """The tables of methods that a recipe or a command can name."""

    adapters = "adapters"
    allocation = "allocation"
    optimizers = "optimizers"
    cleaning = "cleaning"
    filters = "filters"
    augmentations = "augmentations"
    formats = "formats"
    combinations = "combinations"


def command(
    kind: Annotated[
        MethodKind, typer.Argument(help="The kind of methods to list.")
    ] = MethodKind.adapters,
    as_json: Json = False,
) -> None:
    """List the adapter methods, or the methods of another kind."""
    quiet_libraries()
    from pennyweight.cli.tables import show_table

    rows = list_methods(kind)
    if as_json:
        print_json(rows)
        return
    header = [key for key in rows[0] if key != "paper" or Console().width >= _WIDTH_WITH_PAPERS]
    show_table(
        ["parameters per matrix" if key == "parameters" else key for key in header],
        [[_short(row[key]) if key == "paper" else row[key] for key in header] for row in rows],
    )
    if kind is MethodKind.adapters:
        typer.echo(
            'size: the key of [adapter] that sets the size of an adapter, and may be "fill"; '
            "papers: see --json"
        )


def _short(paper: str) -> str:
    """Return the identifier of a paper, where the full entry has one; --json prints the entry."""
    identifier = _IDENTIFIER.search(paper)
    return identifier[0] if identifier else paper


def list_methods(kind: MethodKind) -> list[dict[str, str]]:
    """Return one row for each method of a kind; all rows have the same keys."""
    # Only the table that is listed is imported.
    match kind:
        case MethodKind.adapters:
            return _adapters()
        case MethodKind.allocation:
            return _strategies()
        case MethodKind.optimizers:
            from pennyweight.engine.train.optimizer import OPTIMIZERS

            return [
                {"optimizer": row.name, "what": row.summary, "paper": row.paper}
                for row in OPTIMIZERS.values()
            ]
        case MethodKind.cleaning:
            from pennyweight.data.clean import STEPS

            return [{"step": step.name, "what": step.summary} for step in STEPS.values()]
        case MethodKind.filters:
            from pennyweight.lab.filters import FILTERS

            return [
                {"filter": row.name, "removes": row.summary, "paper": row.paper}
                for row in FILTERS.values()
            ]
        case MethodKind.augmentations:
            from pennyweight.lab.words import AUGMENTATIONS

            return [
                {"augmentation": row.name, "what": row.summary} for row in AUGMENTATIONS.values()
            ]
        case MethodKind.formats:
            from pennyweight.data.read import READERS

            return [
                {
                    "format": reader.name,
                    "what": reader.summary,
                    "endings": ", ".join(reader.endings),
                }
                for reader in READERS.values()
            ]
        case MethodKind.combinations:
            from pennyweight.model.combinations import COMBINATIONS

            return [
                {"combination": row.name, "what": row.summary, "paper": row.paper}
                for row in COMBINATIONS.values()
            ]


def _adapters() -> list[dict[str, str]]:
    from pennyweight.budget.methods import METHODS

    return [
        {
            "method": method.name,
            "what": method.summary,
            "size": method.dial.key if method.dial else "fixed",
            "parameters": method.formula,
            "paper": method.paper,
        }
        for method in METHODS.values()
    ]


def _strategies() -> list[dict[str, str]]:
    from pennyweight.budget.allocate.strategies import STRATEGIES

    return [
        {"strategy": row.name, "what": row.summary, "needs": row.needs, "paper": row.paper}
        for row in STRATEGIES.values()
    ]
