"""Find texts that two sets share, exactly or nearly.

Texts are compared after NFKC normalization, case folding and collapsing of white space, and the two
texts of a pair are compared together. Near duplicates are found with MinHash over pairs of words
(Broder, "On the resemblance and containment of documents", 1997) and locality-sensitive hashing.
The held-out sets are indexed and the other rows stream past them, so memory grows with the held-out
sets alone.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import datasets
import numpy as np
from datasketch import MinHash, MinHashLSH

__all__ = [
    "Overlap",
    "OverlapCount",
    "OverlapPolicy",
    "TextIndex",
    "count_matches",
    "find_overlap",
    "folded",
    "folded_texts",
    "near_index",
    "sketch_of",
]

_SKETCH_PERMUTATIONS = 64
# With this many permutations, datasketch cannot choose bands for a threshold close to 1. A lower
# one only proposes more candidates, which are compared with the requested similarity anyway.
_MAX_LSH_THRESHOLD = 0.9
_BATCH_ROWS = 1000
# A word of its own, which no text contains.
_BETWEEN_TEXTS = " \0 "


@dataclass(frozen=True, slots=True)
class OverlapPolicy:
    """How overlaps are counted, and what happens to training rows found in a held-out set.

    Both values come from the recipe, `data.overlap` and `data.near_duplicate_similarity`; their
    defaults are stated there and nowhere else.

    Attributes:
        rule: "remove" exact copies from the training rows, "keep" them, or "refuse" to train.
        similarity: Jaccard similarity over pairs of words, above 0 and at most 1, at which two
            texts count as near duplicates. Near duplicates are counted and never removed.
    """

    rule: Literal["remove", "keep", "refuse"]
    similarity: float


@dataclass(frozen=True, slots=True)
class OverlapCount:
    """The counts of an `Overlap`, for the run record.

    Attributes:
        rows_of: the set whose rows are counted.
        found_in: the set in which they are looked up.
        exact: rows of `rows_of` whose text is in `found_in`.
        near: further rows of `rows_of` that have a near duplicate in `found_in`.
    """

    rows_of: str
    found_in: str
    exact: int
    near: int


@dataclass(frozen=True, slots=True)
class Overlap:
    """The rows of one set whose texts are also in another.

    Attributes:
        one: the set whose rows are counted.
        other: the set in which they are looked up.
        exact: rows of `one` whose text is in `other`.
        near: further rows of `one` that have a near duplicate in `other`.
        exact_rows: indices into `one` of the exact matches, int64, of shape (exact,).
    """

    one: str
    other: str
    exact: int
    near: int
    exact_rows: np.ndarray

    def count(self) -> OverlapCount:
        """Return the counts without the row indices."""
        return OverlapCount(self.one, self.other, self.exact, self.near)


class TextIndex:
    """The texts of a set, hashed for look-ups.

    Args:
        name: the set's name.
        rows: its rows, with a column `text`.
        similarity: estimated Jaccard similarity at which two texts are near duplicates; None to
            look up exact matches only, which needs no MinHash sketches.
    """

    def __init__(self, name: str, rows: datasets.Dataset, *, similarity: float | None) -> None:
        self.name = name
        self.similarity = similarity
        self._digests: set[bytes] = set()
        self._sketches: list[MinHash] = []
        self._near = None if similarity is None else near_index(similarity)
        for number, text in enumerate(folded_texts(rows)):
            self._digests.add(_digest(text))
            if self._near is not None:
                sketch = sketch_of(text)
                self._sketches.append(sketch)
                self._near.insert(number, sketch, check_duplication=False)

    def __contains__(self, digest: bytes) -> bool:
        return digest in self._digests

    def has_near(self, sketch: MinHash) -> bool:
        """Return whether a text of the set is a near duplicate; False if none are looked up."""
        if self._near is None:
            return False
        return any(
            sketch.jaccard(self._sketches[number]) >= self.similarity
            for number in self._near.query(sketch)
        )


def find_overlap(
    one: str,
    rows: datasets.Dataset,
    others: Mapping[str, datasets.Dataset],
    *,
    similarity: float | None,
) -> list[Overlap]:
    """Count the rows of one set whose texts are in each of the others.

    Args:
        one: the set's name.
        rows: its rows, with a column `text`.
        others: the sets in which they are looked up, by name; they are held in memory as hashes.
        similarity: estimated Jaccard similarity at which two texts are near duplicates; None to
            count exact matches only, which is much faster. `near` is 0 then.
    """
    indices = [TextIndex(name, other, similarity=similarity) for name, other in others.items()]
    return count_matches(one, rows, indices)


def count_matches(one: str, rows: datasets.Dataset, indices: Sequence[TextIndex]) -> list[Overlap]:
    """Count the rows of one set in sets that are already indexed; see `find_overlap`."""
    if not indices:
        return []
    exact: list[list[int]] = [[] for _ in indices]
    near = [0] * len(indices)
    for number, text in enumerate(folded_texts(rows)):
        digest, sketch = _digest(text), None
        for position, index in enumerate(indices):
            if digest in index:
                exact[position].append(number)
            elif index.similarity is not None:
                if sketch is None:
                    sketch = sketch_of(text)
                near[position] += index.has_near(sketch)
    return [
        Overlap(one, index.name, len(matches), near_matches, np.array(matches, dtype=np.int64))
        for index, matches, near_matches in zip(indices, exact, near, strict=True)
    ]


def folded_texts(rows: datasets.Dataset) -> Iterator[str]:
    """Yield the text of each row in the form that is compared; of a pair, both texts."""
    columns = ["text", "text_pair"] if "text_pair" in rows.column_names else ["text"]
    for batch in rows.select_columns(columns).iter(batch_size=_BATCH_ROWS):
        for texts in zip(*(batch[column] for column in columns), strict=True):
            yield _BETWEEN_TEXTS.join(map(folded, texts))


def near_index(similarity: float) -> MinHashLSH:
    """Return an empty index that proposes candidates for near duplicates of this similarity.

    Candidates are found by their sketches' bands and must still be compared.
    """
    return MinHashLSH(threshold=min(similarity, _MAX_LSH_THRESHOLD), num_perm=_SKETCH_PERMUTATIONS)


def folded(text: str) -> str:
    """Return the text in the form that is compared: NFKC, case-folded, white space collapsed."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def sketch_of(text: str) -> MinHash:
    """Return the MinHash sketch of a folded text's pairs of adjacent words."""
    words = text.split()
    pairs = {" ".join(words[start : start + 2]) for start in range(max(1, len(words) - 1))}
    sketch = MinHash(num_perm=_SKETCH_PERMUTATIONS, seed=1)
    sketch.update_batch([pair.encode() for pair in pairs])
    return sketch
