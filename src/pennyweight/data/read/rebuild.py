"""Rebuild the Arrow table of a pickled `datasets.Dataset` from the raw buffers in the pickle.

Nothing in the pickle is trusted: every structure is matched against the expected one, every array
is constructed here from bytes of the pickle, and is validated in full, including its offsets,
before any of its values is read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pennyweight.data.read.arrow import as_bytes
from pennyweight.data.read.opcodes import DeferredCall, GlobalName
from pennyweight.errors import DataError, UnsafePickleError

__all__ = ["PickledDataset", "rebuild"]

_TYPES: dict[str, pa.DataType] = {
    str(kind): kind
    for kind in (
        *(pa.string(), pa.large_string(), pa.bool_(), pa.null()),
        *(pa.int8(), pa.int16(), pa.int32(), pa.int64()),
        *(pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()),
        *(pa.float16(), pa.float32(), pa.float64()),
    )
}
# Blocks, columns and chunks; the pickle can name the same one again and again.
_MAX_PARTS = 100_000


@dataclass(frozen=True, slots=True)
class PickledDataset:
    """The content of a pickled Dataset.

    Attributes:
        table: its columns.
        order: permutation of the rows, uint64 and within bounds; None if there is none.
        class_names: class names of each ClassLabel column.
    """

    table: pa.Table
    order: pa.ChunkedArray | None
    class_names: dict[str, tuple[str, ...]]


def rebuild(root: object, *, max_rows: int) -> PickledDataset:
    """Return the Dataset in the result of `opcodes.replay`.

    Args:
        root: the result of `opcodes.replay`.
        max_rows: upper limit of the number of rows, from the size of the file. It is needed because
            a column of nulls takes no bytes for any number of rows.

    Raises:
        UnsafePickleError: the pickle is not a Dataset of plain columns.
        DataError: the buffers do not match, or a row index is out of bounds.
    """
    state = _state(root, "datasets.arrow_dataset.Dataset")
    table = _Builder(max_rows).table(state.get("_data"))
    order = None
    if state.get("_indices") is not None:
        order = _order(_Builder(max_rows).table(state["_indices"]), rows=table.num_rows)
    return PickledDataset(table, order, _class_names(state.get("_info"), table.column_names))


def _class_names(info: object, columns: list[str]) -> dict[str, tuple[str, ...]]:
    """Return the class names of ClassLabel columns; empty if the features have another form.

    Raises:
        DataError: the names are not texts, or there are more than any classifier has.
    """
    match info:
        case DeferredCall(state={"features": DeferredCall(arguments=(dict() as features,))}):
            pass
        case _:
            return {}
    class_names = {}
    number = 0
    for column in columns:
        match features.get(column):
            case DeferredCall(function=GlobalName(name="ClassLabel"), state={"names": [*names]}):
                number += len(names)
                if number > _MAX_PARTS:
                    raise DataError(f"there are more than {_MAX_PARTS:,} class names")
                if not all(type(name) is str for name in names):
                    raise DataError("a class name is not a text")
                class_names[column] = tuple(names)
    return class_names


def _order(table: pa.Table, *, rows: int) -> pa.ChunkedArray:
    if table.column_names != ["indices"] or table.column("indices").type != pa.uint64():
        raise DataError("the row permutation is not a column of indices")
    order = table.column("indices")
    if order.null_count:
        raise DataError("the row permutation has nulls")
    if len(order) and pc.max(order).as_py() >= rows:
        raise DataError(f"the row permutation points beyond the {rows} rows")
    return order


def _call_of(value: object, *names: str) -> DeferredCall:
    """Return the value if it is a call of one of the names."""
    if not isinstance(value, DeferredCall) or str(value.function) not in names:
        actual = value.function if isinstance(value, DeferredCall) else type(value).__name__
        raise UnsafePickleError(f"the pickle has {actual} where {' or '.join(names)} is expected")
    return value


def _arguments(value: object, name: str, count: int) -> tuple[Any, ...]:
    arguments = _call_of(value, name).arguments
    if len(arguments) != count:
        raise DataError(f"{name} has {len(arguments)} arguments instead of {count}")
    return arguments


def _state(value: object, *names: str) -> dict[str, Any]:
    state = _call_of(value, *names).state
    if type(state) is not dict:
        raise DataError(f"{names[0]} has no state")
    return state


def _list(value: object, name: str) -> list[Any]:
    if type(value) is not list:
        raise DataError(f"the {name} are not a list")
    return value


class _Builder:
    """Builds one table of at most `max_rows` rows; every part is counted before it is built."""

    def __init__(self, max_rows: int) -> None:
        self._max_rows = max_rows
        self._rows = 0
        self._parts = 0

    def _count(self, parts: int) -> None:
        self._parts += parts
        if self._parts > _MAX_PARTS:
            raise DataError(f"the table has more than {_MAX_PARTS:,} blocks, columns and chunks")

    def table(self, value: object) -> pa.Table:
        """Build an InMemoryTable or a ConcatenationTable."""
        state = _state(value, "datasets.table.InMemoryTable", "datasets.table.ConcatenationTable")
        if "blocks" not in state:
            return self._block(value)
        blocks = _list(state["blocks"], "blocks")
        rows = [row if type(row) is list else [row] for row in blocks]
        self._count(len(rows) + sum(map(len, rows)))
        tables = [self._side_by_side(row) for row in rows if row]
        if not tables:
            raise DataError("the table has no blocks")
        columns = {name for table in tables for name in table.column_names}
        self._count(len(columns) * len(tables))
        # As in datasets, the columns that a block lacks are null in its rows.
        return pa.concat_tables(tables, promote_options="default")

    def _side_by_side(self, blocks: list[Any]) -> pa.Table:
        tables = [self._block(block) for block in blocks]
        rows = tables[0].num_rows
        if any(table.num_rows != rows for table in tables):
            raise DataError("blocks side by side have different lengths")
        # The limit is one of rows, and these are the same rows again.
        self._rows -= rows * (len(tables) - 1)
        columns = [column for table in tables for column in table.columns]
        names = [name for table in tables for name in table.column_names]
        return _check_unique_names(pa.table(columns, names=names))

    def _block(self, value: object) -> pa.Table:
        state = _state(value, "datasets.table.InMemoryTable")
        columns, schema = _arguments(state.get("table"), "pyarrow.lib._reconstruct_table", 2)
        fields = self._schema(schema)
        self._count(len(_list(columns, "columns")))
        before = self._rows
        arrays = []
        for column in columns:
            self._rows = before
            arrays.append(self._column(column))
        if [array.type for array in arrays] != [kind for _, kind in fields]:
            raise DataError("the columns differ from the schema")
        if len({len(array) for array in arrays}) > 1:
            raise DataError("the columns have different lengths")
        return _check_unique_names(pa.table(arrays, names=[name for name, _ in fields]))

    def _schema(self, value: object) -> list[tuple[str, pa.DataType]]:
        fields, _ = _arguments(value, "pyarrow.lib.schema", 2)
        pairs = []
        self._count(len(_list(fields, "fields")))
        for field in _list(fields, "fields"):
            name, kind, _, _ = _arguments(field, "pyarrow.lib.field", 4)
            if type(name) is not str:
                raise DataError("a column name is not a string")
            pairs.append((name, _type(kind)))
        return pairs

    def _column(self, value: object) -> pa.ChunkedArray:
        chunks, kind = _arguments(value, "pyarrow.lib.chunked_array", 2)
        self._count(len(_list(chunks, "chunks")))
        arrays = [self._array(chunk) for chunk in chunks]
        return pa.chunked_array(arrays, type=_type(kind))

    def _array(self, value: object) -> pa.Array:
        (data,) = _arguments(value, "pyarrow.lib._restore_array", 1)
        if type(data) is not tuple or len(data) != 7:
            raise DataError("an array does not have seven parts")
        kind, length, _, offset, buffers, children, dictionary = data
        if children or dictionary is not None:
            raise UnsafePickleError("the pickle has nested columns")
        for number in (length, offset):
            if type(number) is not int or not 0 <= number <= self._max_rows:
                raise DataError("an array is longer than the file can contain")
        self._rows += length
        if self._rows > self._max_rows:
            raise DataError("the table has more rows than the file can contain")
        if len(_list(buffers, "buffers")) > 3:
            raise DataError("an array has more than three buffers")
        parts = [_buffer(buffer) for buffer in buffers]
        # Arrow counts the nulls itself, because it would rely on a wrong count.
        array = pa.Array.from_buffers(_type(kind), length, parts, null_count=-1, offset=offset)
        # This checks offsets and sizes. UTF-8 is checked row by row when the values are read.
        as_bytes(array).validate(full=True)
        return array


def _check_unique_names(table: pa.Table) -> pa.Table:
    if len(set(table.column_names)) != table.num_columns:
        raise DataError("two columns have the same name")
    return table


def _type(value: object) -> pa.DataType:
    (alias,) = _arguments(value, "pyarrow.lib.type_for_alias", 1)
    if type(alias) is not str or alias not in _TYPES:
        raise UnsafePickleError(
            "the pickle has a column that is not of strings, numbers or booleans"
        )
    return _TYPES[alias]


def _buffer(value: object) -> pa.Buffer | None:
    if value is None:
        return None
    (content,) = _arguments(value, "pyarrow.lib.py_buffer", 1)
    if type(content) is not bytes:
        raise DataError("a buffer is not bytes")
    return pa.py_buffer(content)
