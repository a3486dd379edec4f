"""`pennyweight ui`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pennyweight.cli.options import quiet_libraries

__all__ = ["command"]


def command(
    runs: Annotated[Path, typer.Argument(metavar="RUNS", help="A folder of runs.")] = Path("runs"),
    port: Annotated[int, typer.Option("--port", help="0 for any that is free.")] = 8000,
) -> None:
    """Serve a local page over a folder of runs: table, curves, heat maps, comparison."""
    quiet_libraries()
    from pennyweight.report.serve import make_server

    server = make_server(runs, port=port)
    typer.echo(f"http://127.0.0.1:{server.server_port} shows {runs}; stop it with Ctrl-C")
    try:
        server.serve_forever()
    finally:
        server.server_close()
