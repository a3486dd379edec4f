"""The `pennyweight inspect` command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pennyweight.cli.options import Json
from pennyweight.cli.output import print_json, quiet_libraries
from pennyweight.documents import printable

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
        _echo(f"{matrix['parameters']:>10,}  {matrix['kind']:<15}  {matrix['name']}{rank}")
    _echo(
        f"{contents['trainable_parameters']:>10,}  trainable parameters in {contents['file']} "
        f"({contents['bytes']:,} bytes), {contents['method']} on {contents['base']}"
    )
    if contents["left_out"]:
        others = contents["elements_in_file"] - contents["trainable_parameters"]
        typer.echo(f"{others:>10,}  elements in the file that are not counted:")
    for one in contents["left_out"]:
        _echo(f"{one['parameters']:>10,}  {one['name']}: {one['reason']}")


def _echo(line: str) -> None:
    # Names and methods come from a foreign file.
    typer.echo(printable(line))
