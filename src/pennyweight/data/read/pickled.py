"""Read a pickled `datasets.Dataset` without unpickling it; see `opcodes` and `rebuild`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pennyweight.data.read.arrow import (
    RecordStream,
    decoded_bytes,
    existing_columns,
    rows_per_batch,
    translated_errors,
)
from pennyweight.data.read.opcodes import replay
from pennyweight.data.read.rebuild import PickledDataset, rebuild
from pennyweight.data.read.record import Columns, OpenFile, Record
from pennyweight.data.read.storage import AnyFile, local_path
from pennyweight.errors import UnsafePickleError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import pyarrow as pa

__all__ = ["open_pickle"]

_KIND = "a pickled datasets.Dataset"


def open_pickle(path: AnyFile, split: str | None) -> OpenFile:
    """Open a pickled Dataset of plain columns without executing any code in the file.

    The buffers of its columns are held in memory, as they are in the pickle; rows are streamed.

    Raises:
        UnsafePickleError: the pickle uses more than plain columns need.
        DataError: the pickle is damaged, or is not a Dataset.
    """
    path = local_path(path)
    with translated_errors(path, _KIND):
        root = replay(path)
        try:
            # The smallest row is one bit, in a boolean column.
            dataset = rebuild(root, max_rows=8 * path.stat().st_size)
        except UnsafePickleError as error:
            raise UnsafePickleError(f"{path}: {error}; no code in it was executed") from None
    return OpenFile(
        tuple(dataset.table.column_names),
        lambda requested: _records(dataset, requested, path=path),
        dataset.class_names,
    )


def _records(dataset: PickledDataset, requested: Columns | None, *, path: Path) -> Iterator[Record]:
    stream = RecordStream(path)
    with translated_errors(path, _KIND):
        available = tuple(dataset.table.column_names)
        table = dataset.table.select(existing_columns(available, requested))
        for part in _parts(table, dataset.order):
            for batch in part.combine_chunks().to_batches():
                yield from stream.of(batch)


def _parts(table: pa.Table, order: pa.ChunkedArray | None) -> Iterator[pa.Table]:
    rows = table.num_rows if order is None else len(order)
    # All indices may point to the longest row.
    longest = sum(int(decoded_bytes(column).max(initial=0)) for column in table.columns)
    step = rows_per_batch(longest)
    for start in range(0, rows, step):
        if order is None:
            yield table.slice(start, step)
        else:
            yield table.take(order.slice(start, step))
