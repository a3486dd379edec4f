"""Files into rows: one reader a file, all in the table `READERS`.

Reading streams: no reader holds a file's rows in memory. A row that cannot be used comes out as a
record with a problem, in its place, so that the caller decides what a bad row does.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from pennyweight.data.read.ag_news import open_ag_news
from pennyweight.data.read.delimited import open_csv, open_tsv
from pennyweight.data.read.detect import format_of
from pennyweight.data.read.jsonl import open_jsonl
from pennyweight.data.read.parquet import open_parquet
from pennyweight.data.read.pickled import open_pickle
from pennyweight.data.read.record import Columns, Opened, Reader, Record
from pennyweight.data.read.saved import open_saved
from pennyweight.data.read.text import open_lines
from pennyweight.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "READERS",
    "Columns",
    "Opened",
    "Reader",
    "Record",
    "detect",
    "existing",
    "open_file",
    "records",
]

READERS = MappingProxyType(
    {
        reader.name: reader
        for reader in (
            Reader(
                "ag_news_csv",
                "AG News' own CSV: no header; class from 1, title, description",
                (".csv",),
                open_ag_news,
            ),
            Reader("csv", "comma-separated, first row names the columns", (".csv",), open_csv),
            Reader("tsv", "tab-separated, first row names the columns", (".tsv", ".tab"), open_tsv),
            Reader("jsonl", "one JSON object a line", (".jsonl", ".ndjson"), open_jsonl),
            Reader("parquet", "Parquet, streamed", (".parquet", ".pq"), open_parquet),
            Reader("datasets", "a directory of datasets' save_to_disk", (), open_saved),
            Reader("lines", "one text a line", (".txt",), open_lines),
            Reader(
                "pickle",
                "a pickled datasets.Dataset of plain columns; nothing in it is executed",
                (".pkl", ".pickle"),
                open_pickle,
            ),
        )
    }
)


def detect(path: str | Path) -> str:
    """Which format of `READERS` a path has, by its content and its ending.

    Raises:
        DataError: there is no such file, or its format cannot be told.
    """
    path = existing(Path(path))
    endings: dict[str, str] = {}
    for reader in READERS.values():
        endings.update(dict.fromkeys(reader.endings, reader.name))
    try:
        return format_of(path, endings)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from error


def open_file(path: str | Path, *, format: str | None = None, split: str | None = None) -> Opened:  # noqa: A002
    """Opens a file or directory with the reader of a format.

    Args:
        path: the file, or the directory that `save_to_disk` wrote.
        format: a name in `READERS`; None to detect it.
        split: which split of a saved DatasetDict.

    Raises:
        DataError: there is no such file or format, or the file cannot be read as it.
    """
    path = existing(Path(path))
    name = format or detect(path)
    if name not in READERS:
        raise DataError(f'no format "{name}"; there are {", ".join(READERS)}')
    if split is not None and name != "datasets":
        raise DataError(f'{path}: a {name} file has no splits; leave ":{split}" out')
    try:
        return READERS[name].open(path, split)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from error


def records(
    path: str | Path,
    *,
    format: str | None = None,  # noqa: A002
    split: str | None = None,
    columns: Columns | None = None,
) -> Iterator[Record]:
    """Streams the rows of a file, good and bad; see `open_file`.

    Args:
        path: the file or directory.
        format: a name in `READERS`; None to detect it.
        split: which split of a saved DatasetDict.
        columns: the columns wanted; formats that can, read no others.
    """
    return open_file(path, format=format, split=split).records(columns)


def existing(path: Path) -> Path:
    """The path, if there is something.

    Raises:
        DataError: there is nothing, and which file of that folder is near; or no permission.
    """
    folder = path.parent
    try:
        if path.exists():
            return path
        if not folder.is_dir():
            raise DataError(f"{path}: no such file; the folder {folder} does not exist either")
        names = sorted(entry.name for entry in folder.iterdir())
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from error
    near = difflib.get_close_matches(path.name, names, n=1)
    hint = f'; did you mean "{folder / near[0]}"?' if near else ""
    raise DataError(f"{path}: no such file{hint}")
