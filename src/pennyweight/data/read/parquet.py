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
from pennyweight.data.read.record import FIRST_ROW, OpenFile, Position, Record
from pennyweight.data.read.storage import AnyFile, open_bytes, size_of
from pennyweight.errors import DataError
from pennyweight.limits import MOST_EXPANSION

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pennyweight.data.read.record import Columns

__all__ = ["open_parquet"]


def open_parquet(path: AnyFile, split: str | None) -> OpenFile:
    """Open a Parquet file.

    Raises:
        DataError: the file is not Parquet, or damaged.
    """
    with translated_errors(path, "Parquet"), open_bytes(path) as file:
        metadata = pq.read_metadata(file)
        schema = metadata.schema.to_arrow_schema()
    available = tuple(schema.names)

    def records(requested: Columns | None, start: Position = FIRST_ROW) -> Iterator[Record]:
        columns = existing_columns(available, requested)
        with translated_errors(path, "Parquet"):
            _check_expansion(path, metadata)
            yield from _records(path, metadata, columns, start.row)

    return OpenFile(
        available,
        records,
        # Parquet files from the hub store their features, including class names, as metadata.
        class_names(schema),
        records_from=records,
        rows=metadata.num_rows,
        schema=schema,
    )


def _records(
    path: AnyFile, metadata: pq.FileMetaData, columns: list[str], start: int
) -> Iterator[Record]:
    """Stream the rows that follow the first `start` rows; groups before them are not read."""
    groups, skipped = list(range(metadata.num_row_groups)), start
    while groups and skipped >= (rows := metadata.row_group(groups[0]).num_rows):
        skipped -= rows
        groups.pop(0)
    stream = RecordStream(path, start=start)
    # A dictionary stays one: decoded, a small file could fill the memory.
    texts = _text_columns(metadata)
    with open_bytes(path) as file, pq.ParquetFile(file, read_dictionary=texts) as opened:
        # One group at a time: Arrow cannot join the dictionaries of several in nested columns.
        for group in groups:
            for batch in opened.iter_batches(ROWS_PER_BATCH, row_groups=[group], columns=columns):
                dropped = min(skipped, batch.num_rows)
                skipped -= dropped
                yield from stream.of(batch.slice(dropped))


def _text_columns(metadata: pq.FileMetaData) -> list[str]:
    columns = (metadata.schema.column(index) for index in range(len(metadata.schema)))
    return [column.path for column in columns if column.physical_type == "BYTE_ARRAY"]


def _check_expansion(path: AnyFile, metadata: pq.FileMetaData) -> None:
    """Refuse a file whose rows take far more memory than its compressed bytes.

    Raises:
        DataError: it has such a group of rows.
    """
    most = max(MOST_UNPACKED, MOST_EXPANSION * size_of(path))
    for group in range(metadata.num_row_groups):
        # Not by column: pyarrow ends the process at a column whose statistics are damaged.
        unpacked = metadata.row_group(group).total_byte_size
        if unpacked > most:
            raise DataError(
                f"{path}: a group of its rows unpacks to {unpacked:,} bytes, more than "
                f"{MOST_EXPANSION} times the size of the file; write it without compression, if it "
                "is right"
            )
