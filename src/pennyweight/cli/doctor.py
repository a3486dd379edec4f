"""The `pennyweight doctor` command."""

from __future__ import annotations

import typer

from pennyweight.cli.output import quiet_libraries

__all__ = ["command"]


def command() -> None:
    """Check what works on this machine, and how to enable the rest."""
    quiet_libraries()
    from pennyweight.machine import doctor

    for check in doctor():
        mark = "ok" if check.works else "--"
        fix = f"  ({check.fix})" if check.fix else ""
        typer.echo(f"{mark}  {check.name:<14} {check.detail}{fix}")
