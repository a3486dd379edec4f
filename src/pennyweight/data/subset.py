"""All rows of a source, or some of them, and the facts about them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pennyweight.data.fingerprint import fingerprint_of

if TYPE_CHECKING:
    import datasets
    import numpy as np

    from pennyweight.data.ingest import Rows

__all__ = ["SetFacts", "Subset"]


@dataclass(frozen=True, slots=True)
class SetFacts:
    """Facts about one set, for the run record.

    Attributes:
        source: the source's name in messages.
        format: a name in `read.READERS`, or "hub".
        rows: number of rows in the set.
        rows_set_aside: number of bad rows in the source.
        bad_rows_file: path of the file with the bad rows; None if there are none.
        fingerprint: `fingerprint_of` the set's rows.
        are_pairs: whether the rows are pairs of texts.
    """

    source: str
    format: str
    rows: int
    rows_set_aside: int
    bad_rows_file: str | None
    fingerprint: str
    are_pairs: bool = False


@dataclass(frozen=True, slots=True)
class Subset:
    """All rows of a source, or some of them.

    Attributes:
        rows: the source's rows.
        table: the rows of the subset.
        indices: their positions in the source's table, ascending; None if `table` is all of it.
    """

    rows: Rows
    table: datasets.Dataset
    indices: np.ndarray | None = None

    def select(self, positions: np.ndarray) -> Subset:
        """Return the rows at these positions of the subset, which must ascend."""
        indices = positions if self.indices is None else self.indices[positions]
        return Subset(self.rows, self.rows.table.select(indices), indices)

    def key(self) -> str:
        """Return a value that identifies the rows, without reading them."""
        if self.indices is None:
            return self.rows.fingerprint
        indices = self.indices.astype("<i8").tobytes()
        return hashlib.sha256(self.rows.fingerprint.encode() + indices).hexdigest()

    def facts(self) -> SetFacts:
        """Return the facts for the record; this reads the rows of a proper subset once."""
        return SetFacts(
            source=self.rows.source,
            format=self.rows.format,
            rows=len(self.table),
            rows_set_aside=self.rows.bad,
            bad_rows_file=str(self.rows.bad_rows_file) if self.rows.bad_rows_file else None,
            fingerprint=self.rows.fingerprint
            if self.indices is None
            else fingerprint_of(self.table),
            are_pairs=self.rows.are_pairs,
        )
