"""The `pennyweight compare` command."""

from __future__ import annotations

import io
from contextlib import redirect_stdout
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pennyweight.cli.flatten import flatten_options
from pennyweight.cli.options import Json
from pennyweight.cli.output import quiet_libraries
from pennyweight.errors import RunError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pennyweight.search.compare import RunComparison

__all__ = ["ComparisonFormat", "ComparisonOutput", "command"]


class ComparisonFormat(StrEnum):
    """How a comparison is written."""

    table = "table"
    markdown = "markdown"
    json = "json"
    latex = "latex"


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparisonOutput:
    """How and where a comparison is written."""

    output_format: Annotated[
        ComparisonFormat, typer.Option("--format", help="How the comparison is written.")
    ] = ComparisonFormat.table
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="Write to this file instead of the terminal."),
    ] = None
    as_json: Json = False

    @property
    def chosen_format(self) -> ComparisonFormat:
        """The format, of which --json is short for one.

        Raises:
            RunError: --json and another format were given.
        """
        if not self.as_json:
            return self.output_format
        if self.output_format not in {ComparisonFormat.table, ComparisonFormat.json}:
            raise RunError(f"--json and --format {self.output_format}: give either")
        return ComparisonFormat.json


@flatten_options
def command(
    output: ComparisonOutput,
    runs: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[RUN]...", help="Finished runs, or directories of studies.", show_default=False
        ),
    ] = None,
    groups: Annotated[
        list[str] | None,
        typer.Option(
            "--group",
            metavar="NAME=RUN,RUN",
            help="Runs that form one system, under this name. Can be repeated.",
        ),
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option(
            "--reference",
            metavar="NAME",
            help="The system that the others are compared with; if not given, the first one.",
        ),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            "--only",
            metavar="SET",
            help="Compare on this labelled set, such as test. Can be repeated.",
        ),
    ] = None,
) -> None:
    """Compare finished runs on the same rows.

    Runs that differ only in the seed form one system. Each system is compared with the first one:
    the difference with its 95% interval, a p-value corrected for the number of comparisons, and
    the smallest difference that could have been detected. Runs on other rows are refused.
    """
    output_format = output.chosen_format
    quiet_libraries()
    from pennyweight.search.compare import compare_runs

    comparison = compare_runs(
        runs or [], groups=_parse_groups(groups or ()), reference=reference, sets=only
    )
    text = _rendered(comparison, output_format)
    if output.out is None:
        typer.echo(text, nl=False)
        return
    from pennyweight.runs.record import write_text

    write_text(output.out, text)
    typer.echo(f"comparison in {output.out}")


def _parse_groups(groups: Sequence[str]) -> dict[str, list[Path]]:
    """Return the runs of each group by its name.

    Raises:
        RunError: a group is not written as NAME=RUN,RUN, or two have the same name.
    """
    parsed: dict[str, list[Path]] = {}
    for text in groups:
        name, _, listed = text.partition("=")
        paths = [Path(part) for part in listed.split(",") if part]
        if not name or not paths:
            raise RunError(f"--group {text}: expected NAME=RUN,RUN, such as mine=runs/1,runs/2")
        if name in parsed:
            raise RunError(f"--group {text}: there are two groups {name}; list all runs in one")
        parsed[name] = paths
    return parsed


def _rendered(comparison: RunComparison, output_format: ComparisonFormat) -> str:
    from pennyweight.report import comparison as report

    match output_format:
        case ComparisonFormat.markdown:
            return report.as_markdown(comparison)
        case ComparisonFormat.json:
            return report.as_json(comparison)
        case ComparisonFormat.latex:
            return report.as_latex(comparison)
    from pennyweight.cli.tables import show_comparison

    with redirect_stdout(io.StringIO()) as text:
        show_comparison(comparison)
    return text.getvalue()
