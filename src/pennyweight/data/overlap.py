"""Texts that stand in two sets: exactly the same, or nearly.

The held-out sets are indexed and the training rows stream past them, so memory grows with the
held-out sets only. Texts are compared after NFKC, case folding and folding of white space. Near
duplicates are found with MinHash over pairs of words (Broder 1997) and locality-sensitive hashing.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import datasets
import numpy as np
from datasketch import MinHash, MinHashLSH

__all__ = ["SKETCH_PERMUTATIONS", "Overlap", "find_overlap", "folded", "near_index", "sketch_of"]

SKETCH_PERMUTATIONS = 64
_BATCH_ROWS = 1000


@dataclass(frozen=True, slots=True)
class Overlap:
    """What two sets share.

    Attributes:
        one: name of the set whose rows are counted.
        other: name of the set they are looked up in.
        exact: rows of `one` whose text stands in `other`.
        near: further rows of `one` with a text in `other` at or over the similarity.
        exact_rows: int64, the indices in `one` of the exact ones.
    """

    one: str
    other: str
    exact: int
    near: int
    exact_rows: np.ndarray

    def to_json(self) -> dict[str, object]:
        """Counts alone, for the run record."""
        return {"rows_of": self.one, "found_in": self.other, "exact": self.exact, "near": self.near}


class _Index:
    """A held-out set, ready to be asked."""

    def __init__(self, name: str, rows: datasets.Dataset, *, similarity: float) -> None:
        self.name = name
        self._exact: set[bytes] = set()
        self._near = near_index(similarity)
        self._hashes: dict[int, MinHash] = {}
        self._similarity = similarity
        for number, text in enumerate(_texts(rows)):
            self._exact.add(_digest(text))
            sketch = sketch_of(text)
            self._hashes[number] = sketch
            self._near.insert(number, sketch, check_duplication=False)

    def has(self, digest: bytes) -> bool:
        return digest in self._exact

    def has_near(self, sketch: MinHash) -> bool:
        return any(
            sketch.jaccard(self._hashes[found]) >= self._similarity
            for found in self._near.query(sketch)
        )


def find_overlap(
    one: str,
    rows: datasets.Dataset,
    others: Mapping[str, datasets.Dataset],
    *,
    similarity: float,
) -> list[Overlap]:
    """Count the rows of one set that stand in each of the others.

    Args:
        one: the set's name.
        rows: its rows, with a column `text`.
        others: the sets to look them up in; these are held in memory as hashes.
        similarity: estimated Jaccard similarity from which two texts are near duplicates.
    """
    indices = [_Index(name, other, similarity=similarity) for name, other in others.items()]
    exact: list[list[int]] = [[] for _ in indices]
    near = [0] * len(indices)
    for number, text in enumerate(_texts(rows)):
        digest, sketch = _digest(text), None
        for at, index in enumerate(indices):
            if index.has(digest):
                exact[at].append(number)
                continue
            sketch = sketch or sketch_of(text)
            near[at] += index.has_near(sketch)
    return [
        Overlap(one, index.name, len(exact[at]), near[at], np.array(exact[at], dtype=np.int64))
        for at, index in enumerate(indices)
    ]


def _texts(rows: datasets.Dataset) -> Iterator[str]:
    column = rows.select_columns(["text"])
    for batch in column.iter(batch_size=_BATCH_ROWS):
        yield from map(folded, batch["text"])


def near_index(similarity: float) -> MinHashLSH:
    """An index that gives candidates for texts of this similarity, which are then compared."""
    # Nearer 1, so many permutations cannot be cut into bands.
    return MinHashLSH(threshold=min(similarity, 0.9), num_perm=SKETCH_PERMUTATIONS)


def folded(text: str) -> str:
    """The text as it is compared: NFKC, case and white space folded."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def sketch_of(text: str) -> MinHash:
    """The MinHash of a folded text's pairs of words."""
    words = text.split()
    pairs = {" ".join(words[at : at + 2]) for at in range(max(1, len(words) - 1))}
    sketch = MinHash(num_perm=SKETCH_PERMUTATIONS, seed=1)
    sketch.update_batch([pair.encode() for pair in pairs])
    return sketch
