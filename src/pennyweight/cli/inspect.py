"""`pennyweight inspect`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pennyweight.cli.options import Json, print_json, quiet_libraries

__all__ = ["command"]


def command(
    adapter: Annotated[Path, typer.Argument(metavar="ADAPTER_DIR", help="Any PEFT adapter.")],
    as_json: Json = False,
) -> None:
    """Count what any PEFT adapter directory holds, from the saved file itself."""
    quiet_libraries()
    from pennyweight.budget.inspect import inspect_adapter

    found = inspect_adapter(adapter)
    if as_json:
        print_json(found)
        return
    for matrix in found["matrices"]:
        rank = "" if matrix["rank"] is None else f"  rank {matrix['rank']}, alpha {matrix['alpha']}"
        typer.echo(f"{matrix['parameters']:>10,}  {matrix['kind']:<13}  {matrix['name']}{rank}")
    typer.echo(
        f"{found['trainable_parameters']:>10,}  trainable parameters in {found['file']} "
        f"({found['bytes']:,} bytes), {found['method']} on {found['base']}"
    )
    if found["repeated_tensors_left_out"]:
        typer.echo(
            f"({found['repeated_tensors_left_out']} repeated tensors in the file not counted)"
        )
