"""Readers of row files: one module per format, all listed in the table `READERS`.

Readers stream and never hold all rows in memory. A row that cannot be read becomes a record with a
problem, in its place among the others, and the caller decides what to do about it.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection
from pathlib import Path
from types import MappingProxyType

from pennyweight.data.read.ag_news import open_ag_news
from pennyweight.data.read.delimited import open_csv, open_tsv
from pennyweight.data.read.detect import format_of
from pennyweight.data.read.jsonl import open_jsonl
from pennyweight.data.read.parquet import open_parquet
from pennyweight.data.read.pickled import open_pickle
from pennyweight.data.read.record import (
    FIRST_ROW,
    Columns,
    OpenFile,
    Position,
    Reader,
    Record,
)
from pennyweight.data.read.saved import open_saved
from pennyweight.data.read.storage import AnyFile, PeekedFile, RemoteFile
from pennyweight.data.read.text import open_lines
from pennyweight.errors import DataError

__all__ = [
    "FIRST_ROW",
    "MOST_COLUMNS",
    "READERS",
    "AnyFile",
    "Columns",
    "OpenFile",
    "PeekedFile",
    "Position",
    "Reader",
    "Record",
    "RemoteFile",
    "check_columns",
    "detect",
    "existing_path",
    "open_file",
]

# Every row becomes a table of all its columns.
MOST_COLUMNS = 10_000

READERS = MappingProxyType(
    {
        reader.name: reader
        for reader in (
            Reader(
                "ag_news_csv",
                "the original AG News CSV: no header; class from 1, title, description",
                (".csv",),
                open_ag_news,
            ),
            Reader(
                "csv",
                "values with a header, separated by commas, semicolons or tabs",
                (".csv",),
                open_csv,
            ),
            Reader("tsv", "tab-separated values with a header", (".tsv", ".tab"), open_tsv),
            Reader("jsonl", "one JSON object per line", (".jsonl", ".ndjson"), open_jsonl),
            Reader("parquet", "Apache Parquet", (".parquet", ".pq"), open_parquet),
            Reader("datasets", "a directory written by datasets' save_to_disk", (), open_saved),
            Reader("lines", "plain text, one text per line", (".txt",), open_lines),
            Reader(
                "pickle",
                "a pickled datasets.Dataset of plain columns; no code in it is executed",
                (".pkl", ".pickle"),
                open_pickle,
            ),
        )
    }
)


def detect(path: str | AnyFile) -> str:
    """Return the name in `READERS` of a path's format, judged by its content and its ending.

    Raises:
        DataError: there is no such file, or its format cannot be detected.
    """
    if not isinstance(path, RemoteFile):
        path = existing_path(Path(path))
    endings: dict[str, str] = {}
    for reader in READERS.values():
        endings.update(dict.fromkeys(reader.endings, reader.name))
    try:
        return format_of(path, endings)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from error


def open_file(
    path: str | AnyFile,
    *,
    format: str | None = None,  # noqa: A002
    split: str | None = None,
) -> OpenFile:
    """Open a file or directory with the reader of its format.

    Args:
        path: the file, a remote file, or a directory that `save_to_disk` wrote.
        format: a name in `READERS`; None to detect it.
        split: the split of a saved DatasetDict; None for every other source.

    Raises:
        DataError: there is no such file or format, or the file does not have that format.
    """
    if not isinstance(path, RemoteFile):
        path = existing_path(Path(path))
    name = format or detect(path)
    if name not in READERS:
        raise DataError(f'unknown format "{name}"; available: {", ".join(READERS)}')
    if split is not None and name != "datasets":
        raise DataError(f'{path}: a file of format {name} has no splits; leave out ":{split}"')
    try:
        opened = READERS[name].open(path, split)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from error
    check_columns(opened.columns, str(path))
    return opened


def check_columns(columns: Collection[str], name: str) -> None:
    """Refuse a file with very many columns.

    Args:
        columns: of the file.
        name: of the file, for the message.

    Raises:
        DataError: there are more than 10,000.
    """
    if len(columns) > MOST_COLUMNS:
        raise DataError(
            f"{name}: {len(columns):,} columns; allowed: {MOST_COLUMNS:,}; keep only the "
            "columns with texts and labels"
        )


def existing_path(path: Path) -> Path:
    """Return the path if it exists.

    Raises:
        DataError: it does not exist, in which case the message suggests a similar name from the
            same folder; or it cannot be accessed.
    """
    folder = path.parent
    try:
        if path.is_file() or path.is_dir():
            return path
        if path.exists():
            raise DataError(f"{path}: a pipe or a device, not a file; write the rows to a file")
        if not folder.is_dir():
            raise DataError(f"{path}: no such file; the folder {folder} does not exist either")
        names = sorted(entry.name for entry in folder.iterdir())
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from error
    if any(sign in path.name for sign in "*?["):
        raise DataError(f"{path}: no such file; patterns are for predict: name one file here")
    similar = difflib.get_close_matches(path.name, names, n=1)
    hint = f'; did you mean "{folder / similar[0]}"?' if similar else ""
    raise DataError(f"{path}: no such file{hint}")
