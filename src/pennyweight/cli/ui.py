"""The `pennyweight ui` command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pennyweight.cli.output import quiet_libraries

__all__ = ["command"]


def command(
    runs: Annotated[
        Path, typer.Argument(metavar="RUNS", help="A directory that contains runs.")
    ] = Path("runs"),
    port: Annotated[
        int, typer.Option("--port", help="The port to listen on; 0 picks a free one.")
    ] = 8000,
) -> None:
    """Serve a local web page about a directory of runs.

    It shows a table of the runs, their curves, ranks and confusion matrices, and compares two runs.
    """
    quiet_libraries()
    from pennyweight.report.run_page import make_server

    server = make_server(runs, port=port)
    typer.echo(f"http://127.0.0.1:{server.server_port} shows {runs}; press Ctrl-C to stop")
    try:
        server.serve_forever()
    finally:
        server.server_close()
