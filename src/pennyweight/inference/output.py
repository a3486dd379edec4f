"""Write predictions row by row: CSV or JSON Lines, to a file or to standard output."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Literal

from pennyweight.errors import RunError
from pennyweight.files import replacing

__all__ = ["OutputFormat", "format_of", "is_standard_output", "write_rows"]

OutputFormat = Literal["csv", "jsonl"]
_JSONL_ENDINGS = (".jsonl", ".ndjson")
# Written through the stream that is open already: opening them again would truncate a file that
# the shell redirects standard output to.
_STANDARD_OUTPUT = ("-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1")


def is_standard_output(out: str | Path | None) -> bool:
    """Return whether `out` means standard output: None, "-" or "/dev/stdout"."""
    return out is None or str(out) in _STANDARD_OUTPUT


def format_of(out: str | Path | None) -> OutputFormat:
    """Return the format that a file's ending asks for; CSV for every other ending."""
    return "jsonl" if str(out).lower().endswith(_JSONL_ENDINGS) else "csv"


def write_rows(
    out: str | Path | None,
    rows: Iterable[Mapping[str, object]],
    *,
    columns: Sequence[str],
    output_format: OutputFormat = "csv",
) -> None:
    """Write rows line by line; a file is written atomically.

    In CSV, a missing value is empty and a nested one is written as JSON.

    Args:
        out: the file; None, "-" or "/dev/stdout" for standard output.
        rows: one mapping per row, with the keys of `columns`.
        columns: the header of a CSV file.
        output_format: "csv" or "jsonl".

    Raises:
        RunError: the file cannot be written.
    """
    with _opened(out) as file:
        if output_format == "jsonl":
            for row in rows:
                file.write(json.dumps(row, ensure_ascii=False, default=str) + "\n")
            return
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows([_cell(row[column]) for column in columns] for row in rows)


@contextmanager
def _opened(out: str | Path | None) -> Iterator[IO[str]]:
    if out is None or is_standard_output(out):
        yield sys.stdout
        sys.stdout.flush()
        return
    path = Path(out)
    if not path.parent.is_dir():
        raise RunError(f"--out {path}: there is no directory {path.parent}; create it first")
    try:
        with (
            replacing(path) as part,
            # A lone surrogate, which JSON allows, cannot be encoded.
            part.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file,
        ):
            yield file
    except BrokenPipeError:
        raise
    except OSError as error:
        raise RunError(f"--out {path}: cannot be written: {error.strerror or error}") from None


def _cell(value: object) -> object:
    if value is None:
        return ""
    if isinstance(value, str | int | float):
        return value
    return json.dumps(value, ensure_ascii=False, default=str)
