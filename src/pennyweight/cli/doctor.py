"""`pennyweight doctor`."""

from __future__ import annotations

import typer

from pennyweight.cli.options import quiet_libraries

__all__ = ["command"]


def command() -> None:
    """Say what works on this machine, and how to get the rest."""
    quiet_libraries()
    from pennyweight.runs.doctor import doctor

    for check in doctor():
        mark = "ok" if check.works else "--"
        how = f"  ({check.how})" if check.how else ""
        typer.echo(f"{mark}  {check.name:<14} {check.found}{how}")
