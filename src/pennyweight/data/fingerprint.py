"""Fingerprints of rows, in one definition for new tables and existing ones."""

from __future__ import annotations

import hashlib
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import datasets

__all__ = ["Fingerprint", "fingerprint_of"]

_NUMBER = struct.Struct("<q")
_BATCH_ROWS = 1000


class Fingerprint:
    """A running SHA-256 over the label or labels, the length in bytes and the text of each row.

    Several labels come behind their number, and the second text of a pair behind its length.
    """

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def update(
        self,
        texts: Iterable[bytes],
        labels: Iterable[int | Sequence[int]],
        text_pairs: Iterable[bytes] | None = None,
    ) -> None:
        """Add rows in order; the texts are UTF-8."""
        number = _NUMBER.pack
        parts = []
        second_texts = iter(text_pairs) if text_pairs is not None else None
        for text, label in zip(texts, labels, strict=True):
            if isinstance(label, int):
                parts.append(number(label))
            else:
                parts += [number(len(label)), *map(number, label)]
            parts += [number(len(text)), text]
            if second_texts is not None:
                second = next(second_texts)
                parts += [number(len(second)), second]
        self._hash.update(b"".join(parts))

    def hexdigest(self) -> str:
        """Return the fingerprint of all rows so far, in hexadecimal."""
        return self._hash.hexdigest()


def fingerprint_of(table: datasets.Dataset) -> str:
    """Return the fingerprint of a table's texts and labels, in hexadecimal.

    The columns are `text`, `label` and, for pairs, `text_pair`. Equal rows in equal order have
    equal fingerprints, whatever file or cache they were read from. This reads the whole table. A
    table that `read_rows` returned already has its fingerprint in `Rows.fingerprint`, and a set of
    `Splits` has it in `SetFacts.fingerprint`.
    """
    fingerprint = Fingerprint()
    has_pairs = "text_pair" in table.column_names
    columns = ["text", "label", *(["text_pair"] if has_pairs else [])]
    for batch in table.select_columns(columns).iter(batch_size=_BATCH_ROWS):
        pairs = list(map(str.encode, batch["text_pair"])) if has_pairs else None
        fingerprint.update(map(str.encode, batch["text"]), batch["label"], pairs)
    return fingerprint.hexdigest()
