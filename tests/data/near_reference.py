"""Near duplicates as datasketch finds them, with an index of all texts in memory."""

from __future__ import annotations

from collections.abc import Sequence

from datasketch import MinHash, MinHashLSH


def sketch_of(text: str) -> MinHash:
    """Return the MinHash sketch of a folded text's pairs of adjacent words."""
    words = text.split()
    pairs = {" ".join(words[start : start + 2]) for start in range(max(1, len(words) - 1))}
    sketch = MinHash(num_perm=64, seed=1)
    sketch.update_batch([pair.encode() for pair in pairs])
    return sketch


def lsh(similarity: float) -> MinHashLSH:
    """Return an empty index."""
    return MinHashLSH(threshold=min(similarity, 0.9), num_perm=64)


class Reference:
    """Texts, in which near duplicates of other texts are looked up."""

    def __init__(self, similarity: float) -> None:
        self._similarity = similarity
        self._index = lsh(similarity)
        self._sketches: list[MinHash] = []

    def add(self, text: str) -> None:
        self._index.insert(len(self._sketches), sketch_of(text))
        self._sketches.append(sketch_of(text))

    def has_near(self, text: str) -> bool:
        sketch = sketch_of(text)
        candidates = self._index.query(sketch)
        return any(sketch.jaccard(self._sketches[each]) >= self._similarity for each in candidates)


def near_a_kept_text(texts: Sequence[str], similarity: float) -> list[bool]:
    """Return which texts are near one before them that is kept."""
    kept, near = Reference(similarity), []
    for text in texts:
        near.append(kept.has_near(text))
        if not near[-1]:
            kept.add(text)
    return near
