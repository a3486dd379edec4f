"""Derived rows on disk: a Parquet file, and a manifest that says how it was produced."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq

from pennyweight.documents import read_json_table
from pennyweight.errors import DataError
from pennyweight.files import hash_file, replacing

__all__ = ["DerivedRows", "derive_once", "read_derived", "with_class_names", "write_derived"]

_MANIFEST = ".manifest.json"
# Raise it when the same parameters give other rows, or when the manifest's keys change.
_VERSION = 4


@dataclass(frozen=True, slots=True)
class DerivedRows:
    """Cleaned, filtered, augmented or generated rows.

    Attributes:
        path: the Parquet file.
        rows: its table, with the columns text and label, and provenance where there is some.
        manifest: parameters, fingerprints of the parent rows, counts, and the file's SHA-256.
    """

    path: Path
    rows: pa.Table
    manifest: Mapping[str, Any]


def with_class_names(rows: pa.Table, labels: Sequence[str]) -> pa.Table:
    """Return rows whose column label knows the names behind its indices.

    They are stored as those of a `datasets.ClassLabel`, which `datasets` and Pennyweight read back.

    Args:
        rows: with a column label, of int64 or lists of int64.
        labels: class names, in the order of their indices.
    """
    features = datasets.Features.from_arrow_schema(rows.schema)
    is_list = pa.types.is_list(rows.schema.field("label").type)
    names = datasets.ClassLabel(names=list(labels))
    features["label"] = datasets.List(names) if is_list else names
    return rows.replace_schema_metadata(features.arrow_schema.metadata)


def write_derived(path: Path, rows: pa.Table, manifest: Mapping[str, Any]) -> DerivedRows:
    """Write rows and, beside them, their manifest.

    The manifest is written last, so rows with a manifest are complete.

    Args:
        path: the Parquet file; its directory is created if it is missing.
        rows: columns text and label, and provenance where there is some.
        manifest: how the rows were produced; `rows`, `sha256` and `version` are added.

    Raises:
        DataError: the files cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as part:
            pq.write_table(rows, part)
            digest = hash_file(part)
        facts = {**manifest, "rows": rows.num_rows, "sha256": digest, "version": _VERSION}
        text = json.dumps(facts, indent=1, ensure_ascii=False, default=str) + "\n"
        with replacing(_manifest_of(path)) as part:
            part.write_text(text, encoding="utf-8")
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {error.strerror}") from None
    return DerivedRows(path, rows, json.loads(text))


def read_derived(path: Path) -> DerivedRows:
    """Read rows that `write_derived` wrote.

    Raises:
        DataError: the rows or the manifest are missing, or the rows changed since then.
    """
    try:
        manifest = read_json_table(_manifest_of(path))
        digest = hash_file(path)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: no rows with a manifest beside them: {error}") from None
    if digest != manifest.get("sha256"):
        raise DataError(
            f"{path}: changed since it was written: its SHA-256 is not the one in "
            f"{_manifest_of(path).name}; write the rows again"
        )
    return DerivedRows(path, pq.read_table(path), manifest)


def derive_once(
    folder: Path,
    parameters: Mapping[str, Any],
    derive: Callable[[], tuple[pa.Table, dict[str, Any]]],
) -> DerivedRows:
    """Return the rows for these parameters: read if they exist, derived and written if not.

    Args:
        folder: cache directory.
        parameters: everything that determines the rows, including fingerprints of their parents.
        derive: returns the rows and further facts for the manifest.

    Raises:
        DataError: the rows cannot be written, or changed since they were written.
    """
    text = json.dumps([_VERSION, parameters], sort_keys=True, default=str)
    path = folder / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.parquet"
    if _manifest_of(path).is_file():
        return read_derived(path)
    rows, facts = derive()
    return write_derived(path, rows, {"parameters": parameters, **facts})


def _manifest_of(path: Path) -> Path:
    return path.with_name(path.name.removesuffix(".parquet") + _MANIFEST)
