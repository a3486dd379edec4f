"""The gates reject copies, off-class texts and near duplicates, and count them."""

from __future__ import annotations

import numpy as np

from pennyweight.lab.gates import GateOptions, copied, pass_gates, tfidf_judge
from tiny import news


def test_a_planted_copy_of_an_evaluation_text_is_recognized() -> None:
    held_out = "the quick brown fox jumps over the lazy dog near the river bank"
    texts = [
        "yesterday, the Quick brown fox jumps over the lazy dog again",
        "the quick brown fox sleeps",
        "near the river bank",
    ]
    assert copied(texts, [held_out], words=6).tolist() == [True, False, False]
    assert copied([held_out.upper()], [held_out], words=50).tolist() == [True]


def test_every_text_is_accepted_or_counted_at_the_first_gate_that_rejects_it() -> None:
    rows = news(160, seed=8)
    parents, labels = [text for _, text in rows], np.array([label for label, _ in rows])
    fresh = [text for _, text in news(8, seed=77)]
    texts = [*fresh[:4], parents[0] + " the", fresh[4], fresh[0], "a b c d e f g h i"]
    intended = np.array([0, 1, 2, 3, 0, 1, 0, 2])
    accepted, rejected = pass_gates(
        texts,
        intended,
        GateOptions(confidence=0.5, similarity=0.9, copied_words=8),
        judge=tfidf_judge(parents, labels, classes=4),
        parents=parents,
        protected=["a b c d e f g h i j k"],
    )
    assert rejected["copied"] == 1
    assert rejected["off-class"] >= 1  # the fifth fresh text is of class 0
    assert not accepted[5]
    assert not accepted[6]
    assert accepted[:4].sum() >= 3
    assert accepted.sum() + sum(rejected.values()) == len(texts)


def test_a_class_without_training_texts_is_never_intended() -> None:
    rows = [(label, text) for label, text in news(160, seed=8) if label in (0, 2)]
    judge = tfidf_judge(
        [text for _, text in rows], np.array([label for label, _ in rows]), classes=4
    )

    probabilities = judge([text for _, text in rows[:20]])

    assert probabilities.shape == (20, 4)
    assert not probabilities[:, [1, 3]].any()
    assert [int(row.argmax()) for row in probabilities] == [label for label, _ in rows[:20]]


def test_a_planted_near_duplicate_of_an_evaluation_text_is_rejected() -> None:
    held_out = "goal for the home side in the last week of a long season says the coach"
    words = held_out.split()
    words[6:6] = ["very"]
    accepted, rejected = pass_gates(
        [" ".join(words), "an orbit nobody has seen"],
        np.array([1, 3]),
        GateOptions(confidence=0.5, similarity=0.7, copied_words=15),
        judge=None,
        parents=[],
        protected=[held_out],
    )
    assert accepted.tolist() == [False, True]
    assert rejected == {"copied": 0, "near-duplicate": 1}
