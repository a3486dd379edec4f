"""A pickled `datasets.Dataset`, read without unpickling: see `opcodes` and `rebuild`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pennyweight.data.read.arrow import ROWS_PER_BATCH, batch_records, chosen, translated_errors
from pennyweight.data.read.opcodes import replay
from pennyweight.data.read.rebuild import PickledDataset, rebuild
from pennyweight.data.read.record import Columns, Opened, Record
from pennyweight.errors import UnsafePickleError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import pyarrow as pa

__all__ = ["open_pickle"]

_KIND = "a pickled datasets.Dataset"


def open_pickle(path: Path, split: str | None) -> Opened:
    """Opens a pickled Dataset of plain columns; nothing in the file is executed.

    The buffers of its columns are held in memory, as the pickle holds them; rows are streamed.

    Raises:
        UnsafePickleError: the pickle asks for more than plain columns need.
        DataError: it is damaged, or no Dataset.
    """
    with translated_errors(path, _KIND):
        root = replay(path)
        try:
            # The shortest row is a single bit of a column of truth values.
            dataset = rebuild(root, max_rows=8 * path.stat().st_size)
        except UnsafePickleError as error:
            raise UnsafePickleError(f"{path}: {error}; nothing of it was executed") from None
    return Opened(
        tuple(dataset.table.column_names),
        lambda wanted: _records(dataset, wanted, path=path),
        dataset.class_names,
    )


def _records(dataset: PickledDataset, wanted: Columns | None, *, path: Path) -> Iterator[Record]:
    first = 1
    with translated_errors(path, _KIND):
        table = dataset.table.select(chosen(tuple(dataset.table.column_names), wanted))
        for part in _parts(table, dataset.order):
            for batch in part.combine_chunks().to_batches():
                yield from batch_records(batch, first=first)
                first += batch.num_rows


def _parts(table: pa.Table, order: pa.ChunkedArray | None) -> Iterator[pa.Table]:
    rows = table.num_rows if order is None else len(order)
    for start in range(0, rows, ROWS_PER_BATCH):
        if order is None:
            yield table.slice(start, ROWS_PER_BATCH)
        else:
            yield table.take(order.slice(start, ROWS_PER_BATCH))
