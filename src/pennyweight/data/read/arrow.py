"""What the Arrow formats share: batches into records, and Arrow's many errors into ours."""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pyarrow as pa

from pennyweight.data.read.record import Columns, Record
from pennyweight.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = [
    "ROWS_PER_BATCH",
    "as_bytes",
    "batch_records",
    "chosen",
    "class_names",
    "translated_errors",
]

ROWS_PER_BATCH = 1000


@contextmanager
def translated_errors(path: Path | str, kind: str) -> Iterator[None]:
    """Turns what pyarrow and datasets raise on a damaged file into a DataError of one line."""
    try:
        yield
    except (
        pa.ArrowException,
        IndexError,
        KeyError,
        NotImplementedError,
        OSError,
        OverflowError,
        TypeError,
        ValueError,
    ) as error:
        detail = " ".join(str(error).split())[:200]
        raise DataError(f"{path}: cannot be read as {kind}: {detail}") from error


def chosen(available: Columns, wanted: Columns | None) -> list[str]:
    """The columns to read: the wanted ones that exist, or all."""
    return list(available if wanted is None else dict.fromkeys(c for c in wanted if c in available))


def class_names(schema: pa.Schema) -> dict[str, tuple[str, ...]]:
    """The names behind the integers of ClassLabel columns, which `datasets` notes as metadata."""
    try:
        note = json.loads((schema.metadata or {})[b"huggingface"])
        features = note["info"]["features"].items()
        return {
            column: tuple(map(str, feature["names"]))
            for column, feature in features
            if isinstance(feature, dict) and feature.get("_type") == "ClassLabel"
        }
    except (AttributeError, LookupError, TypeError, ValueError):
        return {}


def as_bytes(array: pa.Array) -> pa.Array:
    """The same array, its strings as bytes: so their offsets can be checked apart from UTF-8."""
    if pa.types.is_string(array.type):
        return array.view(pa.binary())
    if pa.types.is_large_string(array.type):
        return array.view(pa.large_binary())
    return array


def batch_records(batch: pa.RecordBatch, *, first: int) -> Iterator[Record]:
    """One record per row of a batch; `first` is the number of its first row.

    Strings that are no UTF-8 make their row bad and no other.
    """
    columns: list[list[object]] = []
    invalid: set[int] = set()
    for array in batch.columns:
        try:
            columns.append(array.to_pylist())
        except UnicodeDecodeError:
            values = as_bytes(array).to_pylist()
            invalid.update(i for i, value in enumerate(values) if not _is_utf8(value))
            columns.append([_decoded(value) for value in values])
    names = batch.schema.names
    for row in range(batch.num_rows):
        values = {name: column[row] for name, column in zip(names, columns, strict=True)}
        problem = r"invalid UTF-8 (kept with \xNN for such a byte)" if row in invalid else None
        yield Record(first + row, None, values, problem)


def _is_utf8(value: bytes | None) -> bool:
    try:
        return value is None or value.decode() is not None
    except UnicodeDecodeError:
        return False


def _decoded(value: bytes | None) -> str | None:
    return None if value is None else value.decode(errors="backslashreplace")
