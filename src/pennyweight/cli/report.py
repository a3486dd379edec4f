"""The `pennyweight report` command."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from pennyweight.cli.flatten import flatten_options
from pennyweight.cli.options import OutDirectory
from pennyweight.cli.output import quiet_libraries

__all__ = ["ExportArguments", "PaperArguments", "PartName", "command"]


class PartName(StrEnum):
    """The parts of a report."""

    figures = "figures"
    paper = "paper"
    notebook = "notebook"


@dataclass(frozen=True, slots=True)
class PaperArguments:
    """The author's contributions to the paper."""

    title: Annotated[
        str | None, typer.Option("--title", metavar="TEXT", help="The title of the paper.")
    ] = None
    author: Annotated[
        list[str] | None,
        typer.Option("--author", metavar="NAME", help="An author of the paper. Can be repeated."),
    ] = None
    link: Annotated[
        str | None, typer.Option("--link", metavar="URL", help="The URL of your repository.")
    ] = None
    prose: Annotated[
        Path | None,
        typer.Option(
            "--prose",
            metavar="FILE",
            help="Your own text in Markdown; its headings determine the sections of the paper.",
        ),
    ] = None
    aaai_style: Annotated[
        Path | None,
        typer.Option(
            "--aaai-style",
            metavar="FILE",
            help="Your copy of aaai24.sty, to use in the LaTeX version.",
        ),
    ] = None
    without: Annotated[
        list[str] | None,
        typer.Option(
            "--without",
            metavar="FIGURE",
            help="A figure to leave out of the paper. Can be repeated.",
        ),
    ] = None


@dataclass(frozen=True, slots=True)
class ExportArguments:
    """Destinations of curves and figures."""

    tensorboard: Annotated[
        Path | None,
        typer.Option(
            "--tensorboard", metavar="DIR", help="Also export TensorBoard logs to this directory."
        ),
    ] = None
    mlflow: Annotated[
        Path | None,
        typer.Option("--mlflow", metavar="DIR", help="Also export to MLflow, in this directory."),
    ] = None


@flatten_options
def command(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN", help="Finished runs, or the directory of a study."),
    ],
    out: OutDirectory,
    paper: PaperArguments,
    export: ExportArguments,
    only: Annotated[
        list[PartName] | None,
        typer.Option(
            "--only",
            metavar="PART",
            help="Write only this part: figures, paper or notebook. Can be repeated.",
        ),
    ] = None,
) -> None:
    """Write figures, a paper and a notebook about finished runs.

    The paper has at most four pages, and the notebook is executed.
    """
    quiet_libraries()
    from pennyweight.report.write import PARTS, PaperOptions, write_report

    options = PaperOptions(
        title=paper.title,
        authors=tuple(paper.author or ()),
        link=paper.link,
        prose=paper.prose,
        style=paper.aaai_style,
        without=tuple(paper.without or ()),
    )
    parts = [part.value for part in only] if only else PARTS
    write_report(runs, out=out, paper=options, parts=parts, log=typer.echo)
    if export.tensorboard is not None:
        from pennyweight.report.export import to_tensorboard

        to_tensorboard(runs, export.tensorboard)
        typer.echo(f"TensorBoard logs in {export.tensorboard}")
    if export.mlflow is not None:
        from pennyweight.report.export import to_mlflow

        to_mlflow(runs, export.mlflow)
        typer.echo(f"MLflow runs in {export.mlflow}")
