"""Arguments and options that several commands share."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pennyweight.errors import RecipeError
from pennyweight.runs.exists import require_run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pennyweight.data.source import Source
    from pennyweight.export.hub_folder import HubOptions
    from pennyweight.recipe import Recipe

_DEFAULT_RECIPE = "quickstart"

__all__ = [
    "BackendName",
    "CheckedData",
    "FormatOptions",
    "HubFolderOptions",
    "Json",
    "LabelColumn",
    "LabelledRowsOptions",
    "Out",
    "OutDirectory",
    "RecipeOptions",
    "RowsOptions",
    "Run",
    "RunOptions",
    "Set",
    "SkipBadRows",
    "TextColumns",
    "parse_count",
]


class BackendName(StrEnum):
    """The libraries that can run a model."""

    torch = "torch"
    onnx = "onnx"


CheckedData = Annotated[
    str | None,
    typer.Option(
        "--data",
        metavar="FILE",
        help="The rows on which the model is compared with the run. If not given, those of the "
        "run's test, of its validation file, or of the bundled sample.",
        show_default=False,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Out = Annotated[Path, typer.Option("--out", metavar="FILE", help="The file to write.")]
LabelColumn = Annotated[
    str | None,
    typer.Option("--label-column", metavar="COLUMN", help="The column that holds the label."),
]
OutDirectory = Annotated[
    Path, typer.Option("--out", metavar="DIR", help="The directory to write to.")
]


def _require_run(run: Path) -> Path:
    """Check at once that a directory is a run, not after the libraries have been loaded."""
    require_run(run)
    return run


Run = Annotated[
    Path,
    typer.Argument(
        metavar="RUN", help="The run directory of a finished run.", callback=_require_run
    ),
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Override a key of the recipe, for example adapter.rank=8. Can be repeated.",
    ),
]
TextColumns = Annotated[
    list[str] | None,
    typer.Option(
        "--text-column",
        metavar="COLUMN",
        help="The column that holds the text. Can be repeated; texts are joined with a space.",
    ),
]
SkipBadRows = Annotated[
    bool,
    typer.Option(
        "--skip-bad-rows",
        help="Set unusable rows aside instead of stopping; a run keeps them in its directory.",
    ),
]


@dataclass(frozen=True, slots=True)
class RecipeOptions:
    """A recipe and overrides of its keys."""

    recipe: Annotated[
        str,
        typer.Argument(
            metavar="[RECIPE]",
            help="The name of a shipped recipe, a TOML file, or a run directory. If not given, "
            '"quickstart" with the rows of --data.',
            show_default=False,
        ),
    ] = ""
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            metavar="FILE",
            help='The labelled training rows: a file, "hub:NAME[:SPLIT]" or "sample:SPLIT".',
        ),
    ] = None
    test: Annotated[
        str | None,
        typer.Option("--test", metavar="FILE", help="The labelled test rows."),
    ] = None
    text_columns: TextColumns = None
    label_column: LabelColumn = None
    base: Annotated[
        str | None,
        typer.Option(
            "--base",
            metavar="NAME",
            help='The base: "embedded", a local directory, or a hub id.',
        ),
    ] = None
    budget: Annotated[
        str | None,
        typer.Option(
            "--budget",
            metavar="NUMBER",
            help="The maximum number of trainable parameters, such as 100k or 1M.",
        ),
    ] = None
    plan: Annotated[
        Path | None,
        typer.Option(
            "--plan",
            metavar="FILE",
            help="A plan file, whose ranks, alphas and head are used instead of the recipe's.",
        ),
    ] = None
    seed: Annotated[
        int | None,
        typer.Option(
            "--seed",
            min=0,
            metavar="NUMBER",
            help="The seed of the split, the head, the batches and dropout.",
        ),
    ] = None
    skip_bad_rows: SkipBadRows = False
    overrides: Set = None

    def load(self, *more: str, data: str | None = None) -> Recipe:
        """Load the recipe with the options and overrides, followed by `more`.

        Args:
            more: further overrides.
            data: the training rows of the default recipe, if none are named.

        Raises:
            RecipeError: neither a recipe nor rows are named, or the recipe is not valid.
        """
        from pennyweight.recipe import load_recipe
        from pennyweight.recipe.toml_text import inline_toml

        if not self.recipe and self.data is None and data is not None:
            more = (f"data.train.location={inline_toml(data)}", *more)
        elif not self.recipe and self.data is None:
            raise RecipeError(
                "nothing to train: name labelled rows with --data FILE, or a recipe (a shipped "
                "one, a TOML file or a run directory)"
            )
        overrides = [*self._shortcuts(), *(self.overrides or ()), *more]
        return load_recipe(self.recipe or _DEFAULT_RECIPE, overrides=overrides)

    def _shortcuts(self) -> Iterator[str]:
        """Yield the options as overrides of keys."""
        from pennyweight.recipe.toml_text import inline_toml

        if self.data is not None:
            yield f"data.train.location={inline_toml(self.data)}"
        if self.text_columns:
            columns = ", ".join(map(inline_toml, self.text_columns))
            yield f"data.train.text_columns=[{columns}]"
        if self.label_column is not None:
            yield f"data.train.label_column={inline_toml(self.label_column)}"
        if self.test is not None:
            yield f"evaluate.test.location={inline_toml(self.test)}"
        if self.base is not None:
            yield f"base.name={inline_toml(self.base)}"
        if self.budget is not None:
            yield f"budget.trainable_parameters={parse_count(self.budget)}"
        if self.plan is not None:
            yield f"adapter.plan={inline_toml(str(self.plan))}"
        if self.seed is not None:
            yield f"seed={self.seed}"
        if self.skip_bad_rows:
            yield "data.on_bad_row=set-aside"


def parse_count(text: str) -> int:
    """Return a number such as "250000", "250_000", "250k" or "1.5M".

    Raises:
        RecipeError: it is no such number.
    """
    # A comma separates thousands; as a decimal point it would mean ten times as much.
    match = re.fullmatch(r"(\d[\d_]*(?:\.\d+)?|\d{1,3}(?:,\d{3})+(?=$))\s*([kKmM]?)", text.strip())
    if match is None:
        raise RecipeError(
            f"--budget {text}: expected a number of parameters, such as 100k, 1.5M or 250,000"
        )
    number, unit = match.groups()
    return round(
        float(re.sub("[_,]", "", number)) * {"": 1, "k": 1_000, "m": 1_000_000}[unit.lower()]
    )


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
class HubFolderOptions:
    """Options of a folder for the Hugging Face Hub."""

    merged: Annotated[
        bool,
        typer.Option(
            "--merged", help="For the hub: a merged transformers model instead of an adapter."
        ),
    ] = False
    license_id: Annotated[
        str,
        typer.Option(
            "--license", metavar="ID", help="The license's id on the hub, for the model card."
        ),
    ] = "unknown"
    base_id: Annotated[
        str | None,
        typer.Option(
            "--base-id",
            metavar="ID",
            help="For the hub: the base's id there; required for a base from a local directory.",
        ),
    ] = None
    datasets: Annotated[
        list[str] | None,
        typer.Option(
            "--dataset",
            metavar="ID",
            help="For the hub: the id of the training data there. Can be repeated.",
        ),
    ] = None

    def plain(self, *, data: str | None = None, rows: int = 200) -> HubOptions:
        """Return the options as plain values.

        Args:
            data: the rows on which a merged model is compared with the run.
            rows: the largest number of them.
        """
        from pennyweight.export.hub_folder import HubOptions
        from pennyweight.inference.merge import MergeCheck

        return HubOptions(
            merged=self.merged,
            license_id=self.license_id,
            base_id=self.base_id,
            datasets=tuple(self.datasets or ()),
            check=MergeCheck(data, rows),
        )


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
    text_columns: TextColumns = None

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

    label_column: LabelColumn = None

    @property
    def source(self) -> Source:
        """The source of the rows."""
        return self.source_at(self.data, label_column=self.label_column)
