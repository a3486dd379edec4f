"""Rows in: any source becomes a memory-mapped table of text and label, with bad rows by name.

Rows stream from the reader through the judge into an Arrow file in the cache; none are kept. The
same source read in the same way again is opened from there.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import struct
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Literal

import datasets
import pyarrow as pa

from pennyweight.data.row import BadRow, judge_for
from pennyweight.data.source import Source, locate
from pennyweight.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable

    from pennyweight.data.read import Record
    from pennyweight.data.source import Located

__all__ = ["OnBadRow", "Rows", "Source", "ingest"]

OnBadRow = Literal["stop", "set-aside"]

# Part of every cache key; raise it when the same source would give other rows.
_VERSION = 2
_TABLE = "rows.arrow"
_BAD_ROWS = "bad-rows.jsonl"
_ABOUT = "about.json"
_ROWS_PER_BATCH = 10_000
_BYTES_PER_BATCH = 16 * 2**20
_SCHEMA = pa.schema([("text", pa.string()), ("label", pa.int64()), ("row", pa.int64())])
_HASHED_ROW = struct.Struct("<qq")


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows that were read, and what became of the others.

    Attributes:
        table: memory-mapped; columns text (string), label (int64, -1 where unlabelled) and row
            (int64, the row's number in the source, from 1).
        source: what messages call the source.
        format: a name in `read.READERS`, or "hub".
        fingerprint: SHA-256 over text and label of every row in order, in hex; the same for the
            same rows from another format or cache.
        read: rows read, the bad ones too.
        bad: rows that could not be used.
        bad_rows_file: where they are, one JSON object a line; None when there are none.
    """

    table: datasets.Dataset
    source: str
    format: str
    fingerprint: str
    read: int
    bad: int
    bad_rows_file: Path | None


@dataclass(frozen=True, slots=True)
class _About:
    """What a finished cache entry says of itself."""

    fingerprint: str
    read: int
    bad: int


def ingest(
    source: Source,
    *,
    labels: tuple[str, ...],
    cache: Path,
    clean: Callable[[str], str] | None = None,
    clean_key: str = "",
    labelled: bool = True,
    on_bad_row: OnBadRow = "stop",
    bad_rows_file: Path | None = None,
    limit: int | None = None,
) -> Rows:
    """Reads a source into a memory-mapped table.

    Args:
        source: where the rows come from.
        labels: the classes' names, in the order of their indices.
        cache: the directory for finished tables; made when missing.
        clean: from text to text; None for the text as it is.
        clean_key: tells one `clean` from another in the cache, such as the names of its steps.
        labelled: whether every row must have a label; if not, no label is read.
        on_bad_row: whether the first bad row is an error, or bad rows are written out and counted.
        bad_rows_file: where bad rows go, replacing what is there; None for a file in the cache.
        limit: at most this many rows; None for all.

    Raises:
        DataError: the source cannot be read, lacks a column, has a bad row, or has no usable row.
        ValueError: `clean` without a `clean_key`.
    """
    if clean is not None and not clean_key:
        raise ValueError("clean needs a clean_key, or the cache would confuse it with another")
    located = locate(source)
    how = (labels, clean_key, labelled, on_bad_row, limit, source.text_columns, source.label_column)
    entry = cache / _key(located, how)
    about = _finished(entry)
    if about is None:
        about = _build(
            entry,
            _Task(located, source, labels, clean, labelled, on_bad_row, bad_rows_file, limit),
        )
    return Rows(
        table=_opened(entry / _TABLE),
        source=located.name,
        format=located.format,
        bad_rows_file=_delivered(entry / _BAD_ROWS, bad_rows_file) if about.bad else None,
        **asdict(about),
    )


@dataclass(frozen=True, slots=True)
class _Task:
    """The arguments of `ingest`, and the source that was found."""

    located: Located
    source: Source
    labels: tuple[str, ...]
    clean: Callable[[str], str] | None
    labelled: bool
    on_bad_row: OnBadRow
    bad_rows_file: Path | None
    limit: int | None


def _key(located: Located, how: tuple[object, ...]) -> str:
    facts = json.dumps([_VERSION, located.format, located.identity, how])
    return hashlib.sha256(facts.encode()).hexdigest()[:32]


def _finished(entry: Path) -> _About | None:
    """What an entry says of itself; None when there is none, or not a whole one."""
    try:
        about = _About(**json.loads((entry / _ABOUT).read_text(encoding="utf-8")))
        return about if (entry / _TABLE).is_file() else None
    except (OSError, ValueError, TypeError):
        return None


def _opened(table: Path) -> datasets.Dataset:
    try:
        return datasets.Dataset.from_file(str(table))
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{table}: damaged; delete the folder, and it is made again") from error


def _build(entry: Path, task: _Task) -> _About:
    """Reads the source into a directory of its own, which becomes the entry once it is whole."""
    name = task.located.name
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=entry.parent))
        try:
            about = _read_into(partial, task)
            (partial / _ABOUT).write_text(json.dumps(asdict(about)), encoding="utf-8")
            _publish(partial, entry)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    except OSError as error:
        raise DataError(f"{name}: cannot be read into the cache {entry.parent}: {error}") from error
    return about


def _publish(partial: Path, entry: Path) -> None:
    """Renames a whole entry into place, unless another process has been quicker."""
    if entry.exists() and _finished(entry) is None:
        shutil.rmtree(entry)
    try:
        partial.rename(entry)
    except OSError:
        if _finished(entry) is None:
            raise


def _read_into(folder: Path, task: _Task) -> _About:
    """Streams the rows into `folder`; raises when there is no usable one."""
    located = task.located
    opened = located.open()
    judge = judge_for(
        opened,
        task.source,
        name=located.name,
        labels=task.labels,
        clean=task.clean,
        labelled=task.labelled,
    )
    read, bad, first = 0, 0, ""
    with (
        _TableWriter(folder / _TABLE) as table,
        (folder / _BAD_ROWS).open("w", encoding="utf-8") as bad_rows,
    ):
        for record in opened.records(judge.columns):
            read += 1
            try:
                text, label = judge(record)
            except BadRow as problem:
                where = f"{located.name}: {_place(record)}: {problem}"
                if task.on_bad_row == "stop":
                    raise DataError(
                        f"{where}; fix the row, or set bad rows aside with --skip-bad-rows"
                    ) from None
                bad, first = bad + 1, first or where
                _write_bad_row(bad_rows, located.name, record, str(problem))
                continue
            table.add(text, label, record.number)
            if table.rows == task.limit:
                break
    if not table.rows:
        if bad and task.bad_rows_file is not None:
            _delivered(folder / _BAD_ROWS, task.bad_rows_file)
        why = f"none of its {read} rows can be used; the first: {first}" if read else "no rows"
        raise DataError(f"{located.name}: {why}")
    return _About(table.fingerprint(), read, bad)


def _place(record: Record) -> str:
    return f"row {record.number}" + (f" (line {record.line})" if record.line is not None else "")


def _write_bad_row(file: IO[str], name: str, record: Record, problem: str) -> None:
    row = {
        "file": name,
        "row": record.number,
        "line": record.line,
        "problem": problem,
        "raw": record.raw,
    }
    # ASCII, since a row may hold half a character, which UTF-8 cannot.
    file.write(json.dumps(row) + "\n")


def _delivered(bad_rows: Path, wanted: Path | None) -> Path:
    """Copies the bad rows to where they are wanted, all or nothing."""
    if wanted is None:
        return bad_rows
    partial = wanted.with_name(f".{wanted.name}.{os.getpid()}.partial")
    try:
        wanted.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(bad_rows, partial)
        partial.replace(wanted)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise DataError(f"{wanted}: the bad rows cannot be written: {error.strerror}") from error
    return wanted


class _TableWriter:
    """Writes rows to an Arrow stream in batches, hashing them on the way."""

    def __init__(self, path: Path) -> None:
        self._sink = pa.OSFile(str(path), "wb")
        self._stream = pa.ipc.new_stream(self._sink, _SCHEMA)
        self._hash = hashlib.sha256()
        self._texts: list[bytes] = []
        self._labels: list[int] = []
        self._numbers: list[int] = []
        self._bytes = 0
        self.rows = 0

    def __enter__(self) -> _TableWriter:
        return self

    def __exit__(self, *error: object) -> None:
        self._flush()
        self._stream.close()
        self._sink.close()

    def add(self, text: bytes, label: int, number: int) -> None:
        """Adds a row; `text` is UTF-8."""
        self._texts.append(text)
        self._labels.append(label)
        self._numbers.append(number)
        self._bytes += len(text)
        self.rows += 1
        if len(self._texts) == _ROWS_PER_BATCH or self._bytes > _BYTES_PER_BATCH:
            self._flush()

    def fingerprint(self) -> str:
        """The hash of label, length of the text and text, of every row that was flushed."""
        return self._hash.hexdigest()

    def _flush(self) -> None:
        if not self._texts:
            return
        hashed = []
        for text, label in zip(self._texts, self._labels, strict=True):
            hashed.append(_HASHED_ROW.pack(label, len(text)))
            hashed.append(text)
        self._hash.update(b"".join(hashed))
        texts = pa.array(self._texts, pa.binary()).cast(pa.string())
        arrays = [texts, pa.array(self._labels, pa.int64()), pa.array(self._numbers, pa.int64())]
        self._stream.write_batch(pa.record_batch(arrays, schema=_SCHEMA))
        self._texts, self._labels, self._numbers, self._bytes = [], [], [], 0
