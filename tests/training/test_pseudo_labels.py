"""Pseudo-labels: in equal measure, and better with a second view of the texts."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import softmax

from pennyweight.training.pseudo_labels import TargetAnswers, add_second_view, surest_of_each_class

_TOPICS = ("goal match league", "bank profit shares", "vote law minister")


def _target(rows: int, *, seed: int) -> tuple[list[str], np.ndarray, TargetAnswers]:
    """Return texts whose words give their class away, labels, and a noisy classifier's answers."""
    generator = np.random.default_rng(seed)
    labels = np.arange(rows) % 3
    texts = [
        " ".join([*generator.choice(_TOPICS[label].split(), 3), *generator.choice(list("abc"), 4)])
        for label in labels
    ]
    logits = 1.5 * np.eye(3)[labels] + generator.normal(0.0, 1.2, (rows, 3))
    return texts, labels, TargetAnswers(logits, np.zeros(rows, dtype=np.int64))


def _accuracy(answers: TargetAnswers, labels: np.ndarray) -> float:
    return float((answers.logits.argmax(axis=1) == labels).mean())


def test_classes_get_rows_in_proportion_to_their_shares_and_the_surest_ones() -> None:
    _, _, answers = _target(600, seed=0)
    selected = surest_of_each_class(answers, share=0.3)
    predicted = answers.logits.argmax(axis=1)
    counts = np.bincount(predicted[selected], minlength=3)
    assert np.abs(counts / counts.sum() - answers.shares[0]).max() < 0.01
    assert len(selected) == pytest.approx(180, abs=3)
    assert (np.diff(selected) > 0).all()
    confidence = softmax(answers.logits, axis=1).max(axis=1)
    for label in range(3):
        of_class = np.flatnonzero(predicted == label)
        left_out = np.setdiff1d(of_class, selected)
        chosen = np.intersect1d(of_class, selected)
        assert confidence[chosen].min() >= confidence[left_out].max()


def test_all_rows_can_be_selected_whatever_is_predicted() -> None:
    _, _, answers = _target(60, seed=0)
    assert surest_of_each_class(answers, share=1.0).tolist() == list(range(60))


def test_each_group_has_shares_of_its_own() -> None:
    generator = np.random.default_rng(1)
    groups = np.repeat([0, 1], 300)
    labels = np.where(generator.random(600) < np.where(groups == 0, 0.9, 0.2), 0, 1)
    answers = TargetAnswers(6.0 * np.eye(2)[labels], groups)
    selected = surest_of_each_class(answers, share=0.5)
    for group, expected in ((0, 0.9), (1, 0.2)):
        chosen = labels[selected[groups[selected] == group]]
        assert (chosen == 0).mean() == pytest.approx(expected, abs=0.05)
        assert len(chosen) == pytest.approx(150, abs=2)


def test_a_second_view_corrects_mistakes_and_keeps_the_class_shares() -> None:
    texts, labels, answers = _target(600, seed=2)
    better = add_second_view(texts, answers, share=0.5, rounds=2)
    assert _accuracy(better, labels) > _accuracy(answers, labels) + 0.1
    np.testing.assert_allclose(better.shares, answers.shares, atol=1e-3)
    assert np.array_equal(better.groups, answers.groups)


def test_a_second_view_leaves_rows_like_the_training_texts_as_they_are() -> None:
    texts, labels, answers = _target(600, seed=2)
    unlike = np.arange(600) >= 300
    mixed = TargetAnswers(answers.logits, unlike.astype(np.int64))
    better = add_second_view(texts, mixed)
    first, second = (softmax(one.logits, axis=1) for one in (mixed, better))
    np.testing.assert_allclose(second[~unlike], first[~unlike], atol=1e-3)
    correct = better.logits[unlike].argmax(axis=1) == labels[unlike]
    assert correct.mean() > (mixed.logits[unlike].argmax(axis=1) == labels[unlike]).mean() + 0.1


def test_with_very_few_rows_there_is_no_second_view() -> None:
    texts, _, answers = _target(12, seed=3)
    assert np.array_equal(add_second_view(texts, answers, share=0.5).logits, answers.logits)
