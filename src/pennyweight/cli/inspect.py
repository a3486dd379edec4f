"""The `pennyweight inspect` command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pennyweight.cli.options import Json
from pennyweight.cli.output import print_json, quiet_libraries

__all__ = ["command"]


def command(
    adapter: Annotated[
        Path, typer.Argument(metavar="ADAPTER_DIR", help="The directory of any PEFT adapter.")
    ],
    as_json: Json = False,
) -> None:
    """Count the parameters of any saved PEFT adapter."""
    quiet_libraries()
    from pennyweight.budget.inspect import inspect_adapter

    contents = inspect_adapter(adapter)
    if as_json:
        print_json(contents)
        return
    for matrix in contents["matrices"]:
        rank = "" if matrix["rank"] is None else f"  rank {matrix['rank']}, alpha {matrix['alpha']}"
        typer.echo(f"{matrix['parameters']:>10,}  {matrix['kind']:<15}  {matrix['name']}{rank}")
    typer.echo(
        f"{contents['trainable_parameters']:>10,}  trainable parameters in {contents['file']} "
        f"({contents['bytes']:,} bytes), {contents['method']} on {contents['base']}"
    )
    if repeated := contents["repeated_tensors_left_out"]:
        typer.echo(f"({repeated} tensors that the file repeats are not counted)")
