"""Functions shared by the Arrow formats: batches become records, Arrow's errors DataErrors."""

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
    "class_names",
    "existing_columns",
    "translated_errors",
]

ROWS_PER_BATCH = 1000


@contextmanager
def translated_errors(path: Path | str, kind: str) -> Iterator[None]:
    """Turn what pyarrow and datasets raise on a damaged file into a one-line DataError."""
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


def batch_records(batch: pa.RecordBatch, *, first: int) -> Iterator[Record]:
    """Yield one record per row of a batch, numbered from `first`.

    A string that is not UTF-8 makes its own row bad and no other.
    """
    columns: list[list[object]] = []
    invalid: set[int] = set()
    for array in batch.columns:
        try:
            columns.append(array.to_pylist())
        except UnicodeDecodeError:
            values = as_bytes(array).to_pylist()
            invalid.update(row for row, value in enumerate(values) if not _is_utf8(value))
            columns.append([_decoded(value) for value in values])
    names = batch.schema.names
    for row in range(batch.num_rows):
        values = {name: column[row] for name, column in zip(names, columns, strict=True)}
        problem = r"invalid UTF-8 (such bytes are shown as \xNN)" if row in invalid else None
        yield Record(first + row, None, values, problem)


def _is_utf8(value: bytes | None) -> bool:
    try:
        return value is None or value.decode() is not None
    except UnicodeDecodeError:
        return False


def _decoded(value: bytes | None) -> str | None:
    return None if value is None else value.decode(errors="backslashreplace")
