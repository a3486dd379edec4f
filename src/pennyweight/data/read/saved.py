"""Read a directory that `datasets` wrote with `save_to_disk`, memory-mapped."""

from __future__ import annotations

from pathlib import PurePath
from typing import TYPE_CHECKING

import datasets
import pyarrow as pa

from pennyweight.data.read.arrow import (
    RecordStream,
    as_bytes,
    class_names,
    decoded_bytes,
    existing_columns,
    rows_per_batch,
    translated_errors,
)
from pennyweight.data.read.record import Columns, OpenFile, Record
from pennyweight.data.read.storage import AnyFile, local_path
from pennyweight.documents import printable, read_json_table
from pennyweight.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["is_saved", "open_dataset", "open_saved"]

_SPLITS = "dataset_dict.json"
_STATE = "state.json"
_KIND = "a directory written by datasets' save_to_disk"


def is_saved(path: Path) -> bool:
    """Return whether a directory looks like one that `save_to_disk` wrote."""
    return (path / _SPLITS).is_file() or (path / _STATE).is_file()


def open_saved(path: AnyFile, split: str | None) -> OpenFile:
    """Open a saved Dataset, or one split of a saved DatasetDict.

    Raises:
        DataError: there is no such directory or split, or it is damaged.
    """
    folder = path = local_path(path)
    with translated_errors(path, _KIND):
        if (path / _SPLITS).is_file():
            folder = path / _file_name(_check_split(path, split))
        elif split is not None:
            raise DataError(f'{path}: the directory has only one split; leave out ":{split}"')
        for file in read_json_table(folder / _STATE)["_data_files"]:
            _file_name(file["filename"])
        dataset = datasets.load_from_disk(str(folder), keep_in_memory=False)
    return open_dataset(dataset, name=str(path))


def _file_name(name: object) -> str:
    """Return a name in the directory's own JSON if it is that of a file beside it.

    Raises:
        ValueError: it is something else, such as a path that leads out of the directory.
    """
    if not isinstance(name, str) or name != PurePath(name).name or name in ("", "..", "."):
        raise ValueError(f"{printable(name)}: not the name of a file in the directory")
    return name


def _check_split(path: Path, split: str | None) -> str:
    splits = read_json_table(path / _SPLITS)["splits"]
    names = ", ".join(map(str, splits))
    if split is None:
        raise DataError(
            f"{path}: the directory has the splits {names}; name one, as in {path}:{splits[0]}"
        )
    if split not in splits:
        raise DataError(f'{path}: no split "{split}"; available: {names}')
    return split


def open_dataset(dataset: datasets.Dataset, *, name: str) -> OpenFile:
    """Return a Dataset in the form of an open file; `name` is its name in messages."""
    return OpenFile(
        tuple(dataset.column_names),
        lambda requested: _records(dataset, requested, name=name),
        class_names(dataset.features.arrow_schema),
        rows=len(dataset),
        schema=dataset.features.arrow_schema,
    )


def _records(
    dataset: datasets.Dataset, requested: Columns | None, *, name: str
) -> Iterator[Record]:
    """Stream the rows in the Dataset's order, which may be a permutation of the stored one."""
    stream = RecordStream(name)
    longest = 0
    with translated_errors(name, _KIND):
        columns = existing_columns(tuple(dataset.column_names), requested)
        for column in columns:
            for chunk in dataset.data.column(column).chunks:
                # Offsets in a memory-mapped file are not checked by Arrow; a wrong one could read
                # memory outside the buffer.
                as_bytes(chunk).validate(full=True)
                longest = max(longest, int(decoded_bytes(chunk).max(initial=0)))
        tables = dataset.select_columns(columns).with_format("arrow")
        for table in tables.iter(batch_size=rows_per_batch(longest * len(columns))):
            for batch in _as_table(table).combine_chunks().to_batches():
                yield from stream.of(batch)


def _as_table(table: object) -> pa.Table:
    if not isinstance(table, pa.Table):
        raise DataError("the rows are not an Arrow table")
    return table
