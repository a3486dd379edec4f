"""Parquet, streamed: one batch of rows in memory at a time, and only the requested columns."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow.parquet as pq

from pennyweight.data.read.arrow import (
    MOST_UNPACKED,
    ROWS_PER_BATCH,
    RecordStream,
    class_names,
    existing_columns,
    translated_errors,
)
from pennyweight.data.read.record import Columns, OpenFile, Record
from pennyweight.errors import DataError
from pennyweight.limits import MOST_EXPANSION

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
        stream = RecordStream(path)
        columns = existing_columns(available, requested)
        with translated_errors(path, "Parquet"):
            # A dictionary stays one: decoded, a small file could fill the memory.
            texts = _text_columns(path)
            with pq.ParquetFile(path, read_dictionary=texts) as file:
                _check_expansion(path, file.metadata)
                for batch in file.iter_batches(batch_size=ROWS_PER_BATCH, columns=columns):
                    yield from stream.of(batch)

    return OpenFile(available, records, names)


def _text_columns(path: Path) -> list[str]:
    schema = pq.read_metadata(path).schema
    columns = (schema.column(index) for index in range(len(schema)))
    return [column.path for column in columns if column.physical_type == "BYTE_ARRAY"]


def _check_expansion(path: Path, metadata: pq.FileMetaData) -> None:
    """Refuse a file whose rows take far more memory than its compressed bytes.

    Raises:
        DataError: it has such a group of rows.
    """
    most = max(MOST_UNPACKED, MOST_EXPANSION * path.stat().st_size)
    for group in range(metadata.num_row_groups):
        # Not by column: pyarrow ends the process at a column whose statistics are damaged.
        unpacked = metadata.row_group(group).total_byte_size
        if unpacked > most:
            raise DataError(
                f"{path}: a group of its rows unpacks to {unpacked:,} bytes, more than "
                f"{MOST_EXPANSION} times the size of the file; write it without compression, if it "
                "is right"
            )
