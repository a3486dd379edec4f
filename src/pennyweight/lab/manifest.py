"""Rows that the lab has made, written once: a Parquet file and what made it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pennyweight.errors import DataError
from pennyweight.files import replacing

__all__ = ["Made", "make_once", "read_made", "write_made"]

_MANIFEST = ".manifest.json"
# Raise it when the same parameters would make other rows.
_VERSION = 2


@dataclass(frozen=True, slots=True)
class Made:
    """Rows that were made.

    Attributes:
        path: the Parquet file; columns text, label, and provenance.
        rows: the table.
        manifest: parameters, fingerprints of parents, counts.
    """

    path: Path
    rows: pa.Table
    manifest: Mapping[str, Any]


def write_made(path: Path, rows: pa.Table, manifest: Mapping[str, Any]) -> None:
    """Write rows and manifest side by side; the manifest last, as the sign that both are whole.

    Raises:
        DataError: they cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as part:
            pq.write_table(rows, part)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        told = {**manifest, "rows": rows.num_rows, "sha256": digest, "version": _VERSION}
        text = json.dumps(told, indent=1, ensure_ascii=False, default=str) + "\n"
        with replacing(_beside(path)) as part:
            part.write_text(text, encoding="utf-8")
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {error.strerror}") from None


def read_made(path: Path) -> Made:
    """Read what `write_made` wrote.

    Raises:
        DataError: it is missing, or the file is not the one that the manifest tells of.
    """
    try:
        manifest = json.loads(_beside(path).read_text(encoding="utf-8"))
        data = path.read_bytes()
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: no rows with a manifest: {error}") from None
    if hashlib.sha256(data).hexdigest() != manifest.get("sha256"):
        raise DataError(f"{path}: changed since it was written; its manifest tells of other bytes")
    return Made(path, pq.read_table(pa.BufferReader(data)), manifest)


def make_once(
    folder: Path, parameters: Mapping[str, Any], make: Callable[[], tuple[pa.Table, dict[str, Any]]]
) -> Made:
    """Rows made with these parameters: read where they exist, else made and written.

    Args:
        folder: of all that was made.
        parameters: everything that decides the rows, fingerprints of the parents too.
        make: gives the rows, and what else the manifest is to say.
    """
    text = json.dumps([_VERSION, parameters], sort_keys=True, default=str)
    path = folder / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.parquet"
    if not _beside(path).is_file():
        rows, found = make()
        write_made(path, rows, {"parameters": parameters, **found})
    return read_made(path)


def _beside(path: Path) -> Path:
    return path.with_name(path.name.removesuffix(".parquet") + _MANIFEST)
