"""The rows of a command: from a source, standard input, or a list of texts."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from pennyweight.data.source import Source
from pennyweight.errors import DataError
from pennyweight.inference.texts import Text

__all__ = ["STANDARD_INPUT", "InputRows", "open_input"]

# The location of a source that is read from standard input.
STANDARD_INPUT = "-"


@dataclass(frozen=True, slots=True)
class InputRows:
    """The source of rows, and the place of their table.

    Attributes:
        source: where the rows are.
        cache: a temporary folder for a table that cannot be used again; None for the user's cache.
    """

    source: Source
    cache: Path | None = None


@contextmanager
def open_input(data: str | Source | Sequence[Text]) -> Iterator[InputRows]:
    """Yield where to read rows from; standard input and texts are put into a temporary file.

    A file is needed because rows are read more than once, and standard input can be read only
    once. If no format is named, its rows are JSON objects where the first line begins with "{",
    and otherwise every line is a text.

    Args:
        data: a source, or its location, with "-" for standard input; or texts or pairs of texts,
            one per row.

    Raises:
        DataError: as reading the rows does; messages do not show the temporary file's path.
    """
    if not isinstance(data, str | Source):
        with _temporary_file("texts") as path:
            path.write_text("".join(map(_line, data)), encoding="utf-8")
            yield InputRows(Source(str(path), "jsonl"), path.parent)
        return
    source = Source(data) if isinstance(data, str) else data
    if source.location != STANDARD_INPUT:
        yield InputRows(source)
        return
    with _temporary_file("standard input") as path:
        with path.open("wb") as file:
            shutil.copyfileobj(sys.stdin.buffer, file)
        source = replace(source, location=str(path), format=source.format or _format(path))
        yield InputRows(source, path.parent)


@contextmanager
def _temporary_file(name: str) -> Iterator[Path]:
    """Yield the path of a file in a folder of its own; errors call the file `name`."""
    with tempfile.TemporaryDirectory(prefix="pennyweight-") as folder:
        path = Path(folder) / name
        try:
            yield path
        except DataError as error:
            raise type(error)(str(error).replace(str(path), name)) from None


def _line(text: Text) -> str:
    row = {"text": text} if isinstance(text, str) else {"text": text[0], "text_pair": text[1]}
    return json.dumps(row) + "\n"


def _format(path: Path) -> str:
    with path.open("rb") as file:
        for line in file:
            if stripped := line.removeprefix(b"\xef\xbb\xbf").strip():
                return "jsonl" if stripped.startswith(b"{") else "lines"
    return "lines"
