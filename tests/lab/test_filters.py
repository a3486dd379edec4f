"""Filters: each takes out what it should, nothing else, and the same every time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pennyweight.errors import DataError
from pennyweight.lab.filters import FILTERS, keep_rows, near_duplicates
from pennyweight.lab.language_model import LanguageModel
from runs.tiny import news

ROWS = news(120, seed=5)
TEXTS = [text for _, text in ROWS]
LABELS = np.array([label for label, _ in ROWS])


def _keep(method: str, texts: list[str] | None = None, **options: Any) -> np.ndarray:
    given = TEXTS if texts is None else texts
    labels = LABELS if texts is None else np.zeros(len(given), dtype=np.int64)
    return keep_rows(given, labels, method=method, seed=1, options=options)


def test_length_counts_words() -> None:
    kept = _keep("length", ["a", "a b", "a b c", "a b c d"], shortest=2, longest=3)
    assert kept.tolist() == [False, True, True, False]


def test_duplicates_keep_the_first_of_each_text() -> None:
    kept = _keep("duplicates", ["A  b", "a b", "c", "A B", "c d"])
    assert kept.tolist() == [True, False, True, False, True]


def test_a_planted_near_duplicate_is_found_and_others_are_not() -> None:
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
def test_exact_copies_are_near_duplicates_and_one_of_each_stays(texts: list[str]) -> None:
    near = near_duplicates(texts, similarity=0.99)
    kept = [text for text, gone in zip(texts, near.tolist(), strict=True) if not gone]
    assert len(set(texts)) >= len(kept) > 0
    assert {frozenset(t.split()) for t in texts} >= {frozenset(t.split()) for t in kept}


@pytest.mark.parametrize("method", ["label-noise", "agreement"])
def test_wrong_labels_are_found(method: str) -> None:
    if method == "label-noise":
        pytest.importorskip("cleanlab")
    wrong = np.arange(0, 120, 13)
    labels = LABELS.copy()
    labels[wrong] = (labels[wrong] + 1) % 4
    kept = keep_rows(TEXTS, labels, method=method, seed=1, options={"folds": 4})
    assert (~kept[wrong]).mean() >= 0.8
    assert kept[np.setdiff1d(np.arange(120), wrong)].mean() > 0.95


def test_folds_that_a_class_cannot_fill_are_refused() -> None:
    with pytest.raises(DataError, match="one class has 2 rows"):
        keep_rows(TEXTS[:8], LABELS[:8], method="agreement", seed=1, options={"folds": 3})


def test_perplexity_takes_out_the_oddest(tmp_path: object) -> None:
    model = LanguageModel.untrained(TEXTS, vocabulary=300, layers=1, width=32, heads=2, context=64)
    model.fit(TEXTS, epochs=20, learning_rate=3e-3, batch_tokens=512)
    model.save(tmp_path / "lm")  # type: ignore[operator]
    odd = ["zq xk vv jj qq zz kk xx qz", *TEXTS[:19]]
    kept = _keep("perplexity", odd, model=str(tmp_path / "lm"), share=0.05)  # type: ignore[operator]
    assert not kept[0]
    assert kept[1:].all()


def test_every_filter_has_a_name_and_a_summary() -> None:
    assert all(name == entry.name and entry.summary for name, entry in FILTERS.items())
