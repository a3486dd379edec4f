"""Parquet, streamed: one batch of rows in memory at a time, and only the requested columns."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow.parquet as pq

from pennyweight.data.read.arrow import (
    ROWS_PER_BATCH,
    batch_records,
    class_names,
    existing_columns,
    translated_errors,
)
from pennyweight.data.read.record import Columns, OpenFile, Record

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["open_parquet"]


def open_parquet(path: Path, split: str | None) -> OpenFile:
    """Open a Parquet file.

    Raises:
        DataError: the file is not Parquet, or damaged.
    """
    with translated_errors(path, "Parquet"):
        schema = pq.read_schema(path)
        available = tuple(schema.names)
        # Parquet files from the hub store their features, including class names, as metadata.
        names = class_names(schema)

    def records(requested: Columns | None) -> Iterator[Record]:
        first = 1
        with translated_errors(path, "Parquet"), pq.ParquetFile(path) as file:
            columns = existing_columns(available, requested)
            for batch in file.iter_batches(batch_size=ROWS_PER_BATCH, columns=columns):
                yield from batch_records(batch, first=first)
                first += batch.num_rows

    return OpenFile(available, records, names)
