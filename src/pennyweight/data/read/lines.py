r"""Stream the physical lines of a text file in bounded memory and without losing a byte.

Lines end at `\n` alone, as they do for an editor's line numbers; a `\r` before it is part of the
line. A UTF-8 byte order mark is skipped. Bytes that are not UTF-8 are decoded as surrogates.
"""

from __future__ import annotations

import codecs
from typing import TYPE_CHECKING, NamedTuple

from pennyweight.data.read.record import FIRST_ROW, Position
from pennyweight.data.read.storage import AnyFile, open_bytes
from pennyweight.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = [
    "INVALID_UTF8",
    "MAX_BYTES",
    "TOO_LONG",
    "Line",
    "check_text",
    "problem_of",
    "source_of",
    "text_lines",
]

MAX_BYTES = 16 * 2**20
# The encoding is judged by the lines in so many bytes, if so many of them are not ASCII.
_HEAD_BYTES = 2**16
_LINES_TO_JUDGE = 3
INVALID_UTF8 = r"invalid UTF-8 (such bytes are shown as \xNN, and a backslash as \\)"
TOO_LONG = f"line longer than {MAX_BYTES:,} bytes"
_NUL = "NUL byte"
# UTF-32 comes first, because its little-endian mark begins with that of UTF-16.
_OTHER_ENCODINGS = (
    (codecs.BOM_UTF32_LE, "UTF-32"),
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)


class Line(NamedTuple):
    """A physical line with its line end; a line longer than 16 MiB comes in several pieces.

    `end` is the number of bytes of the file up to its end.
    """

    number: int
    text: str
    problem: str | None
    end: int


def check_text(path: AnyFile) -> None:
    """Check that a file can be UTF-8 text.

    Raises:
        DataError: the file is empty, begins with the byte order mark of UTF-16 or UTF-32, or is in
            another encoding: of its first lines, several are not ASCII, and none of them is UTF-8.
    """
    with open_bytes(path) as file:
        head = file.read(_HEAD_BYTES)
    for mark, name in _OTHER_ENCODINGS:
        if head.startswith(mark):
            raise DataError(f"{path}: the file is encoded as {name}; save it as UTF-8")
    if not head.removeprefix(codecs.BOM_UTF8):
        raise DataError(f"{path}: the file is empty")
    # The last line may be cut.
    lines = [line for line in head.split(b"\n")[:-1] if not line.isascii()]
    if len(lines) >= _LINES_TO_JUDGE and not any(map(_is_utf8, lines)):
        raise DataError(
            f"{path}: the file is not encoded as UTF-8; save it so, in Excel as the type "
            '"CSV UTF-8"'
        )


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True


def text_lines(path: AnyFile, start: Position = FIRST_ROW) -> Iterator[Line]:
    """Stream the lines of a file from a position on; the first line of a file has the number 1."""
    number, end, inside_long_line = start.line, start.byte, False
    with open_bytes(path, start=start.byte) as file:
        readline = file.readline
        while line := readline(MAX_BYTES):
            length = len(line)
            end += length
            problem = None
            if end == length and line.startswith(codecs.BOM_UTF8):
                line = line.removeprefix(codecs.BOM_UTF8)
                if not line:
                    continue
            try:
                text = line.decode()
            except UnicodeDecodeError:
                text, problem = line.decode(errors="surrogateescape"), INVALID_UTF8
            if "\0" in text:
                problem = problem or _NUL
            ended = text[-1] == "\n"
            if inside_long_line or (not ended and length == MAX_BYTES):
                problem, inside_long_line = TOO_LONG, not ended
            yield Line(number, text, problem, end)
            number += ended


def problem_of(lines: Sequence[Line], *, also: str | None = None) -> str | None:
    """Return all problems of a row's lines in one phrase, `also` first; None if there are none."""
    if also is None and len(lines) == 1:
        return lines[0].problem
    problems = dict.fromkeys(filter(None, (also, *(line.problem for line in lines))))
    return "; ".join(problems) or None


def source_of(lines: Sequence[Line]) -> str:
    """Return the lines as they are in the file, with invalid bytes escaped; see `INVALID_UTF8`."""
    if len(lines) == 1 and lines[0].problem is None:
        return lines[0].text
    text = "".join(line.text for line in lines)
    try:
        text.encode()
    except UnicodeEncodeError:
        escaped = text.replace("\\", "\\\\").encode(errors="surrogateescape")
        return escaped.decode(errors="backslashreplace")
    return text
