"""A replayed pickle of a `datasets.Dataset`, made into Arrow tables from its raw buffers.

Nothing in the pickle is believed: every shape is matched, every array is built by us from bytes
of the pickle, and validated in full (offsets too) before a single value of it is looked at.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pennyweight.data.read.arrow import as_bytes
from pennyweight.data.read.opcodes import Made, Named
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
_MAX_BLOCKS = 100_000


@dataclass(frozen=True, slots=True)
class PickledDataset:
    """A pickled Dataset's content.

    Attributes:
        table: its columns.
        order: the permutation of its rows when there is one; uint64, within bounds.
        class_names: column -> the names behind the integers of a ClassLabel.
    """

    table: pa.Table
    order: pa.ChunkedArray | None
    class_names: dict[str, tuple[str, ...]]


def rebuild(root: object, *, max_rows: int) -> PickledDataset:
    """The table that a replayed pickle describes.

    Args:
        root: what `opcodes.replay` gave.
        max_rows: more rows than the file can hold; a null column would need no bytes for them.

    Raises:
        UnsafePickleError: it is something else than a Dataset of plain columns.
        DataError: its buffers do not fit together, or a row index is out of bounds.
    """
    state = _state(root, "datasets.arrow_dataset.Dataset")
    builder = _Builder(max_rows)
    table = builder.table(state.get("_data"))
    order = None
    if state.get("_indices") is not None:
        order = _order(builder.table(state["_indices"]), rows=table.num_rows)
    return PickledDataset(table, order, _class_names(state.get("_info")))


def _class_names(info: object) -> dict[str, tuple[str, ...]]:
    """What the features say of ClassLabel columns; nothing where they are not as expected."""
    match info:
        case Made(state={"features": Made(arguments=(dict() as features,))}):
            pass
        case _:
            return {}
    found = {}
    for column, feature in features.items():
        match feature:
            case Made(by=Named(name="ClassLabel"), state={"names": [*names]}):
                found[column] = tuple(map(str, names))
    return found


def _order(table: pa.Table, *, rows: int) -> pa.ChunkedArray:
    if table.column_names != ["indices"] or table.column("indices").type != pa.uint64():
        raise DataError("its row permutation is no column of indices")
    order = table.column("indices")
    if order.null_count:
        raise DataError("its row permutation has nulls")
    if len(order) and pc.max(order).as_py() >= rows:
        raise DataError(f"its row permutation points beyond the {rows} rows")
    return order


def _made(value: object, *names: str) -> Made:
    """The value, if it is the result of calling one of the names."""
    if not isinstance(value, Made) or str(value.by) not in names:
        found = value.by if isinstance(value, Made) else type(value).__name__
        raise UnsafePickleError(f"the pickle holds {found} where {' or '.join(names)} belongs")
    return value


def _arguments(value: object, name: str, count: int) -> tuple[Any, ...]:
    arguments = _made(value, name).arguments
    if len(arguments) != count:
        raise DataError(f"{name} with {len(arguments)} arguments instead of {count}")
    return arguments


def _state(value: object, *names: str) -> dict[str, Any]:
    state = _made(value, *names).state
    if type(state) is not dict:
        raise DataError(f"{names[0]} without its state")
    return state


def _list(value: object, what: str) -> list[Any]:
    if type(value) is not list:
        raise DataError(f"{what} that are no list")
    return value


class _Builder:
    """Builds tables; holds the limit that every array is held against."""

    def __init__(self, max_rows: int) -> None:
        self._max_rows = max_rows

    def table(self, value: object) -> pa.Table:
        """An InMemoryTable or a ConcatenationTable."""
        state = _state(value, "datasets.table.InMemoryTable", "datasets.table.ConcatenationTable")
        if "blocks" not in state:
            return self._block(value)
        blocks = _list(state["blocks"], "blocks")
        rows = [row if type(row) is list else [row] for row in blocks]
        if sum(map(len, rows)) > _MAX_BLOCKS:
            raise DataError(f"more than {_MAX_BLOCKS:,} blocks")
        tables = [self._side_by_side(row) for row in rows if row]
        if not tables:
            raise DataError("a table of no blocks")
        # Columns that a block lacks are null in its rows, as in datasets.
        return self._within_limit(pa.concat_tables(tables, promote_options="default"))

    def _side_by_side(self, blocks: list[Any]) -> pa.Table:
        table = self._block(blocks[0])
        for block in blocks[1:]:
            more = self._block(block)
            if more.num_rows != table.num_rows:
                raise DataError("blocks side by side of different lengths")
            for name in more.column_names:
                table = table.append_column(name, more.column(name))
        return _named_once(table)

    def _block(self, value: object) -> pa.Table:
        state = _state(value, "datasets.table.InMemoryTable")
        columns, schema = _arguments(state.get("table"), "pyarrow.lib._reconstruct_table", 2)
        fields = self._schema(schema)
        arrays = [self._column(column) for column in _list(columns, "columns")]
        if [array.type for array in arrays] != [kind for _, kind in fields]:
            raise DataError("columns that differ from the schema")
        if len({len(array) for array in arrays}) > 1:
            raise DataError("columns of different lengths")
        table = pa.table(arrays, names=[name for name, _ in fields])
        return self._within_limit(_named_once(table))

    def _within_limit(self, table: pa.Table) -> pa.Table:
        if table.num_rows > self._max_rows:
            raise DataError("more rows than the file can hold")
        return table

    def _schema(self, value: object) -> list[tuple[str, pa.DataType]]:
        fields, _ = _arguments(value, "pyarrow.lib.schema", 2)
        pairs = []
        for field in _list(fields, "fields"):
            name, kind, _, _ = _arguments(field, "pyarrow.lib.field", 4)
            if type(name) is not str:
                raise DataError("a column's name that is no string")
            pairs.append((name, _type(kind)))
        return pairs

    def _column(self, value: object) -> pa.ChunkedArray:
        chunks, kind = _arguments(value, "pyarrow.lib.chunked_array", 2)
        arrays = [self._array(chunk) for chunk in _list(chunks, "chunks")]
        return pa.chunked_array(arrays, type=_type(kind))

    def _array(self, value: object) -> pa.Array:
        (data,) = _arguments(value, "pyarrow.lib._restore_array", 1)
        if type(data) is not tuple or len(data) != 7:
            raise DataError("an array without its seven parts")
        kind, length, _, offset, buffers, children, dictionary = data
        if children or dictionary is not None:
            raise UnsafePickleError("the pickle has nested columns")
        for number in (length, offset):
            if type(number) is not int or not 0 <= number <= self._max_rows:
                raise DataError("an array longer than the file can hold")
        parts = [_buffer(buffer) for buffer in _list(buffers, "buffers")]
        # The null count is left to Arrow: a wrong one would make it trust the wrong values.
        array = pa.Array.from_buffers(_type(kind), length, parts, null_count=-1, offset=offset)
        # Offsets and sizes are checked here, UTF-8 row by row when the values are read.
        as_bytes(array).validate(full=True)
        return array


def _named_once(table: pa.Table) -> pa.Table:
    if len(set(table.column_names)) != table.num_columns:
        raise DataError("two columns of one name")
    return table


def _type(value: object) -> pa.DataType:
    (alias,) = _arguments(value, "pyarrow.lib.type_for_alias", 1)
    if type(alias) is not str or alias not in _TYPES:
        raise UnsafePickleError("the pickle has a column that is neither text, number nor truth")
    return _TYPES[alias]


def _buffer(value: object) -> pa.Buffer | None:
    if value is None:
        return None
    (content,) = _arguments(value, "pyarrow.lib.py_buffer", 1)
    if type(content) is not bytes:
        raise DataError("a buffer that is no bytes")
    return pa.py_buffer(content)
