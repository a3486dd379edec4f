"""The memory-mapped table of a source's rows, written in batches."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa

from pennyweight.data.fingerprint import Fingerprint

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pennyweight.data.row import Row

__all__ = ["TableWriter"]

_ROWS_PER_BATCH = 10_000
_BYTES_PER_BATCH = 16 * 2**20


class TableWriter:
    """Writes rows to an Arrow stream in batches, and computes their fingerprint on the way.

    Args:
        path: the file to write.
        has_pairs: whether every row is a pair of texts.
        is_multi_label: whether labels are lists.
    """

    def __init__(self, path: Path, *, has_pairs: bool, is_multi_label: bool) -> None:
        label = pa.list_(pa.int64()) if is_multi_label else pa.int64()
        pair = [("text_pair", pa.string())] if has_pairs else []
        self._schema = pa.schema(
            [("text", pa.string()), *pair, ("label", label), ("row", pa.int64())]
        )
        self._sink = pa.OSFile(str(path), "wb")
        self._stream = pa.ipc.new_stream(self._sink, self._schema)
        self._fingerprint = Fingerprint()
        self._rows: list[Row] = []
        self._numbers: list[int] = []
        self._bytes = 0
        self.rows = 0

    def __enter__(self) -> TableWriter:
        return self

    def __exit__(self, *error: object) -> None:
        self._flush()
        self._stream.close()
        self._sink.close()

    def add(self, row: Row, number: int) -> None:
        """Add a row and its number in the source."""
        self._rows.append(row)
        self._numbers.append(number)
        self._bytes += len(row.text) + len(row.text_pair or b"")
        self.rows += 1
        if len(self._rows) == _ROWS_PER_BATCH or self._bytes > _BYTES_PER_BATCH:
            self._flush()

    def fingerprint(self) -> str:
        """Return the fingerprint of the rows that have been flushed."""
        return self._fingerprint.hexdigest()

    def _flush(self) -> None:
        if not self._rows:
            return
        texts, pairs, labels = (list(column) for column in zip(*self._rows, strict=True))
        has_pairs = "text_pair" in self._schema.names
        self._fingerprint.update(texts, labels, pairs if has_pairs else None)
        columns = {"text": texts, "text_pair": pairs, "label": labels, "row": self._numbers}
        arrays = [_array(columns[field.name], field.type) for field in self._schema]
        self._stream.write_batch(pa.record_batch(arrays, schema=self._schema))
        self._rows, self._numbers, self._bytes = [], [], 0


def _array(values: Sequence[object], kind: pa.DataType) -> pa.Array:
    if pa.types.is_string(kind):
        return pa.array(values, pa.binary()).cast(kind)
    return pa.array(values, kind)
