"""Functions shared by the Arrow formats: batches become records, Arrow's errors DataErrors."""

from __future__ import annotations

import json
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pennyweight.data.read.record import Columns, Record
from pennyweight.data.read.storage import AnyFile, RemoteFile, size_of
from pennyweight.errors import DataError, PennyweightError
from pennyweight.limits import MOST_EXPANSION, limit

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "MOST_UNPACKED",
    "ROWS_PER_BATCH",
    "RecordStream",
    "as_bytes",
    "class_names",
    "decoded_bytes",
    "existing_columns",
    "rows_per_batch",
    "translated_errors",
]

ROWS_PER_BATCH = 1000
_BYTES_PER_BATCH = 64 * 2**20
_ROW, _EXPANDED = "PENNYWEIGHT_MAX_ROW_MIB", "PENNYWEIGHT_MAX_EXPANDED_MIB"
# What a column of a row group may unpack to in any case.
MOST_UNPACKED = 64 * 2**20
_NOT_UTF8 = r"invalid UTF-8 (such bytes are shown as \xNN)"


@contextmanager
def translated_errors(path: AnyFile | str, kind: str) -> Iterator[None]:
    """Turn what pyarrow and datasets raise on a damaged file into a one-line DataError."""
    try:
        yield
    except PennyweightError:
        raise
    except Exception as error:
        detail = " ".join(str(error).split())[:200]
        raise DataError(f"{path}: cannot be read as {kind}: {detail}") from error


def existing_columns(available: Columns, requested: Columns | None) -> list[str]:
    """Return the requested columns that exist, each once; all of them if None are requested."""
    if requested is None:
        return list(available)
    return list(dict.fromkeys(column for column in requested if column in available))


def class_names(schema: pa.Schema) -> dict[str, tuple[str, ...]]:
    """Return the class names of columns of ClassLabel, or of lists of it.

    `datasets` stores them as metadata.
    """
    try:
        metadata = json.loads((schema.metadata or {})[b"huggingface"])
        features = metadata["info"]["features"].items()
        names = ((column, _names_of(feature)) for column, feature in features)
        return {column: each for column, each in names if each}
    except (AttributeError, LookupError, TypeError, ValueError):
        return {}


def _names_of(feature: object) -> tuple[str, ...]:
    """Return the class names of a feature; () if it has none."""
    if isinstance(feature, list) and len(feature) == 1:
        return _names_of(feature[0])
    if not isinstance(feature, dict):
        return ()
    if feature.get("_type") in {"List", "LargeList", "Sequence"}:
        return _names_of(feature.get("feature"))
    return tuple(map(str, feature["names"])) if feature.get("_type") == "ClassLabel" else ()


def as_bytes(array: pa.Array) -> pa.Array:
    """View an array of strings as binary, so that its offsets can be checked apart from UTF-8."""
    if pa.types.is_string(array.type):
        return array.view(pa.binary())
    if pa.types.is_large_string(array.type):
        return array.view(pa.large_binary())
    return array


def decoded_bytes(array: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """Return how many bytes of text each row of a column has once it is decoded, int64 `[rows]`.

    A dictionary stores a text once for any number of rows, and so may the indices of a selection.
    """
    if isinstance(array, pa.ChunkedArray):
        parts = [decoded_bytes(chunk) for chunk in array.chunks]
        return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)
    kind = array.type
    if pa.types.is_dictionary(kind):
        of_values = np.append(decoded_bytes(array.dictionary), 0)
        return of_values[pc.fill_null(array.indices, len(of_values) - 1).to_numpy(False)]
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy(False)
        ends = np.cumsum(lengths, dtype=np.int64)
        totals = np.append(0, np.cumsum(decoded_bytes(array.flatten())))
        return totals[ends] - totals[ends - lengths]
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_binary(kind):
        lengths = pc.binary_length(as_bytes(array))
        return pc.fill_null(lengths, 0).to_numpy(False).astype(np.int64)
    return np.zeros(len(array), dtype=np.int64)


def rows_per_batch(longest: int) -> int:
    """Return how many rows are decoded at once, if one has up to `longest` bytes."""
    return max(1, min(ROWS_PER_BATCH, _BYTES_PER_BATCH // max(longest, 1)))


class RecordStream:
    """Numbers the rows of a file, and limits what a small file may cost.

    Args:
        path: the file or directory.
        start: number of rows of the file before the first one.
    """

    def __init__(self, path: AnyFile | str, *, start: int = 0) -> None:
        self._path = path
        self._first = start + 1
        self._bytes = 0
        self._most = max(limit(_EXPANDED), MOST_EXPANSION * _size_of(path))

    def of(self, batch: pa.RecordBatch) -> Iterator[Record]:
        """Yield one record per row of a batch, whose numbers follow on those before.

        A string that is not UTF-8, or is too long, makes its own row bad and no other.

        Raises:
            DataError: the rows hold far more than the file.
        """
        sizes = [decoded_bytes(array) for array in batch.columns]
        per_row = np.sum(sizes, axis=0) if sizes else np.zeros(batch.num_rows, dtype=np.int64)
        step = rows_per_batch(int(per_row.max(initial=0)))
        for start in range(0, batch.num_rows, step):
            self._bytes += int(per_row[start : start + step].sum())
            if self._bytes > self._most:
                raise DataError(
                    f"{self._path}: its rows hold more than {MOST_EXPANSION} times the size of "
                    f"the file; if they are right, raise {_EXPANDED}"
                )
            too_long = per_row[start : start + step] > limit(_ROW)
            yield from self._records(batch.slice(start, step), too_long)
            self._first += min(step, batch.num_rows - start)

    def _records(self, batch: pa.RecordBatch, too_long: np.ndarray) -> Iterator[Record]:
        columns: list[list[object]] = []
        problems: dict[int, str] = {}
        for array in batch.columns:
            if too_long.any():
                array = pc.if_else(pa.array(~too_long), array, pa.scalar(None, array.type))
            if pa.types.is_dictionary(array.type):
                array = array.dictionary_decode()
            try:
                columns.append(array.to_pylist())
            except UnicodeDecodeError:
                values = as_bytes(array).to_pylist()
                bad = (row for row, value in enumerate(values) if not _is_utf8(value))
                problems.update(dict.fromkeys(bad, _NOT_UTF8))
                columns.append([_decoded(value) for value in values])
        longest = f"longer than {limit(_ROW):,} bytes; if it is right, raise {_ROW}"
        problems.update(dict.fromkeys(np.flatnonzero(too_long).tolist(), longest))
        names = batch.schema.names
        for row in range(batch.num_rows):
            values = {name: column[row] for name, column in zip(names, columns, strict=True)}
            yield Record(self._first + row, None, values, problems.get(row))


def _size_of(file: AnyFile | str) -> int:
    if isinstance(file, RemoteFile):
        return size_of(file)
    path = Path(file)
    if path.is_dir():
        return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return path.stat().st_size if path.is_file() else 0


def _is_utf8(value: bytes | None) -> bool:
    try:
        return value is None or value.decode() is not None
    except UnicodeDecodeError:
        return False


def _decoded(value: bytes | None) -> str | None:
    return None if value is None else value.decode(errors="backslashreplace")
