"""Fingerprints of rows, in one definition for new tables and existing ones."""

from __future__ import annotations

import hashlib
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    import datasets

__all__ = ["Fingerprint", "fingerprint_of"]

_ROW_HEADER = struct.Struct("<qq")
_BATCH_ROWS = 1000


class Fingerprint:
    """A running SHA-256 over the label, the length in bytes and the text of each row."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def update(self, texts: Iterable[bytes], labels: Iterable[int]) -> None:
        """Add rows in order; the texts are UTF-8."""
        parts = []
        for text, label in zip(texts, labels, strict=True):
            parts.append(_ROW_HEADER.pack(label, len(text)))
            parts.append(text)
        self._hash.update(b"".join(parts))

    def hexdigest(self) -> str:
        """Return the fingerprint of all rows so far, in hexadecimal."""
        return self._hash.hexdigest()


def fingerprint_of(table: datasets.Dataset) -> str:
    """Return the fingerprint of a table's columns `text` and `label`, in hexadecimal.

    Equal rows in equal order have equal fingerprints, whatever file or cache they were read from.
    This reads the whole table. A table that `read_rows` returned already has its fingerprint in
    `Rows.fingerprint`, and a set of `Splits` has it in `SetFacts.fingerprint`.
    """
    fingerprint = Fingerprint()
    for batch in table.select_columns(["text", "label"]).iter(batch_size=_BATCH_ROWS):
        fingerprint.update(map(str.encode, batch["text"]), batch["label"])
    return fingerprint.hexdigest()
