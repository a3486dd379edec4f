"""Read JSON and TOML files that anybody may have written: bounded in size and nesting.

Every recipe, record, config and manifest is read through this module. Only regular files are read,
so that a pipe, a device or a directory is an error and not an endless wait.
"""

from __future__ import annotations

import json
import stat
import tomllib
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pennyweight.limits import MOST_EXPANSION, limit

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np

__all__ = [
    "DocumentError",
    "check_depth",
    "load_arrays",
    "parse_json",
    "parse_toml",
    "printable",
    "read_document",
    "read_json_table",
    "read_text",
    "read_toml",
]

# No file of Pennyweight, PEFT or transformers is nested more than a dozen levels deep.
_MAX_DEPTH = 64
_EXPANDED = "PENNYWEIGHT_MAX_EXPANDED_MIB"


class DocumentError(ValueError):
    """A file that cannot be read as text, JSON or TOML; the message is one line without a path."""


def read_document(path: Path) -> bytes:
    """Return the content of a regular file.

    Raises:
        DocumentError: it is larger than `PENNYWEIGHT_MAX_DOCUMENT_MIB` allows, or is a pipe, a
            device or a directory.
        OSError: it cannot be read.
    """
    # Opening a pipe would wait for a writer.
    if not stat.S_ISREG(path.stat().st_mode):
        raise DocumentError("not a regular file")
    largest = limit("PENNYWEIGHT_MAX_DOCUMENT_MIB")
    with path.open("rb") as file:
        content = file.read(largest + 1)
    if len(content) > largest:
        raise DocumentError(
            f"larger than {largest >> 20} MiB; if it is right, raise PENNYWEIGHT_MAX_DOCUMENT_MIB"
        )
    return content


def read_text(path: Path) -> str:
    """Return the content of a UTF-8 file, without its byte order mark if it has one.

    Raises:
        DocumentError: as for `read_document`, or it is not UTF-8.
        OSError: it cannot be read.
    """
    try:
        return read_document(path).decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise DocumentError(f"not UTF-8: {error.reason} at byte {error.start}") from None


def parse_json(text: str | bytes) -> Any:
    """Return JSON as plain values.

    Raises:
        DocumentError: it is not JSON, or nested too deeply.
    """
    return _parse(json.loads, text, "JSON")


def parse_toml(text: str) -> dict[str, Any]:
    """Return TOML as plain values.

    Raises:
        DocumentError: it is not TOML, or nested too deeply.
    """
    table: dict[str, Any] = _parse(tomllib.loads, text, "valid TOML")
    return table


def _parse(loads: Callable[[Any], Any], text: str | bytes, kind: str) -> Any:
    try:
        values = loads(text)
    except RecursionError:
        raise DocumentError(_too_deep()) from None
    except UnicodeDecodeError as error:
        raise DocumentError(f"not UTF-8: {error.reason} at byte {error.start}") from None
    except ValueError as error:  # also an integer of too many digits
        raise DocumentError(f"not {kind}: {error}") from None
    check_depth(values)
    return values


def read_json_table(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file.

    Raises:
        DocumentError: it is not a JSON object, or `read_text` refuses the file.
        OSError: it cannot be read.
    """
    values = parse_json(read_text(path))
    if not isinstance(values, dict):
        raise DocumentError(f"not a JSON object but {_name_of(values)}")
    return values


def read_toml(path: Path) -> dict[str, Any]:
    """Return the table in a TOML file.

    Raises:
        DocumentError: it is not TOML, or `read_text` refuses the file.
        OSError: it cannot be read.
    """
    return parse_toml(read_text(path))


def load_arrays(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays of a file that `numpy.savez` or `savez_compressed` wrote, by name.

    Raises:
        DocumentError: it is damaged, holds Python objects, or unpacks to more than
            `PENNYWEIGHT_MAX_EXPANDED_MIB` and 200 times its size.
        OSError: it cannot be read.
    """
    import numpy as np

    try:
        with zipfile.ZipFile(path) as archive:
            # No more than this is read of a part, whatever its compressed bytes hold.
            unpacked = sum(part.file_size for part in archive.infolist())
        if unpacked > max(limit(_EXPANDED), MOST_EXPANSION * path.stat().st_size):
            raise DocumentError(f"unpacks to {unpacked:,} bytes; if it is right, raise {_EXPANDED}")
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (OSError, DocumentError):
        raise
    except Exception as error:  # noqa: BLE001 - zipfile and NumPy raise many kinds
        raise DocumentError(f"no arrays of NumPy: {printable(error)}") from None


def printable(text: object) -> str:
    """Return a foreign text in one line, with control characters as escapes.

    Otherwise a line break in a name could forge a line of the output, and an escape sequence could
    change what the terminal shows.
    """
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape", "backslashreplace").decode()
        for char in str(text)
    )


def check_depth(values: object) -> None:
    """Check that lists and tables are not nested so deeply that code which walks them fails.

    Raises:
        DocumentError: they are.
    """
    level = [values]
    for _ in range(_MAX_DEPTH):
        level = [
            item
            for value in level
            if isinstance(value, dict | list)
            for item in (value.values() if isinstance(value, dict) else value)
        ]
        if not level:
            return
    raise DocumentError(_too_deep())


def _too_deep() -> str:
    return f"nested more than {_MAX_DEPTH} levels deep"


def _name_of(value: object) -> str:
    names = {list: "a list", str: "a text", type(None): "null", bool: "true or false"}
    return names.get(type(value), "a number")
