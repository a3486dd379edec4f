"""Near duplicates are those of an index of all texts in memory, whatever the size of the blocks."""

from __future__ import annotations

from pathlib import Path

import datasets
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.near_reference import Reference, near_a_kept_text, sketch_of
from pennyweight.data import near as near_module
from pennyweight.data.near import NearIndex, sketch_blocks, sketches_of
from pennyweight.data.overlap import find_overlap
from pennyweight.environment import cache_directory
from pennyweight.lab.filters import near_duplicates

_WORDS = [f"w{number}" for number in range(40)]
# Parts of one long text, many of which are near each other.
_PARTS = st.tuples(st.integers(0, 30), st.integers(1, 12)).map(
    lambda part: " ".join(_WORDS[part[0] : part[0] + part[1]])
)
_TEXTS = st.lists(_PARTS, max_size=30)
_SIMILARITIES = st.sampled_from([0.3, 0.5, 0.8, 1.0])
_BLOCK_ROWS = st.sampled_from([1, 3, 8, 100])


@settings(max_examples=40, deadline=None)
@given(_TEXTS, _SIMILARITIES, _BLOCK_ROWS)
def test_the_filter_removes_the_texts_that_an_index_in_memory_finds(
    texts: list[str], similarity: float, block_rows: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(near_module, "MANY_ROWS", block_rows)
        near = near_duplicates(texts, similarity=similarity)
    assert near.tolist() == near_a_kept_text(texts, similarity)


@settings(max_examples=40, deadline=None)
@given(_TEXTS, _TEXTS, _SIMILARITIES, _BLOCK_ROWS)
def test_overlaps_are_those_that_an_index_in_memory_finds(
    texts: list[str], others: list[str], similarity: float, block_rows: int
) -> None:
    one, other = (datasets.Dataset.from_dict({"text": each}) for each in (texts, others))
    if not texts or not others:
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(near_module, "MANY_ROWS", block_rows)
        (overlap,) = find_overlap("one", one, {"other": other}, similarity=similarity)
    reference = Reference(similarity)
    for text in others:
        reference.add(text)
    exact = [row for row, text in enumerate(texts) if text in others]
    assert overlap.exact_rows.tolist() == exact
    rest = [text for row, text in enumerate(texts) if row not in exact]
    assert overlap.near == sum(map(reference.has_near, rest))


def test_sketches_are_those_of_datasketch() -> None:
    texts = ["one", "one two three", ""]
    expected = [sketch_of(text).hashvalues for text in texts]
    assert np.array_equal(sketches_of(texts), expected)


def test_blocks_are_full_but_for_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near_module, "MANY_ROWS", 3)
    assert [len(block) for block in sketch_blocks(_WORDS[:8])] == [3, 3, 2]
    assert [len(block) for block in sketch_blocks(_WORDS[:6])] == [3, 3]
    assert list(sketch_blocks([])) == []


def test_many_sketches_are_memory_mapped_and_leave_no_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PENNYWEIGHT_CACHE", str(tmp_path))
    few, many = NearIndex(0.8), NearIndex(0.8)
    few.add(sketches_of(_WORDS[:8]))
    monkeypatch.setattr(near_module, "MANY_ROWS", 5)
    for block in sketch_blocks(_WORDS[:8]):
        many.add(block)
    assert [isinstance(block.keys, np.memmap) for block in few._blocks] == [False]
    assert [isinstance(block.sketches, np.memmap) for block in many._blocks] == [True, True]
    assert not list((cache_directory() / "near").iterdir())
    found = sketches_of(_WORDS[6:10])
    assert many.has_near(found).tolist() == few.has_near(found).tolist() == [True] * 2 + [False] * 2


def test_a_text_with_more_candidates_than_are_compared_at_once_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    texts = [" ".join([*_WORDS, f"x{number}"]) for number in range(20)]
    index = NearIndex(0.8)
    index.add(sketches_of(texts))
    monkeypatch.setattr(near_module, "_PAIRS", 3)
    assert index.has_near(sketches_of([texts[-1] + " more", "other"])).tolist() == [True, False]
