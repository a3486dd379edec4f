"""Interpret a pickle with a virtual machine that can build plain data and nothing else.

Python's unpickler calls whatever the pickle names. This machine never does: the few names that a
pickled `datasets.Dataset` of plain columns needs become inert `GlobalName` values, a call becomes a
`DeferredCall` that only stores its arguments, and everything else is refused before the next
opcode. `pickletools` decodes the bytes; it executes nothing and allocates no more than the size of
the file.
"""

from __future__ import annotations

import mmap
import pickletools
import struct
import warnings
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any, cast

from pennyweight.errors import DataError, UnsafePickleError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["DeferredCall", "GlobalName", "replay"]

# A pickled Dataset takes about forty opcodes per chunk of a column, however many rows it has.
_MAX_OPCODES = 5_000_000
_OPCODES = {opcode.code: opcode for opcode in pickletools.opcodes}


@dataclass(frozen=True, slots=True)
class GlobalName:
    """A global name in the pickle, such as a class; it is never looked up."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(slots=True, eq=False)
class DeferredCall:
    """A call in the pickle, which is never carried out.

    Attributes:
        function: the name that is called.
        arguments: its arguments.
        state: the state that the pickle sets on the result.
        items: the dict items that the pickle sets on the result.
    """

    function: GlobalName
    arguments: tuple[Any, ...]
    state: Any = None
    items: dict[str | bytes, Any] = field(default_factory=dict)


def _names(module: str, *names: str) -> dict[tuple[str, str], GlobalName]:
    return {(module, name): GlobalName(module, name) for name in names}


_ALLOWED_NAMES: dict[tuple[str, str], GlobalName] = {
    **_names("datasets.arrow_dataset", "Dataset"),
    **_names("datasets.info", "DatasetInfo"),
    **_names("datasets.features.features", "ClassLabel", "Features", "Value"),
    **_names("datasets.splits", "NamedSplit", "SplitDict", "SplitInfo"),
    **_names("datasets.utils.version", "Version"),
    **_names("datasets.table", "ConcatenationTable", "InMemoryTable"),
    **_names(
        "pyarrow.lib",
        "_reconstruct_record_batch",
        "_reconstruct_table",
        "_restore_array",
        "chunked_array",
        "field",
        "py_buffer",
        "schema",
        "type_for_alias",
    ),
    # Row offsets, which older versions of datasets store beside a table.
    **_names("numpy", "dtype", "ndarray"),
    **_names("numpy.core.multiarray", "_reconstruct"),
    **_names("numpy._core.multiarray", "_reconstruct"),
    # The encoding of bytes and bytearrays in protocols 0 to 4, and of objects in 0 and 1.
    **_names("builtins", "bytearray", "bytes", "object"),
    **_names("__builtin__", "bytearray", "bytes", "object"),
    **_names("_codecs", "encode"),
    **_names("copy_reg", "_reconstructor"),
    **_names("copyreg", "_reconstructor"),
}
_ADVICE = {
    ("datasets.table", "MemoryMappedTable"): (
        "its rows are in files of the machine where it was pickled; "
        "write them there with to_parquet or save_to_disk, and read that"
    ),
    ("datasets.dataset_dict", "DatasetDict"): (
        "it has several splits; pickle one of them, or write it with to_parquet"
    ),
}


def replay(path: Path) -> object:
    """Return the content of a pickle as plain values, `GlobalName`s and `DeferredCall`s.

    Raises:
        UnsafePickleError: the pickle uses a name or an opcode that plain columns do not need.
        DataError: the pickle is empty, truncated or damaged.
    """
    if not path.stat().st_size:
        raise DataError(f"{path}: the file is empty")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
        try:
            with warnings.catch_warnings():
                # Raised for an invalid escape in a name, which is not an allowed name then.
                warnings.simplefilter("ignore", DeprecationWarning)
                return _run(view)
        except UnsafePickleError as error:
            raise UnsafePickleError(f"{path}: {error}; no code in it was executed") from None
        except (ArithmeticError, LookupError, TypeError, ValueError, struct.error) as error:
            detail = " ".join(str(error).split())[:200]
            raise DataError(f"{path}: the pickle is damaged: {detail}") from error


def _run(view: mmap.mmap) -> object:
    machine = _Machine()
    for _ in range(_MAX_OPCODES):
        # The reader stays within the mapped file, so a wrong length cannot allocate memory.
        opcode = _OPCODES.get(view.read(1).decode("latin-1"))
        if opcode is None:
            raise ValueError(f"no opcode at byte {view.tell()}")
        if opcode.name == "STOP":
            return machine.result()
        if opcode.name not in _ALLOWED_OPCODES:
            raise UnsafePickleError(
                f"the pickle uses the opcode {opcode.name}, which plain columns do not need"
            )
        argument = opcode.arg.reader(cast("IO[bytes]", view)) if opcode.arg else None
        machine.step(opcode.name, argument)
    raise UnsafePickleError(f"the pickle has more than {_MAX_OPCODES:,} opcodes")


class _Machine:
    """The unpickler's stack, marks and memo, which contain inert values only."""

    def __init__(self) -> None:
        self._stack: list[Any] = []
        self._marked: list[list[Any]] = []
        self._memo: dict[int, Any] = {}

    def step(self, opcode: str, argument: Any) -> None:
        """Execute one opcode of the tables at the end of this module."""
        if opcode in _LITERALS:
            self._stack.append(argument)
        elif opcode in _CONSTANTS:
            self._stack.append(_CONSTANTS[opcode]())
        elif opcode in _ACTIONS:
            _ACTIONS[opcode](self, argument)

    def result(self) -> object:
        """Return the only value on the stack."""
        if self._marked or len(self._stack) != 1:
            raise ValueError("it does not end with exactly one value")
        return self._stack[0]

    def _pop_mark(self) -> list[Any]:
        items, self._stack = self._stack, self._marked.pop()
        return items

    def _mark(self, argument: object) -> None:
        self._marked.append(self._stack)
        self._stack = []

    def _pop(self, argument: object) -> None:
        self._stack.pop()

    def _pop_to_mark(self, argument: object) -> None:
        self._pop_mark()

    def _put(self, argument: int) -> None:
        self._memo[argument] = self._stack[-1]

    def _memoize(self, argument: object) -> None:
        self._memo[len(self._memo)] = self._stack[-1]

    def _get(self, argument: int) -> None:
        self._stack.append(self._memo[argument])

    def _tuple(self, argument: object) -> None:
        items = tuple(self._pop_mark())
        self._stack.append(items)

    def _tuple_of(self, count: int) -> None:
        items = [self._stack.pop() for _ in range(count)]
        self._stack.append(tuple(reversed(items)))

    def _list(self, argument: object) -> None:
        items = self._pop_mark()
        self._stack.append(items)

    def _dict(self, argument: object) -> None:
        items = self._pop_mark()
        self._stack.append({})
        self._store(items)

    def _append(self, argument: object) -> None:
        self._extend([self._stack.pop()])

    def _appends(self, argument: object) -> None:
        self._extend(self._pop_mark())

    def _extend(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if type(target) is not list:
            raise UnsafePickleError("the pickle appends to something that is not a list")
        target.extend(items)

    def _set_item(self, argument: object) -> None:
        value = self._stack.pop()
        self._store([self._stack.pop(), value])

    def _set_items(self, argument: object) -> None:
        self._store(self._pop_mark())

    def _store(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if isinstance(target, DeferredCall):
            target = target.items
        if type(target) is not dict:
            raise UnsafePickleError("the pickle sets an item of something that is not a dict")
        for key, value in zip(items[::2], items[1::2], strict=True):
            # Other keys would have to be hashed, which takes forever for a deeply nested one.
            if type(key) is not str and type(key) is not bytes:
                raise UnsafePickleError("the pickle has a dict key that is not a string")
            target[key] = value

    def _global(self, argument: str) -> None:
        module, _, name = argument.partition(" ")
        self._stack.append(_allowed_name(module, name))

    def _stack_global(self, argument: object) -> None:
        name = self._stack.pop()
        self._stack.append(_allowed_name(self._stack.pop(), name))

    def _call(self, argument: object) -> None:
        arguments = self._stack.pop()
        function = self._stack.pop()
        if not isinstance(function, GlobalName) or type(arguments) is not tuple:
            raise UnsafePickleError("the pickle calls something that is not a global name")
        build = _BUILDERS.get(function.name)
        self._stack.append(build(arguments) if build else DeferredCall(function, arguments))

    def _build(self, argument: object) -> None:
        state = self._stack.pop()
        target = self._stack[-1]
        if not isinstance(target, DeferredCall):
            raise UnsafePickleError("the pickle sets the state of something that it did not create")
        target.state = state


def _allowed_name(module: object, name: object) -> GlobalName:
    if not isinstance(module, str) or not isinstance(name, str):
        raise UnsafePickleError("the pickle uses a global name that is not a string")
    allowed = _ALLOWED_NAMES.get((module, name))
    if allowed is None:
        shown = f"{module}.{name}"[:200].encode("unicode_escape").decode()
        advice = _ADVICE.get((module, name), "plain columns do not need it")
        raise UnsafePickleError(f"the pickle uses {shown}: {advice}")
    return allowed


def _build_bytes(arguments: tuple[Any, ...]) -> bytes:
    """Evaluate `bytes()`, `bytearray()` and `bytearray(b"...")`, but not `bytearray(10**12)`."""
    match arguments:
        case ():
            return b""
        case (bytes() as content,):
            return content
    raise UnsafePickleError("the pickle creates bytes from something other than bytes")


def _build_encode(arguments: tuple[Any, ...]) -> bytes:
    match arguments:
        case (str() as text, "latin1"):
            return text.encode("latin-1")
    raise UnsafePickleError("the pickle encodes something other than bytes")


def _build_object(arguments: tuple[Any, ...]) -> DeferredCall:
    match arguments:
        case (GlobalName() as function, GlobalName(name="object"), None):
            return DeferredCall(function, ())
    raise UnsafePickleError("the pickle creates an object in an unusual way")


_BUILDERS: dict[str, Callable[[tuple[Any, ...]], object]] = {
    "bytes": _build_bytes,
    "bytearray": _build_bytes,
    "encode": _build_encode,
    "_reconstructor": _build_object,
}
_CONSTANTS: dict[str, Callable[[], object]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
}
_LITERALS = frozenset(
    {"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "FLOAT", "BINFLOAT", "UNICODE"}
    | {"SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"}
    | {"SHORT_BINBYTES", "BINBYTES", "BINBYTES8"}
)
_ACTIONS: dict[str, Callable[[_Machine, Any], None]] = {
    "BYTEARRAY8": lambda machine, argument: machine._stack.append(bytes(argument)),
    "MARK": _Machine._mark,
    "POP": _Machine._pop,
    "POP_MARK": _Machine._pop_to_mark,
    "PUT": _Machine._put,
    "BINPUT": _Machine._put,
    "LONG_BINPUT": _Machine._put,
    "MEMOIZE": _Machine._memoize,
    "GET": _Machine._get,
    "BINGET": _Machine._get,
    "LONG_BINGET": _Machine._get,
    "TUPLE": _Machine._tuple,
    "TUPLE1": lambda machine, _: machine._tuple_of(1),
    "TUPLE2": lambda machine, _: machine._tuple_of(2),
    "TUPLE3": lambda machine, _: machine._tuple_of(3),
    "LIST": _Machine._list,
    "DICT": _Machine._dict,
    "APPEND": _Machine._append,
    "APPENDS": _Machine._appends,
    "SETITEM": _Machine._set_item,
    "SETITEMS": _Machine._set_items,
    "GLOBAL": _Machine._global,
    "STACK_GLOBAL": _Machine._stack_global,
    "REDUCE": _Machine._call,
    "NEWOBJ": _Machine._call,
    "BUILD": _Machine._build,
}
_ALLOWED_OPCODES = _LITERALS | _CONSTANTS.keys() | _ACTIONS.keys() | {"PROTO", "FRAME"}
