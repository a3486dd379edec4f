"""Write predictions: CSV, JSON Lines or Parquet, to a file or to standard output."""

from __future__ import annotations

import base64
import csv
import json
import math
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import date, time
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pennyweight.data.source import Source
from pennyweight.errors import RunError
from pennyweight.files import replacing
from pennyweight.inference.layout import Layout, OutputFormat

__all__ = [
    "FORMATS",
    "Format",
    "OutputBlock",
    "RowWriter",
    "format_of",
    "is_standard_output",
    "open_writer",
    "refuse_to_replace",
    "write_rows",
    "writing",
]


def _text(value: object) -> str:
    """Return a value that JSON has no type for: ISO 8601 for dates and times, bytes in base64."""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return value.isoformat() if isinstance(value, date | time) else str(value)


# `json.dumps` would make an encoder for each row.
_encode = json.JSONEncoder(ensure_ascii=False, default=_text, allow_nan=False).encode


def _encoded(value: object) -> str:
    """Return a value as JSON, which has no NaN and no infinity: they become null."""
    try:
        return _encode(value)
    except ValueError:
        return _encode(_finite(value))


def _finite(value: object) -> object:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    return [_finite(entry) for entry in value] if isinstance(value, list | tuple) else value


_ROW_GROUP_BYTES = 32 * 2**20
# Endings of formats in which tables are often kept, and which are not written.
_NOT_WRITTEN = (".xlsx", ".xls", ".ods", ".json", ".arrow", ".feather", ".orc")
# Written through the stream that is open already: opening them again would truncate a file that
# the shell redirects standard output to.
_STANDARD_OUTPUT = ("-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1")


@dataclass(frozen=True, slots=True)
class OutputBlock:
    """Some rows with their answers.

    Attributes:
        numbers: the number of each row in its source, counted from 1.
        copied: values of the copied columns, by their names in the input.
        others: what else is written of each row, for JSON Lines; () for nothing.
        probabilities: float64 `[rows, classes]`.
    """

    numbers: Sequence[int]
    copied: Mapping[str, Sequence[object]]
    probabilities: np.ndarray
    others: Sequence[Mapping[str, object]] = ()


class RowWriter(Protocol):
    """Writes blocks of rows to one file."""

    def write(self, block: OutputBlock) -> None:
        """Write a block behind those before it."""

    def close(self) -> None:
        """Write what is left; the file itself stays open."""


class _Csv:
    """A header, then a line a row; a missing value is empty, and a nested one is JSON."""

    def __init__(self, file: IO[Any], layout: Layout) -> None:
        self._layout = layout
        self._writer = csv.writer(file, lineterminator="\n")
        self._writer.writerow(layout.columns)

    def write(self, block: OutputBlock) -> None:
        copied = (map(_cell, block.copied[name]) for name in self._layout.copied)
        answers = self._layout.answers.cells(block.probabilities)
        self._writer.writerows(zip(block.numbers, *copied, *answers, strict=True))

    def close(self) -> None:
        """Do nothing: every line has been written."""


class _JsonLines:
    """An object a row; values are those of the input."""

    def __init__(self, file: IO[Any], layout: Layout) -> None:
        self._layout = layout
        self._file = file

    def write(self, block: OutputBlock) -> None:
        names = ("row", *self._layout.copied.values())
        columns = [block.numbers, *(block.copied[name] for name in self._layout.copied)]
        answers = self._layout.answers.nested(block.probabilities)
        others = block.others or [{}] * len(block.numbers)
        for *values, other, answer in zip(*columns, others, answers, strict=True):
            row = dict(zip(names, values, strict=True)) | other | answer
            self._file.write(_encoded(row) + "\n")

    def close(self) -> None:
        """Do nothing: every line has been written."""


class _Parquet:
    """The columns of CSV with their types; text that is no Unicode is escaped."""

    def __init__(self, file: IO[Any], layout: Layout) -> None:
        self._layout = layout
        answers = layout.answers.arrays(np.zeros((0, len(layout.answers.labels))))
        copied = [layout.types.get(name, pa.string()) for name in layout.copied]
        kinds = [pa.int64(), *copied, *(array.type for array in answers)]
        self._schema = pa.schema(list(zip(layout.columns, kinds, strict=True)))
        self._writer = pq.ParquetWriter(file, self._schema, compression="zstd")
        self._waiting: list[pa.RecordBatch] = []

    def write(self, block: OutputBlock) -> None:
        arrays = [
            pa.array(block.numbers, pa.int64()),
            *(self._copied(name, block.copied[name]) for name in self._layout.copied),
            *self._layout.answers.arrays(block.probabilities),
        ]
        self._waiting.append(pa.record_batch(arrays, schema=self._schema))
        if sum(batch.nbytes for batch in self._waiting) > _ROW_GROUP_BYTES:
            self._flush()

    def close(self) -> None:
        self._flush()
        self._writer.close()

    def _copied(self, name: str, values: Sequence[object]) -> pa.Array:
        kind = self._layout.types.get(name)
        if kind is not None:
            return pa.array(values, kind)
        texts = (None if value is None else str(_cell(value)) for value in values)
        return pa.array(
            [None if text is None else text.encode(errors="backslashreplace") for text in texts],
            pa.binary(),
        ).cast(pa.string())

    def _flush(self) -> None:
        if self._waiting:
            self._writer.write_table(pa.Table.from_batches(self._waiting, self._schema))
            self._waiting = []


@dataclass(frozen=True, slots=True)
class Format:
    """An entry in the table of output formats.

    Attributes:
        endings: file name endings that ask for it, the usual one first.
        writer: opens a writer on a file.
        is_nested: whether a row's columns are `Answers.keys` and not `Answers.columns`.
        is_binary: whether the file is one of bytes.
    """

    endings: tuple[str, ...]
    writer: type[_Csv] | type[_JsonLines] | type[_Parquet]
    is_nested: bool = False
    is_binary: bool = False


FORMATS: Mapping[OutputFormat, Format] = MappingProxyType(
    {
        "csv": Format((".csv",), _Csv),
        "jsonl": Format((".jsonl", ".ndjson"), _JsonLines, is_nested=True),
        "parquet": Format((".parquet", ".pq"), _Parquet, is_binary=True),
    }
)


def is_standard_output(out: str | Path | None) -> bool:
    """Return whether `out` means standard output: None, "-" or "/dev/stdout"."""
    return out is None or str(out) in _STANDARD_OUTPUT


def format_of(out: str | Path | None) -> OutputFormat:
    """Return the format that a file's ending asks for; CSV for every unknown ending.

    Raises:
        RunError: the ending is that of a known format that is not written.
    """
    name = str(out).lower()
    if name.endswith(_NOT_WRITTEN):
        raise RunError(
            f"--out {out}: this format is not written; end the name with .csv, .jsonl or .parquet"
        )
    return next((key for key, each in FORMATS.items() if name.endswith(each.endings)), "csv")


@contextmanager
def open_writer(
    out: str | Path | None, layout: Layout, output_format: OutputFormat
) -> Iterator[RowWriter]:
    """Yield a writer of a file, which is put in place when the block has ended without an error.

    Args:
        out: the file; None, "-" or "/dev/stdout" for standard output.
        layout: the columns.
        output_format: a name in `FORMATS`.

    Raises:
        RunError: the file cannot be written, or a binary one is to go to standard output.
    """
    entry = FORMATS[output_format]
    if entry.is_binary and is_standard_output(out):
        raise RunError(f"{output_format}: a binary file; name it with --out FILE")
    with (
        _opened(out, is_binary=entry.is_binary) as file,
        closing(entry.writer(file, layout)) as writer,
    ):
        yield writer


@contextmanager
def writing(path: Path, layout: Layout, output_format: OutputFormat) -> Iterator[RowWriter]:
    """Yield a writer of a file that is not complete before the block ends; see `open_writer`.

    Raises:
        OSError: the file cannot be written.
    """
    entry = FORMATS[output_format]
    with (
        _open_for_writing(path, is_binary=entry.is_binary) as file,
        closing(entry.writer(file, layout)) as writer,
    ):
        yield writer


def refuse_to_replace(data: object, out: str | Path | None) -> None:
    """Refuse to replace rows by what is computed from them.

    Args:
        data: the rows: a location or `Source`, or texts in memory, which no file replaces.
        out: where the output is to be written; None for standard output.

    Raises:
        RunError: `out` is the file of the rows.
    """
    if out is None or is_standard_output(out) or not isinstance(data, str | Source):
        return
    source = Path(data if isinstance(data, str) else data.location).expanduser()
    target = Path(out)
    if source.exists() and target.exists() and target.samefile(source):
        raise RunError(f"--out {out}: the file of the rows, which stays as it is; name another one")


def write_rows(
    out: str | Path | None, rows: Iterable[Mapping[str, object]], *, columns: Sequence[str]
) -> None:
    """Write rows line by line as CSV; a file is written atomically.

    A missing value is empty and a nested one is written as JSON.

    Args:
        out: the file; None, "-" or "/dev/stdout" for standard output.
        rows: one mapping per row, with the keys of `columns`.
        columns: the header.

    Raises:
        RunError: the file cannot be written.
    """
    with _opened(out) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows([_cell(row[column]) for column in columns] for row in rows)


@contextmanager
def _opened(out: str | Path | None, *, is_binary: bool = False) -> Iterator[IO[Any]]:
    if out is None or is_standard_output(out):
        yield sys.stdout
        sys.stdout.flush()
        return
    path = Path(out)
    if not path.parent.is_dir():
        raise RunError(f"--out {path}: there is no directory {path.parent}; create it first")
    try:
        with replacing(path) as part, _open_for_writing(part, is_binary=is_binary) as file:
            yield file
    except BrokenPipeError:
        raise
    except OSError as error:
        raise RunError(f"--out {path}: cannot be written: {error.strerror or error}") from None


def _open_for_writing(path: Path, *, is_binary: bool) -> IO[Any]:
    if is_binary:
        return path.open("wb")
    # A lone surrogate, which JSON allows, cannot be encoded.
    return path.open("w", encoding="utf-8", errors="backslashreplace", newline="")


def _cell(value: object) -> object:
    if value is None:
        return ""
    if isinstance(value, str | int | float):
        return value
    return _encoded(value) if isinstance(value, list | tuple | dict) else _text(value)
