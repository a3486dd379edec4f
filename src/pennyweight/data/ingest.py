"""Read any source into a memory-mapped table of texts, or pairs of texts, and labels.

Rows stream from the reader through the row parser into an Arrow file in the cache, so memory does
not grow with the source. Reading the same source with the same options again opens that file.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from dataclasses import asdict, dataclass
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import datasets

from pennyweight.data.bad_rows import BadRowLog
from pennyweight.data.label import BadRow, Task
from pennyweight.data.row import row_parser
from pennyweight.data.source import Source, locate
from pennyweight.data.table import TableWriter
from pennyweight.documents import read_json_table
from pennyweight.errors import DataError
from pennyweight.files import building_in, hash_file, replacing, sync_directory
from pennyweight.limits import limit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pennyweight.data.read import Record
    from pennyweight.data.row import RowParser
    from pennyweight.data.source import LocatedSource

__all__ = ["OnBadRow", "ReadOptions", "Rows", "copy_bad_rows", "read_rows"]

OnBadRow = Literal["stop", "set-aside"]

# Part of every cache key. Raise it when the same source and options would give other rows.
_VERSION = 6
_TABLE = "rows.arrow"
_BAD_ROWS = "bad-rows.jsonl"
_SUMMARY = "summary.json"


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
        task: whether each row has exactly one label, or any number of them.
        label_separator: joins the names of several labels in one text; None if a text is one name.
        pairs: whether the rows must be pairs of texts; None if each file decides.
        like: a source, such as that of the training rows, whose column names are used for a source
            that names none itself and has such columns.
    """

    labels: tuple[str, ...]
    clean: tuple[str, ...]
    on_bad_row: OnBadRow
    cache: Path
    bad_rows: Path | None = None
    task: Task = "single-label"
    label_separator: str | None = None
    pairs: bool | None = None
    like: Source | None = None


@dataclass(frozen=True, slots=True)
class Rows:
    """The usable rows of a source, and a summary of the others.

    Attributes:
        table: memory-mapped, with the columns text (string), text_pair (string; for pairs only),
            label (int64, -1 if unlabelled; for a multi-label task list<int64>, ascending, [-1] if
            unlabelled) and row (int64, the row's number in the source, counted from 1).
        source: the source's name in messages.
        format: a name in `read.READERS`, or "hub".
        fingerprint: `fingerprint_of(table)`, computed while the table was written.
        read: number of rows read, including bad ones.
        bad: number of bad rows.
        bad_rows_file: JSON Lines file with the bad rows; None if there are none.
        note: says which columns were chosen by their content, and what numbers mean that are read
            as classes; "" if there is nothing to say.
    """

    table: datasets.Dataset
    source: str
    format: str
    fingerprint: str
    read: int
    bad: int
    bad_rows_file: Path | None
    note: str = ""

    @property
    def are_pairs(self) -> bool:
        """Whether the rows are pairs of texts."""
        return "text_pair" in self.table.column_names


@dataclass(frozen=True, slots=True)
class _Summary:
    """The part of `Rows` that a cache entry stores beside its table, and the table's SHA-256."""

    fingerprint: str
    read: int
    bad: int
    note: str
    sha256: str


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
        like = self.options.like
        facts = [
            _VERSION,
            self.located.format,
            self.located.identity(),
            self.options.labels,
            self.options.clean,
            self.options.on_bad_row,
            self.options.task,
            self.options.label_separator,
            self.options.pairs,
            self.labelled,
            # Rows that are longer are bad rows.
            limit("PENNYWEIGHT_MAX_ROW_MIB"),
            *(None if each is None else _column_names(each) for each in (self.source, like)),
        ]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]


def _column_names(source: Source) -> list[object]:
    return [source.text_columns, source.label_column, source.pair_columns, source.label_columns]


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
        table=datasets.Dataset.from_file(str(entry / _TABLE)),
        source=located.name,
        format=located.format,
        fingerprint=summary.fingerprint,
        read=summary.read,
        bad=summary.bad,
        bad_rows_file=bad_rows_file,
        note=summary.note,
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
    """Return the summary of a cache entry; None if the entry is missing, incomplete or damaged."""
    try:
        summary = _Summary(**read_json_table(entry / _SUMMARY))
        return summary if hash_file(entry / _TABLE) == summary.sha256 else None
    except (OSError, ValueError, TypeError):
        return None


def _build(entry: Path, request: _Request) -> _Summary:
    """Read the source into a temporary directory, and rename it to `entry` once it is complete."""
    try:
        with building_in(entry.parent):
            partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=entry.parent))
            try:
                summary = _read_into(partial, request)
                (partial / _SUMMARY).write_text(json.dumps(asdict(summary)), encoding="utf-8")
                sync_directory(partial)
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
    parser = row_parser(opened, request.source, options, name=name, labelled=request.labelled)
    bad_rows = folder / _BAD_ROWS
    columns = parser.columns
    writer = TableWriter(
        folder / _TABLE, has_pairs=columns.is_pair, is_multi_label=parser.is_multi_label
    )
    with writer as table, bad_rows.open("w", encoding="utf-8") as bad_rows_file:
        log = BadRowLog(bad_rows_file, name)
        records = iter(opened.records(columns.every))
        first = list(islice(records, 1))
        notes = [
            columns.note,
            *(f"{name}: {note}" for each in first if (note := parser.note_on(each))),
        ]
        read = _stream(chain(first, records), parser, table, log, options.on_bad_row)
    if not table.rows:
        if log.rows and request.bad_rows_copy is not None:
            copy_bad_rows(bad_rows, request.bad_rows_copy)
        reason = "the source has no rows"
        if read:
            reason = f"none of its {read} rows can be used; the first problem: {log.first_problem}"
        raise DataError(f"{name}: {reason}")
    digest = hash_file(folder / _TABLE)
    return _Summary(table.fingerprint(), read, log.rows, "; ".join(filter(None, notes)), digest)


def _stream(
    records: Iterator[Record],
    parser: RowParser,
    table: TableWriter,
    log: BadRowLog,
    on_bad_row: OnBadRow,
) -> int:
    """Write every record to the table or the log of bad rows; return their number."""
    read = 0
    for record in records:
        read += 1
        try:
            row = parser(record)
        except BadRow as problem:
            if on_bad_row == "stop":
                raise log.error(record, problem, following=records, parser=parser) from None
            log.add(record, problem)
        else:
            table.add(row, record.number)
    return read
