"""The files to predict, and the parts that they are cut into."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from pennyweight.data.ingest import ReadOptions
from pennyweight.data.read import FIRST_ROW, OpenFile, Position, open_file
from pennyweight.data.row import RowParser, row_parser
from pennyweight.data.source import Source
from pennyweight.errors import DataError
from pennyweight.inference.answers import Answers
from pennyweight.inference.classifier import BackendName
from pennyweight.inference.layout import (
    Layout,
    OtherKeys,
    OutputFormat,
    copied_columns,
    plain_types,
)
from pennyweight.inference.output import FORMATS
from pennyweight.inference.parts.files import InputFile

__all__ = [
    "OpenRows",
    "Part",
    "PredictJob",
    "bad_rows_of",
    "input_of",
    "open_rows",
    "parts_of",
]

# Programs that read folders of data leave out what begins with "_".
_BAD_ROWS = "_bad_rows"
_ENDINGS = "|".join(re.escape(each.endings[0]) for each in FORMATS.values())
_PART = re.compile(rf"(?P<name>.+)\.part-[0-9]{{5,}}({_ENDINGS})", re.DOTALL)


@dataclass(frozen=True, slots=True)
class PredictJob:
    """A prediction, as plain values that can be sent to another process.

    Attributes:
        run: absolute path of the run's directory.
        out: path or URL of the folder for the output.
        source: names the format and the text columns of all files.
        options: how rows are read, as the run's training rows were.
        answers: what is written about the labels.
        copied: the name in the output of each column that is copied.
        copies_all: whether these are all columns of the first file.
        output_format: a name in `output.FORMATS`.
        rows_per_part: the number of rows after which a file is cut.
        backend: what runs the model.
    """

    run: str
    out: str
    source: Source
    options: ReadOptions
    answers: Answers
    copied: Mapping[str, str]
    copies_all: bool
    output_format: OutputFormat
    rows_per_part: int
    backend: BackendName


@dataclass(frozen=True, slots=True)
class Part:
    """Consecutive rows of a file, whose predictions become one file.

    Attributes:
        file: that holds the rows.
        number: of the part in its file, counted from 0.
        start: where its rows begin.
        end: where they end.
        path: of its predictions below the folder for the output.
    """

    file: InputFile
    number: int
    start: Position
    end: Position
    path: str

    @property
    def rows(self) -> int:
        """Number of rows, including those that cannot be used."""
        return self.end.row - self.start.row


@dataclass(frozen=True, slots=True)
class OpenRows:
    """An open file, how its rows are parsed, and what is written for them."""

    file: OpenFile
    parser: RowParser
    layout: Layout

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that are read."""
        return tuple(dict.fromkeys((*self.parser.columns.every, *self.layout.copied)))


def open_rows(job: PredictJob, file: InputFile, *, peeks: bool = False) -> OpenRows:
    """Open a file of the job, and check that it has the columns of the first one.

    Args:
        job: of which the file is.
        file: the file.
        peeks: whether nothing but the columns is needed, so that little of a remote file is read.

    Raises:
        DataError: the file cannot be read as the job's format, or lacks a column.
    """
    opened = open_file(file.peeked if peeks else file.file, format=job.source.format)
    name = file.location
    if opened.records_from is None:
        raise DataError(
            f"{name}: a file of format {job.source.format} is predicted as a whole only; give "
            "--out FILE"
        )
    parser = row_parser(opened, job.source, job.options, name=name, labelled=False)
    # Objects of JSON Lines need not have the same keys; what is missing is null.
    if job.source.format != "jsonl":
        copied_columns(opened.columns, tuple(job.copied), reserved=(), name=name)
        other = [column for column in opened.columns if column not in job.copied]
        if other and job.copies_all:
            raise DataError(
                f'{name}: the column "{other[0]}" is not in the first file; name the columns to '
                "copy with --columns"
            )
    types = plain_types(opened.schema, job.copied)
    layout = Layout(job.answers, job.copied, types, _other_keys(job))
    return OpenRows(opened, parser, layout)


def _other_keys(job: PredictJob) -> OtherKeys:
    """Return what becomes of keys that none of the first objects of the first file has."""
    if not job.copies_all or job.source.format != "jsonl":
        return "leave"
    return "write" if FORMATS[job.output_format].is_nested else "refuse"


def parts_of(
    job: PredictJob, file: InputFile, *, start: Position = FIRST_ROW, number: int = 0
) -> Iterator[Part]:
    """Yield the parts of a file; text formats are scanned for them, one part ahead.

    A file without rows has one part, which is empty.

    Args:
        job: of which the file is.
        file: the file.
        start: the end of the part before the first one.
        number: of the first part.

    Raises:
        DataError: the file cannot be read.
    """
    opened = open_rows(job, file).file
    for end in _ends(opened, start, job.rows_per_part):
        if end.row > start.row or not number:
            yield Part(file, number, start, end, _path(job, file, number))
        start, number = end, number + 1


def _ends(file: OpenFile, start: Position, rows: int) -> Iterator[Position]:
    if file.rows is not None:
        yield from (Position(min(row, file.rows)) for row in _steps(start.row, file.rows, rows))
        return
    assert file.records_from is not None  # noqa: S101 - `open_rows` has checked it
    last, first = None, start.row
    for record in file.records_from((), start):
        last = record
        if record.number - first == rows:
            yield record.after
            last, first = None, record.number
    if last is not None:
        yield last.after
    elif not first:
        yield start


def _steps(start: int, stop: int, step: int) -> Iterator[int]:
    if start == stop == 0:
        yield 0
    yield from range(start + step, stop + step, step)


def bad_rows_of(path: str) -> str:
    """Return the path of the rows that were set aside in a part, given that of its predictions."""
    return f"{_BAD_ROWS}/{path}.jsonl"


def input_of(path: str) -> str | None:
    """Return the name of the input file that a file of the output belongs to; None if to none."""
    if path.startswith(f"{_BAD_ROWS}/"):
        path = path.removeprefix(f"{_BAD_ROWS}/").removesuffix(".jsonl")
    match = _PART.fullmatch(path)
    return match and match["name"]


def _path(job: PredictJob, file: InputFile, number: int) -> str:
    ending = FORMATS[job.output_format].endings[0]
    return str(PurePosixPath(f"{file.name}.part-{number:05}{ending}"))
