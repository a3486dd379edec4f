"""Options of `pennyweight predict`: its rows, the form of its output, and how it is computed."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pennyweight.cli.options import FormatOptions, RunOptions
from pennyweight.errors import DataError

if TYPE_CHECKING:
    from pennyweight.data.ingest import OnBadRow
    from pennyweight.data.source import Source
    from pennyweight.inference.layout import OutputOptions
    from pennyweight.inference.parts.predict_files import PartOptions

__all__ = ["InputArguments", "OutputArguments", "OutputFormatName", "PartArguments"]

_STANDARD_INPUT = "-"


class OutputFormatName(StrEnum):
    """The formats in which predictions are written."""

    csv = "csv"
    jsonl = "jsonl"
    parquet = "parquet"


@dataclass(frozen=True, slots=True, kw_only=True)
class InputArguments(FormatOptions):
    """Texts, or rows with texts; labels are not read."""

    texts: Annotated[
        list[str] | None,
        typer.Argument(metavar="TEXT...", help="Texts to classify, instead of --data."),
    ] = None
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            metavar="FILE",
            help='The rows: a file, "hub:NAME[:SPLIT]", "sample:SPLIT", or "-" for standard input, '
            "which is also read if neither texts nor --data are given: a text per line, or JSON "
            'objects if the first line begins with "{". Or many files: a folder, a pattern such as '
            '"news/*.parquet", or a URL such as s3://bucket/news; then --out is a folder.',
        ),
    ] = None

    @property
    def rows(self) -> Source | Sequence[str]:
        """The texts, or the source of the rows.

        Raises:
            DataError: both texts and --data were given, or neither and standard input is a
                terminal, or a text is empty or the name of a file.
        """
        if self.texts and self.data is not None:
            raise DataError("texts and --data were both given; give either")
        if self.texts:
            if self.file_format or self.text_columns:
                raise DataError(
                    "--format and --text-column describe --data, not texts; leave them out"
                )
            _check_texts(self.texts)
            return self.texts
        if self.data is None and sys.stdin.isatty():
            raise DataError(
                "no input: give texts as arguments, --data FILE, or pipe texts to standard input"
            )
        return self.source_at(_STANDARD_INPUT if self.data is None else self.data)


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputArguments:
    """The destination and form of predictions."""

    out: Annotated[
        str | None,
        typer.Option(
            "--out",
            metavar="FILE",
            help="The file to write: JSON Lines if it ends in .jsonl, Parquet if it ends in "
            '.parquet, otherwise CSV. Standard output if not given, or "-". For many files, or to '
            "predict one file in parts, a folder (which ends in /, or exists) or its URL: the same "
            "command continues a prediction that was stopped.",
        ),
    ] = None
    out_format: Annotated[
        OutputFormatName | None,
        typer.Option(
            "--format-out",
            help="The format of the output. If not given, it follows from the ending of --out. In "
            "a folder, JSON Lines and Parquet then stay what they are, and other files become CSV.",
        ),
    ] = None
    columns: Annotated[
        str,
        typer.Option(
            "--columns",
            metavar="NAMES",
            help='Input columns to copy to the output, separated by commas, or "all" or "none". A '
            'column that has the name of an output column is written as "input NAME".',
        ),
    ] = "all"
    top_k: Annotated[
        int | None,
        typer.Option(
            "--top-k",
            metavar="N",
            help="Write the N most probable labels instead of the probability of every class.",
        ),
    ] = None

    abstain_below: Annotated[
        float | None,
        typer.Option(
            "--abstain-below",
            metavar="CONFIDENCE",
            help="Give no label to a row whose most probable label is less probable than this, for "
            "example 0.7.",
        ),
    ] = None
    coverage: Annotated[
        float | None,
        typer.Option(
            "--coverage",
            metavar="SHARE",
            help="Give no label where the confidence is low. The limit is chosen so that this "
            "share of the validation rows would get a label, for example 0.9.",
        ),
    ] = None

    @property
    def options(self) -> OutputOptions:
        """The options as plain values."""
        from pennyweight.inference.layout import OutputOptions

        columns = {"all": None, "none": ()}.get(self.columns, tuple(self.columns.split(",")))
        return OutputOptions(
            columns=columns,
            top_k=self.top_k,
            output_format=self.out_format.value if self.out_format else None,
            abstain_below=self.abstain_below,
            coverage=self.coverage,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PartArguments:
    """How a prediction into a folder is computed."""

    rows_per_part: Annotated[
        int,
        typer.Option(
            "--rows-per-part",
            metavar="N",
            help="Into a folder: the number of rows in each output file. A prediction that is "
            "continued repeats only the file that it was writing.",
        ),
    ] = 50_000
    engine: Annotated[
        str,
        typer.Option(
            "--engine",
            metavar="ENGINE",
            help='Into a folder: where to predict. "local" is this process, and "ray" the Ray '
            "cluster at RAY_ADDRESS, or one that is started on this machine.",
        ),
    ] = "local"
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers",
            metavar="N",
            help="With --engine ray: the number of workers, each with a model. If not given, one "
            "for each GPU, or else for each machine.",
            show_default=False,
        ),
    ] = None

    def options(self, model: RunOptions, on_bad_row: OnBadRow) -> PartOptions:
        """Return the options as plain values."""
        from pennyweight.inference.parts.predict_files import PartOptions

        return PartOptions(
            self.rows_per_part, self.engine, self.workers, on_bad_row, model.backend.value
        )


def _check_texts(texts: Sequence[str]) -> None:
    for number, text in enumerate(texts, start=1):
        if not text.strip():
            raise DataError(f"text {number} is empty; leave it out, or write its words in quotes")
        if len(text) < 256 and "\n" not in text and Path(text).is_file():
            raise DataError(f"{text} is a file; to classify its rows, write --data {text}")
