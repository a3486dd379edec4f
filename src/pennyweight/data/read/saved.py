"""A directory that `datasets` wrote with `save_to_disk`, memory-mapped."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import datasets
import pyarrow as pa

from pennyweight.data.read.arrow import (
    ROWS_PER_BATCH,
    as_bytes,
    batch_records,
    chosen,
    class_names,
    translated_errors,
)
from pennyweight.data.read.record import Columns, Opened, Record
from pennyweight.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["is_saved", "open_saved", "opened_dataset"]

_SPLITS = "dataset_dict.json"
_STATE = "state.json"
_KIND = "a directory of datasets' save_to_disk"


def is_saved(path: Path) -> bool:
    """Whether a directory looks like one that `save_to_disk` wrote."""
    return (path / _SPLITS).is_file() or (path / _STATE).is_file()


def open_saved(path: Path, split: str | None) -> Opened:
    """Opens a saved Dataset, or the named split of a saved DatasetDict.

    Raises:
        DataError: no such directory or split, or a damaged one.
    """
    folder = path
    with translated_errors(path, _KIND):
        if (path / _SPLITS).is_file():
            folder = path / _chosen_split(path, split)
        elif split is not None:
            raise DataError(f'{path}: holds one split only; leave ":{split}" out')
        dataset = datasets.load_from_disk(str(folder), keep_in_memory=False)
    return opened_dataset(dataset, name=str(path))


def _chosen_split(path: Path, split: str | None) -> str:
    splits = json.loads((path / _SPLITS).read_text(encoding="utf-8"))["splits"]
    names = ", ".join(map(str, splits))
    if split is None:
        raise DataError(f"{path}: holds the splits {names}; name one as {path}:{splits[0]}")
    if split not in splits:
        raise DataError(f'{path}: no split "{split}"; there are {names}')
    return split


def opened_dataset(dataset: datasets.Dataset, *, name: str) -> Opened:
    """A Dataset as every other opened file; `name` is what messages call it."""
    return Opened(
        tuple(dataset.column_names),
        lambda wanted: _records(dataset, wanted, name=name),
        class_names(dataset.features.arrow_schema),
    )


def _records(dataset: datasets.Dataset, wanted: Columns | None, *, name: str) -> Iterator[Record]:
    """Streams rows in the Dataset's order, with or without a permutation, batch by batch."""
    first = 1
    with translated_errors(name, _KIND):
        columns = chosen(tuple(dataset.column_names), wanted)
        for column in columns:
            for chunk in dataset.data.column(column).chunks:
                # Memory-mapped offsets are somebody's bytes; a wrong one would read anywhere.
                as_bytes(chunk).validate(full=True)
        tables = dataset.select_columns(columns).with_format("arrow")
        for table in tables.iter(batch_size=ROWS_PER_BATCH):
            for batch in _as_table(table).combine_chunks().to_batches():
                yield from batch_records(batch, first=first)
                first += batch.num_rows


def _as_table(table: object) -> pa.Table:
    if not isinstance(table, pa.Table):
        raise DataError("rows that are no Arrow table")
    return table
