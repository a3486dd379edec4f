"""Parquet, streamed: one batch of rows in memory at a time, and only the wanted columns."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow.parquet as pq

from pennyweight.data.read.arrow import (
    ROWS_PER_BATCH,
    batch_records,
    chosen,
    class_names,
    translated_errors,
)
from pennyweight.data.read.record import Columns, Opened, Record

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["open_parquet"]


def open_parquet(path: Path, split: str | None) -> Opened:
    """Opens a Parquet file.

    Raises:
        DataError: it is no Parquet file, or damaged.
    """
    with translated_errors(path, "Parquet"):
        schema = pq.read_schema(path)
        available = tuple(schema.names)
        # The hub's Parquet files carry their features, with the names of classes, as metadata.
        names = class_names(schema)

    def records(wanted: Columns | None) -> Iterator[Record]:
        first = 1
        with translated_errors(path, "Parquet"), pq.ParquetFile(path) as file:
            columns = chosen(available, wanted)
            for batch in file.iter_batches(batch_size=ROWS_PER_BATCH, columns=columns):
                yield from batch_records(batch, first=first)
                first += batch.num_rows

    return Opened(available, records, names)
