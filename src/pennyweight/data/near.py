"""Near duplicates among any number of texts, in bounded memory.

Texts are compared by MinHash sketches of their pairs of adjacent words (Broder, "On the resemblance
and containment of documents", 1997). Candidates are texts that share a band of their sketches
(locality-sensitive hashing), and are then compared by the whole sketch. Sketches are indexed in
blocks, whose bands are sorted. A single block stays in memory; once there are `MANY_ROWS` sketches,
blocks are written to files and memory-mapped, so that memory does not grow with the texts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from datasketch import MinHash, MinHashLSH

from pennyweight.data.scale import MANY_ROWS
from pennyweight.environment import cache_directory
from pennyweight.files import building_in

__all__ = ["NearIndex", "sketch_blocks", "sketches_of"]

_PERMUTATIONS = 64
# With this many permutations, datasketch cannot choose bands for a threshold close to 1. A lower
# one only proposes more candidates, which are compared with the requested similarity anyway.
_MAX_LSH_THRESHOLD = 0.9
# Pairs of sketches that are compared at once, 256 bytes each.
_PAIRS = 2**16


def sketches_of(texts: Iterable[str]) -> np.ndarray:
    """Return the MinHash sketches of folded texts, uint32 `[texts, permutations]`."""
    pairs = ([pair.encode() for pair in _word_pairs(text)] for text in texts)
    sketches = MinHash.generator(pairs, num_perm=_PERMUTATIONS, seed=1)
    values = [sketch.hashvalues for sketch in sketches]
    return np.array(values, dtype=np.uint32).reshape(-1, _PERMUTATIONS)


def sketch_blocks(texts: Iterable[str]) -> Iterator[np.ndarray]:
    """Yield the sketches of folded texts, in blocks of at most `MANY_ROWS`."""
    texts = iter(texts)
    while True:
        # Only the rows that are written take memory.
        block = np.empty((MANY_ROWS, _PERMUTATIONS), dtype=np.uint32)
        rows = 0
        while rows < MANY_ROWS:
            part = sketches_of(islice(texts, min(1000, MANY_ROWS - rows)))
            if not len(part):
                break
            block[rows : rows + len(part)] = part
            rows += len(part)
        if rows:
            yield block[:rows]
        if rows < MANY_ROWS:
            return


def _word_pairs(text: str) -> set[str]:
    words = text.split()
    return {" ".join(words[start : start + 2]) for start in range(max(1, len(words) - 1))}


class NearIndex:
    """Sketches of texts, in which near duplicates of other texts are looked up.

    Args:
        similarity: estimated Jaccard similarity from which two texts are near duplicates.
    """

    def __init__(self, similarity: float) -> None:
        self._similarity = similarity
        lsh = MinHashLSH(threshold=min(similarity, _MAX_LSH_THRESHOLD), num_perm=_PERMUTATIONS)
        self._bands, self._band_size = lsh.b, lsh.r
        self._blocks: list[_Block] = []

    def add(self, sketches: np.ndarray) -> None:
        """Add a block of sketches; the fewer calls, the faster the look-up."""
        if not len(sketches):
            return
        # Copies would make the look-up slow, and find nothing more.
        _, firsts = np.unique(_hashed(sketches), return_index=True)
        if len(firsts) < len(sketches):
            sketches = sketches[np.sort(firsts)]
        keys = self._keys(sketches)
        order = np.argsort(keys, axis=1).astype(np.uint32)
        block = _Block(np.take_along_axis(keys, order, axis=1), order, sketches)
        if self._blocks or len(sketches) >= MANY_ROWS:
            self._blocks = [each.stored() for each in self._blocks]
            block = block.stored()
        self._blocks.append(block)

    def has_near(self, sketches: np.ndarray) -> np.ndarray:
        """Return which sketches are near one that was added, bool `[texts]`."""
        near = np.zeros(len(sketches), dtype=bool)
        keys = self._keys(sketches)
        # In ascending order, so that memory-mapped keys are read from front to back.
        by_key = np.argsort(keys, axis=1)
        for block in self._blocks:
            for band in range(self._bands):
                rows = by_key[band][~near[by_key[band]]]
                keys_of_rows = keys[band, rows]
                first = np.searchsorted(block.keys[band], keys_of_rows, side="left")
                counts = np.searchsorted(block.keys[band], keys_of_rows, side="right") - first
                for positions, members in _pairs(first, counts):
                    candidates = block.sketches[block.order[band, members]]
                    is_near = self._are_near(sketches[rows[positions]], candidates)
                    near[rows[positions[is_near]]] = True
        return near

    def add_new(self, sketches: np.ndarray) -> np.ndarray:
        """Add the sketches that are near none before them, in the block or added earlier.

        Returns:
            Which sketches were near one, and were not added, bool `[texts]`.
        """
        near = self.has_near(sketches)
        keys = self._keys(sketches)
        groups = np.empty(keys.shape, dtype=np.int32)
        is_shared = np.zeros(len(sketches), dtype=bool)
        for band in range(self._bands):
            _, groups[band], counts = np.unique(keys[band], return_inverse=True, return_counts=True)
            is_shared |= counts[groups[band]] > 1
        # The last sketch of each group that was added, and for each of them the one before it.
        last = np.full(keys.shape, -1, dtype=np.int32)
        before = np.full(keys.shape, -1, dtype=np.int32)
        bands = np.arange(self._bands)
        for row in np.flatnonzero(is_shared & ~near).tolist():
            candidates = set()
            for band, group in enumerate(groups[:, row].tolist()):
                candidate = int(last[band, group])
                while candidate >= 0:
                    candidates.add(candidate)
                    candidate = int(before[band, candidate])
            if self._are_near(sketches[row], sketches[list(candidates)]).any():
                near[row] = True
                continue
            before[bands, row] = last[bands, groups[:, row]]
            last[bands, groups[:, row]] = row
        self.add(sketches[~near])
        return near

    def _are_near(self, sketches: np.ndarray, others: np.ndarray) -> np.ndarray:
        return np.count_nonzero(sketches == others, axis=1) / _PERMUTATIONS >= self._similarity

    def _keys(self, sketches: np.ndarray) -> np.ndarray:
        """Return a hash of each band, uint64 `[bands, texts]`."""
        size = self._band_size
        starts = range(0, self._bands * size, size)
        return np.stack([_hashed(sketches[:, start : start + size]) for start in starts])


@dataclass(frozen=True, slots=True)
class _Block:
    """Some sketches, which are found by their bands.

    Attributes:
        keys: hash of each band, ascending within each band, uint64 `[bands, texts]`.
        order: row of `sketches` that each key is of, uint32 `[bands, texts]`.
        sketches: uint32 `[texts, permutations]`.
    """

    keys: np.ndarray
    order: np.ndarray
    sketches: np.ndarray

    def stored(self) -> _Block:
        """Return the block with memory-mapped arrays; they are written if they are in memory."""
        if isinstance(self.keys, np.memmap):
            return self
        arrays = {}
        cache = cache_directory() / "near"
        # What is mapped stays readable, and leaves the disk with the process, however it ends.
        with building_in(cache), TemporaryDirectory(dir=cache) as folder:
            for field in fields(self):
                path = Path(folder) / f"{field.name}.npy"
                np.save(path, getattr(self, field.name))
                arrays[field.name] = np.load(path, mmap_mode="r")
        return _Block(**arrays)


def _hashed(values: np.ndarray) -> np.ndarray:
    """Return a 64-bit hash of each row of a uint32 matrix, by multilinear hashing, uint64 `[rows]`.

    A collision of two bands only proposes one more candidate.
    """
    factors = np.random.default_rng(0).integers(1, 2**64, (values.shape[1],), dtype=np.uint64)
    hashed = np.zeros(len(values), dtype=np.uint64)
    for column, factor in enumerate(factors):
        hashed += values[:, column].astype(np.uint64) * factor
    return hashed


def _pairs(first: np.ndarray, counts: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the pairs of each position and the members first, first + 1, ... of its group.

    They come in parts of at most `_PAIRS`.

    Args:
        first: int64 `[positions]`, the first member of the group of each position.
        counts: int64 `[positions]`, the number of its members.
    """
    ends = np.cumsum(counts)
    total = int(ends[-1]) if len(ends) else 0
    for start in range(0, total, _PAIRS):
        pairs = np.arange(start, min(start + _PAIRS, total))
        positions = np.searchsorted(ends, pairs, side="right")
        yield positions, first[positions] + pairs - (ends - counts)[positions]
