"""Find texts that two sets share, exactly or nearly.

Texts are compared after NFKC normalization, case folding and collapsing of white space, and the two
texts of a pair are compared together; `near` says how near duplicates are found. The held-out sets
are indexed and the other rows stream past them, so memory grows with the held-out sets alone: by 16
bytes for each of their rows, and the indices of exact matches.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal

import datasets
import numpy as np

from pennyweight.data.near import NearIndex, sketch_blocks, sketches_of

__all__ = [
    "Overlap",
    "OverlapCount",
    "OverlapPolicy",
    "TextIndex",
    "count_matches",
    "digests_of",
    "find_overlap",
    "folded",
    "folded_texts",
]

_BATCH_ROWS = 1000
# Rows that are looked up at once.
_LOOKED_UP_ROWS = 10_000
_DIGEST_BYTES = 16
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
        self._digests = np.sort(digests_of(folded_texts(rows)))
        self._near = None if similarity is None else NearIndex(similarity)
        if self._near is not None:
            for sketches in sketch_blocks(folded_texts(rows)):
                self._near.add(sketches)

    @property
    def looks_up_near(self) -> bool:
        """Whether near duplicates are looked up, not exact matches alone."""
        return self._near is not None

    def has(self, digests: np.ndarray) -> np.ndarray:
        """Return which texts are in the set, bool `[texts]`, by their `digests_of`."""
        places = np.searchsorted(self._digests, digests)
        places[places == len(self._digests)] = 0
        return self._digests[places] == digests if len(self._digests) else places < 0

    def has_near(self, sketches: np.ndarray) -> np.ndarray:
        """Return which sketches have a near duplicate in the set, bool `[texts]`."""
        assert self._near is not None  # noqa: S101 - near duplicates are looked up
        return self._near.has_near(sketches)


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
    exact: list[list[np.ndarray]] = [[] for _ in indices]
    near = [0] * len(indices)
    remaining, start = folded_texts(rows), 0
    while texts := list(islice(remaining, _LOOKED_UP_ROWS)):
        digests = digests_of(texts)
        is_exact = [index.has(digests) for index in indices]
        # Texts are sketched only if they are looked up in a set that does not have them.
        is_sketched = np.zeros(len(texts), dtype=bool)
        for index, found in zip(indices, is_exact, strict=True):
            is_sketched |= ~found & index.looks_up_near
        sketched = np.flatnonzero(is_sketched)
        sketches = sketches_of(texts[row] for row in sketched) if len(sketched) else None
        for number, (index, found) in enumerate(zip(indices, is_exact, strict=True)):
            exact[number].append(start + np.flatnonzero(found))
            if index.looks_up_near and sketches is not None:
                near[number] += int(index.has_near(sketches[~found[sketched]]).sum())
        start += len(texts)
    matches = [np.concatenate([np.empty(0, np.int64), *parts]) for parts in exact]
    return [
        Overlap(one, index.name, len(exact_rows), near_rows, exact_rows)
        for index, exact_rows, near_rows in zip(indices, matches, near, strict=True)
    ]


def folded_texts(rows: datasets.Dataset) -> Iterator[str]:
    """Yield the text of each row in the form that is compared; of a pair, both texts."""
    columns = ["text", "text_pair"] if "text_pair" in rows.column_names else ["text"]
    for batch in rows.select_columns(columns).iter(batch_size=_BATCH_ROWS):
        for texts in zip(*(batch[column] for column in columns), strict=True):
            yield _BETWEEN_TEXTS.join(map(folded, texts))


def folded(text: str) -> str:
    """Return the text in the form that is compared: NFKC, case-folded, white space collapsed."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def digests_of(texts: Iterable[str]) -> np.ndarray:
    """Return a 16-byte digest of each folded text; equal texts have equal ones."""
    digests = bytearray()
    for text in texts:
        digests += hashlib.blake2b(text.encode(), digest_size=_DIGEST_BYTES).digest()
    return np.frombuffer(digests, dtype=f"S{_DIGEST_BYTES}")
