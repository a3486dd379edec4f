"""Arguments and options that several commands share."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from pennyweight.data.source import Source
    from pennyweight.recipe import Recipe

__all__ = [
    "BackendName",
    "FormatOptions",
    "Json",
    "LabelledRowsOptions",
    "Out",
    "OutDirectory",
    "RecipeOptions",
    "RowsOptions",
    "Run",
    "RunOptions",
    "Set",
    "SkipBadRows",
]


class BackendName(StrEnum):
    """The libraries that can run a model."""

    torch = "torch"
    onnx = "onnx"


Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Out = Annotated[Path, typer.Option("--out", metavar="FILE", help="The file to write.")]
OutDirectory = Annotated[
    Path, typer.Option("--out", metavar="DIR", help="The directory to write to.")
]
Run = Annotated[Path, typer.Argument(metavar="RUN", help="The run directory of a finished run.")]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Override a key of the recipe, for example adapter.rank=8. Can be repeated.",
    ),
]
SkipBadRows = Annotated[
    bool,
    typer.Option(
        "--skip-bad-rows",
        help="Set unusable rows aside in the run directory instead of stopping.",
    ),
]


@dataclass(frozen=True, slots=True)
class RecipeOptions:
    """A recipe and overrides of its keys."""

    recipe: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE", help="The name of a shipped recipe, a TOML file, or a run directory."
        ),
    ]
    overrides: Set = None

    def load(self, *more: str) -> Recipe:
        """Load the recipe with the overrides, followed by `more`."""
        from pennyweight.recipe import load_recipe

        return load_recipe(self.recipe, overrides=[*(self.overrides or ()), *more])


@dataclass(frozen=True, slots=True)
class RunOptions:
    """A finished run and the library that runs its model."""

    run: Run
    backend: Annotated[
        BackendName,
        typer.Option(
            "--backend", help="The library that runs the model; onnx needs pennyweight[onnx]."
        ),
    ] = BackendName.torch


@dataclass(frozen=True, slots=True, kw_only=True)
class FormatOptions:
    """How to read a file of rows."""

    file_format: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="FORMAT",
            help="The format of the file; if not given, it is detected.",
        ),
    ] = None
    text_columns: Annotated[
        list[str] | None,
        typer.Option(
            "--text-column",
            metavar="COLUMN",
            help="The column that holds the text. Can be repeated; texts are joined with a space.",
        ),
    ] = None

    def source_at(self, location: str, *, label_column: str | None = None) -> Source:
        """Return the source of rows at a location."""
        from pennyweight.data.source import Source

        columns = tuple(self.text_columns) if self.text_columns else None
        return Source(location, self.file_format, columns, label_column)


@dataclass(frozen=True, slots=True, kw_only=True)
class RowsOptions(FormatOptions):
    """Rows with texts; labels are not read."""

    data: Annotated[
        str,
        typer.Option(
            "--data",
            metavar="FILE",
            help='The rows: a file, "hub:NAME[:SPLIT]", "sample:SPLIT", or "-" for standard input.',
        ),
    ]

    @property
    def source(self) -> Source:
        """The source of the rows."""
        return self.source_at(self.data)


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledRowsOptions(RowsOptions):
    """Rows with texts and labels."""

    label_column: Annotated[
        str | None,
        typer.Option("--label-column", metavar="COLUMN", help="The column that holds the label."),
    ] = None

    @property
    def source(self) -> Source:
        """The source of the rows."""
        return self.source_at(self.data, label_column=self.label_column)
