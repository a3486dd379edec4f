"""Filters remove the rows that they should, and keep the others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.near_reference import lsh, sketch_of
from pennyweight.data.overlap import folded
from pennyweight.errors import DataError
from pennyweight.lab.filters import FILTERS, keep_rows, near_duplicates
from pennyweight.lab.fine_tuning import FineTuning
from pennyweight.lab.language_model import LanguageModel, ModelSize
from tiny import news

ROWS = news(120, seed=5)
TEXTS = [text for _, text in ROWS]
LABELS = np.array([label for label, _ in ROWS])


def _keep(method: str, texts: list[str] | None = None, **options: Any) -> np.ndarray:
    labels = LABELS if texts is None else np.zeros(len(texts), dtype=np.int64)
    return keep_rows(texts or TEXTS, labels, method=method, seed=1, options=options)


def _similarity(first: str, second: str) -> float:
    """Return the estimated Jaccard similarity of two texts' pairs of words."""
    return sketch_of(folded(first)).jaccard(sketch_of(folded(second)))


def test_length_counts_words() -> None:
    kept = _keep("length", ["a", "a b", "a b c", "a b c d"], shortest=2, longest=3)
    assert kept.tolist() == [False, True, True, False]


def test_duplicates_keep_the_first_of_each_text() -> None:
    kept = _keep("duplicates", ["A  b", "a b", "c", "A B", "c d"])
    assert kept.tolist() == [True, False, True, False, True]


def test_a_planted_near_duplicate_is_removed_and_other_texts_are_kept() -> None:
    long = "central bank raises interest rates by a quarter point after months of rising prices"
    kept = _keep(
        "near-duplicates", [long, "goal in the last minute", long + " today"], similarity=0.8
    )
    assert kept.tolist() == [True, True, False]
    assert near_duplicates(["x y z", long.upper()], similarity=0.8, others=[long]).tolist() == [
        False,
        True,
    ]


@settings(max_examples=25)
@given(st.lists(st.sampled_from(TEXTS), min_size=1, max_size=30))
def test_of_exact_copies_the_first_is_kept_and_no_other(texts: list[str]) -> None:
    near = near_duplicates(texts, similarity=0.99)
    kept = [text for text, is_near in zip(texts, near.tolist(), strict=True) if not is_near]
    assert kept == list(dict.fromkeys(texts))


@settings(max_examples=25)
@given(
    st.lists(st.text("abc ", min_size=1, max_size=12), max_size=25),
    st.lists(st.text("abc ", min_size=1, max_size=12), max_size=5),
    st.sampled_from([0.3, 0.5, 0.8, 1.0]),
)
def test_a_text_is_removed_only_for_a_kept_text_before_it_and_never_kept_beside_its_copy(
    texts: list[str], others: list[str], similarity: float
) -> None:
    near = near_duplicates(texts, similarity=similarity, others=others)
    kept = list(others)
    for text, is_near in zip(texts, near.tolist(), strict=True):
        if is_near:
            assert any(_similarity(text, other) >= similarity for other in kept)
        else:
            assert folded(text) not in [folded(other) for other in kept]
            kept.append(text)


def test_a_removed_text_removes_no_other() -> None:
    words = [f"w{number}" for number in range(60)]
    first, second, third = (" ".join(words[start : start + 40]) for start in (0, 9, 18))
    # Neighbours share 30 of 48 pairs of words, the first and the third only 21 of 57.
    assert near_duplicates([first, second], similarity=0.5).tolist() == [False, True]
    assert near_duplicates([second, third], similarity=0.5).tolist() == [False, True]
    assert near_duplicates([first, second, third], similarity=0.5).tolist() == [False, True, False]


def test_a_candidate_of_the_index_below_the_similarity_is_kept() -> None:
    first = " ".join(f"w{number}" for number in range(40))
    index = lsh(0.5)
    index.insert(0, sketch_of(first))
    shifted = [" ".join(f"w{number}" for number in range(n, n + 40)) for n in range(10, 25)]
    below = [text for text in shifted if _similarity(first, text) < 0.5]
    candidates = [text for text in below if index.query(sketch_of(text))]
    assert candidates
    for text in candidates:
        assert not near_duplicates([first, text], similarity=0.5).any()


@pytest.mark.parametrize("method", ["label-noise", "agreement"])
def test_rows_with_wrong_labels_are_removed(method: str) -> None:
    if method == "label-noise":
        pytest.importorskip("cleanlab")
    wrong = np.arange(0, 120, 13)
    labels = LABELS.copy()
    labels[wrong] = (labels[wrong] + 1) % 4
    kept = keep_rows(TEXTS, labels, method=method, seed=1, options={"folds": 4})
    assert (~kept[wrong]).mean() >= 0.8
    assert kept[np.setdiff1d(np.arange(120), wrong)].mean() > 0.95


def test_more_folds_than_rows_of_a_class_are_refused() -> None:
    with pytest.raises(DataError, match="the smallest class has 2 rows"):
        keep_rows(TEXTS[:8], LABELS[:8], method="agreement", seed=1, options={"folds": 3})


def test_the_perplexity_filter_removes_the_text_that_is_unlike_all_others(tmp_path: Path) -> None:
    size = ModelSize(vocabulary=300, layers=1, width=32, heads=2, context=64)
    model = LanguageModel.untrained(TEXTS, size)
    model.fit(TEXTS, FineTuning(epochs=20, learning_rate=3e-3, batch_tokens=512))
    model.save(tmp_path / "lm")
    texts = ["zq xk vv jj qq zz kk xx qz", *TEXTS[:19]]
    kept = _keep("perplexity", texts, model=str(tmp_path / "lm"), share=0.05)
    assert not kept[0]
    assert kept[1:].all()


def test_every_filter_has_a_name_and_a_summary() -> None:
    assert all(name == entry.name and entry.summary for name, entry in FILTERS.items())
