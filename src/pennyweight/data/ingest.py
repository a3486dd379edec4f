"""Read any source into a memory-mapped table of texts and labels.

Rows stream from the reader through the row parser into an Arrow file in the cache, so memory does
not grow with the source. Reading the same source with the same options again opens that file.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Literal

import datasets
import pyarrow as pa

from pennyweight.data.clean import cleaner
from pennyweight.data.fingerprint import Fingerprint
from pennyweight.data.row import BadRow, RowParser, row_parser
from pennyweight.data.source import Source, locate
from pennyweight.errors import DataError
from pennyweight.files import replacing

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pennyweight.data.read import Record
    from pennyweight.data.source import LocatedSource

__all__ = ["OnBadRow", "ReadOptions", "Rows", "copy_bad_rows", "read_rows"]

OnBadRow = Literal["stop", "set-aside"]

# Part of every cache key. Raise it when the same source and options would give other rows.
_VERSION = 3
_TABLE = "rows.arrow"
_BAD_ROWS = "bad-rows.jsonl"
_SUMMARY = "summary.json"
_ROWS_PER_BATCH = 10_000
_BYTES_PER_BATCH = 16 * 2**20
_SCHEMA = pa.schema([("text", pa.string()), ("label", pa.int64()), ("row", pa.int64())])


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """Options for reading rows, shared by all sets of a run.

    Attributes:
        labels: class names, in the order of their indices.
        clean: names of cleaning steps in `clean.STEPS`, applied in order.
        on_bad_row: "stop" to raise an error at the first bad row, "set-aside" to skip bad rows and
            write them to a file.
        cache: folder for the memory-mapped tables; created if missing.
        bad_rows: folder that receives the bad rows of the source called NAME as NAME.jsonl; None
            to leave them in the cache. Used only with "set-aside".
    """

    labels: tuple[str, ...]
    clean: tuple[str, ...]
    on_bad_row: OnBadRow
    cache: Path
    bad_rows: Path | None = None


@dataclass(frozen=True, slots=True)
class Rows:
    """The usable rows of a source, and a summary of the others.

    Attributes:
        table: memory-mapped, with the columns text (string), label (int64, -1 if unlabelled) and
            row (int64, the row's number in the source, counted from 1).
        source: the source's name in messages.
        format: a name in `read.READERS`, or "hub".
        fingerprint: `fingerprint_of(table)`, computed while the table was written.
        read: number of rows read, including bad ones.
        bad: number of bad rows.
        bad_rows_file: JSON Lines file with the bad rows; None if there are none.
    """

    table: datasets.Dataset
    source: str
    format: str
    fingerprint: str
    read: int
    bad: int
    bad_rows_file: Path | None


@dataclass(frozen=True, slots=True)
class _Summary:
    """The part of `Rows` that a cache entry stores beside its table."""

    fingerprint: str
    read: int
    bad: int


@dataclass(frozen=True, slots=True)
class _Request:
    """A located source and how to read it."""

    located: LocatedSource
    source: Source
    options: ReadOptions
    labelled: bool
    bad_rows_copy: Path | None

    def key(self) -> str:
        """Return the name of the cache entry."""
        facts = [
            _VERSION,
            self.located.format,
            self.located.identity(),
            self.options.labels,
            self.options.clean,
            self.options.on_bad_row,
            self.labelled,
            self.source.text_columns,
            self.source.label_column,
        ]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]


def read_rows(name: str, source: Source, options: ReadOptions, *, labelled: bool = True) -> Rows:
    """Read a source into a memory-mapped table, or open the table of an earlier call.

    Args:
        name: names the file of bad rows, `options.bad_rows / NAME.jsonl`.
        source: where the rows come from.
        options: how to read them.
        labelled: whether every row must have a label; if False, no label is read.

    Raises:
        DataError: the source cannot be read, lacks a column, has a bad row that `options` do not
            allow, or has no usable row.
        KeyError: a name in `options.clean` is not in `clean.STEPS`.
    """
    located = locate(source)
    copy = None
    if options.on_bad_row == "set-aside" and options.bad_rows is not None:
        copy = options.bad_rows / f"{name}.jsonl"
    request = _Request(located, source, options, labelled, copy)
    entry = options.cache / request.key()
    summary = _load_summary(entry) or _build(entry, request)
    bad_rows_file = entry / _BAD_ROWS if summary.bad else None
    if bad_rows_file is not None and copy is not None:
        copy_bad_rows(bad_rows_file, copy)
        bad_rows_file = copy
    return Rows(
        table=_open_table(entry / _TABLE),
        source=located.name,
        format=located.format,
        bad_rows_file=bad_rows_file,
        **asdict(summary),
    )


def copy_bad_rows(bad_rows: Path, target: Path) -> None:
    """Copy a file of bad rows atomically, creating the target's folder.

    Raises:
        DataError: the file cannot be read, or the target cannot be written.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with replacing(target) as partial:
            shutil.copyfile(bad_rows, partial)
    except OSError as error:
        raise DataError(f"{target}: cannot write the bad rows: {error.strerror}") from error


def _load_summary(entry: Path) -> _Summary | None:
    """Return the summary of a cache entry; None if the entry is missing or incomplete."""
    try:
        summary = _Summary(**json.loads((entry / _SUMMARY).read_text(encoding="utf-8")))
        return summary if (entry / _TABLE).is_file() else None
    except (OSError, ValueError, TypeError):
        return None


def _open_table(path: Path) -> datasets.Dataset:
    try:
        return datasets.Dataset.from_file(str(path))
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"{path}: the cached table is damaged; delete its folder and run again"
        ) from error


def _build(entry: Path, request: _Request) -> _Summary:
    """Read the source into a temporary directory, and rename it to `entry` once it is complete."""
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=entry.parent))
        try:
            summary = _read_into(partial, request)
            (partial / _SUMMARY).write_text(json.dumps(asdict(summary)), encoding="utf-8")
            _publish(partial, entry)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    except OSError as error:
        raise DataError(
            f"{request.located.name}: cannot be read into the cache {entry.parent}: {error}"
        ) from error
    return summary


def _publish(partial: Path, entry: Path) -> None:
    """Rename a complete entry into place, unless another process has already done so."""
    if entry.exists() and _load_summary(entry) is None:
        shutil.rmtree(entry)
    try:
        partial.rename(entry)
    except OSError:
        if _load_summary(entry) is None:
            raise


def _read_into(folder: Path, request: _Request) -> _Summary:
    """Stream the usable rows and the bad ones into two files in `folder`."""
    name, options = request.located.name, request.options
    opened = request.located.open()
    parser = row_parser(
        opened,
        request.source,
        name=name,
        labels=options.labels,
        clean=cleaner(options.clean) if options.clean else None,
        labelled=request.labelled,
    )
    bad_rows = folder / _BAD_ROWS
    with (
        _TableWriter(folder / _TABLE) as table,
        bad_rows.open("w", encoding="utf-8") as bad_rows_file,
    ):
        log = _BadRowLog(bad_rows_file, name)
        read = _stream(opened.records(parser.columns), parser, table, log, options.on_bad_row)
    if not table.rows:
        if log.rows and request.bad_rows_copy is not None:
            copy_bad_rows(bad_rows, request.bad_rows_copy)
        reason = "the source has no rows"
        if read:
            reason = f"none of its {read} rows can be used; the first problem: {log.first_problem}"
        raise DataError(f"{name}: {reason}")
    return _Summary(table.fingerprint(), read, log.rows)


def _stream(
    records: Iterable[Record],
    parser: RowParser,
    table: _TableWriter,
    log: _BadRowLog,
    on_bad_row: OnBadRow,
) -> int:
    """Write every record to the table or the log of bad rows; return their number."""
    read = 0
    for record in records:
        read += 1
        try:
            text, label = parser(record)
        except BadRow as problem:
            if on_bad_row == "stop":
                raise DataError(
                    f"{log.describe(record, problem)}; fix the row, or set bad rows aside with "
                    "--skip-bad-rows"
                ) from None
            log.add(record, problem)
        else:
            table.add(text, label, record.number)
    return read


class _BadRowLog:
    """Writes bad rows to a JSON Lines file, with the reason for each."""

    def __init__(self, file: IO[str], source_name: str) -> None:
        self._file = file
        self._source_name = source_name
        self.rows = 0
        self.first_problem = ""

    def describe(self, record: Record, problem: BadRow) -> str:
        line = "" if record.line is None else f" (line {record.line})"
        return f"{self._source_name}: row {record.number}{line}: {problem}"

    def add(self, record: Record, problem: BadRow) -> None:
        self.rows += 1
        self.first_problem = self.first_problem or self.describe(record, problem)
        row = {
            "file": self._source_name,
            "row": record.number,
            "line": record.line,
            "problem": str(problem),
            "raw": record.raw,
        }
        # JSON's default ASCII output, because a lone surrogate cannot be encoded as UTF-8.
        self._file.write(json.dumps(row) + "\n")


class _TableWriter:
    """Writes rows to an Arrow stream in batches, and computes their fingerprint on the way."""

    def __init__(self, path: Path) -> None:
        self._sink = pa.OSFile(str(path), "wb")
        self._stream = pa.ipc.new_stream(self._sink, _SCHEMA)
        self._fingerprint = Fingerprint()
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
        """Add a row; `text` is UTF-8."""
        self._texts.append(text)
        self._labels.append(label)
        self._numbers.append(number)
        self._bytes += len(text)
        self.rows += 1
        if len(self._texts) == _ROWS_PER_BATCH or self._bytes > _BYTES_PER_BATCH:
            self._flush()

    def fingerprint(self) -> str:
        """Return the fingerprint of the rows that have been flushed."""
        return self._fingerprint.hexdigest()

    def _flush(self) -> None:
        if not self._texts:
            return
        self._fingerprint.update(self._texts, self._labels)
        texts = pa.array(self._texts, pa.binary()).cast(pa.string())
        arrays = [texts, pa.array(self._labels, pa.int64()), pa.array(self._numbers, pa.int64())]
        self._stream.write_batch(pa.record_batch(arrays, schema=_SCHEMA))
        self._texts, self._labels, self._numbers, self._bytes = [], [], [], 0
