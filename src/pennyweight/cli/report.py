"""`pennyweight report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pennyweight.cli.options import quiet_libraries

__all__ = ["command"]


def command(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="Finished runs, or a study's directory.")
    ],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where the files go.")],
    title: Annotated[str | None, typer.Option("--title", help="Of the paper.")] = None,
    author: Annotated[
        list[str] | None, typer.Option("--author", help="Of the paper; may be repeated.")
    ] = None,
    link: Annotated[str | None, typer.Option("--link", help="To your repository.")] = None,
    prose: Annotated[
        Path | None,
        typer.Option("--prose", metavar="FILE", help="Your text, in Markdown, by section."),
    ] = None,
    aaai_style: Annotated[
        Path | None, typer.Option("--aaai-style", metavar="FILE", help="Your copy of aaai24.sty.")
    ] = None,
    without: Annotated[
        list[str] | None, typer.Option("--without", help="A figure to leave out of the paper.")
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option("--only", help="figures, paper or notebook.")
    ] = None,
    tensorboard: Annotated[
        Path | None, typer.Option("--tensorboard", metavar="DIR", help="Export there too.")
    ] = None,
    mlflow: Annotated[
        Path | None, typer.Option("--mlflow", metavar="DIR", help="Export there too.")
    ] = None,
) -> None:
    """Write figures, a paper of at most 4 pages, and an executed notebook from runs' records."""
    quiet_libraries()
    from pennyweight.report.write import PARTS, Paper, write_report

    unknown = sorted(set(only or ()) - set(PARTS))
    if unknown:
        raise typer.BadParameter(
            f"{unknown[0]}: allowed are {', '.join(PARTS)}", param_hint="--only"
        )
    paper = Paper(title, tuple(author or ()), link, prose, aaai_style, tuple(without or ()))
    write_report(runs, out=out, paper=paper, parts=only or PARTS, say=typer.echo)
    if tensorboard is not None or mlflow is not None:
        from pennyweight.report.export import to_mlflow, to_tensorboard

        if tensorboard is not None:
            to_tensorboard(runs, tensorboard)
            typer.echo(f"TensorBoard logs in {tensorboard}")
        if mlflow is not None:
            to_mlflow(runs, mlflow)
            typer.echo(f"MLflow runs in {mlflow}")
