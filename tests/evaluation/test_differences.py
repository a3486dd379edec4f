"""Differences of systems: the same as scipy's where it has them, calibrated, and symmetric."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit
from scipy.stats import bootstrap
from sklearn.metrics import f1_score

from pennyweight.evaluation.answers import answered_rows
from pennyweight.evaluation.differences import Difference, compare_answers
from pennyweight.evaluation.paired_tests import mcnemar


def answers_of(
    draw: np.random.Generator,
    rows: int,
    runs: int,
    *,
    seed_spread: float,
    hardness: np.ndarray,
    shift: float = 0.0,
) -> list[np.ndarray]:
    """Return the answers of runs of one recipe; label 1 is right.

    Rows differ in how hard they are, and runs in how good their seed is, both on the logit scale.
    """
    seeds = draw.normal(0.0, seed_spread, size=runs)
    return [(draw.random(rows) < expit(hardness + shift + seed)).astype(int) for seed in seeds]


def difference(
    labels: np.ndarray,
    groups: tuple[list[np.ndarray], list[np.ndarray]],
    *,
    metric: str = "accuracy",
    seeds: tuple[Sequence[int], Sequence[int]] | None = None,
    resamples: int = 400,
) -> Difference:
    rows = answered_rows(labels, [*groups[0], *groups[1]], classes=2, metric=metric)
    first, second = seeds or (range(len(groups[0])), range(len(groups[1])))
    return compare_answers(
        rows, reference_seeds=first, seeds=second, resamples=resamples, swaps=500
    )


def binary_macro_f1(labels: np.ndarray, predicted: np.ndarray) -> float:
    scores = []
    for label in (0, 1):
        hits = ((labels == label) & (predicted == label)).sum()
        scores.append(2 * hits / ((labels == label).sum() + (predicted == label).sum()))
    return float(np.mean(scores))


@pytest.fixture(scope="module")
def pair() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, and the answers of two runs on the same 250 rows."""
    draw = np.random.default_rng(0)
    labels = (draw.random(250) < 0.3).astype(int)
    first, second = (np.where(draw.random(250) < p, labels, 1 - labels) for p in (0.75, 0.85))
    return labels, first, second


@pytest.mark.parametrize("metric", ["accuracy", "macro_f1"])
def test_the_interval_of_two_runs_is_that_of_scipys_paired_bootstrap(
    metric: str, pair: tuple[np.ndarray, np.ndarray, np.ndarray]
) -> None:
    labels, first, second = pair

    def statistic(rows: np.ndarray) -> float:
        true, one, other = labels[rows], first[rows], second[rows]
        if metric == "accuracy":
            return float((other == true).mean() - (one == true).mean())
        return binary_macro_f1(true, other) - binary_macro_f1(true, one)

    expected = bootstrap(
        (np.arange(250),),
        statistic,
        vectorized=False,
        n_resamples=2000,
        method="percentile",
        rng=np.random.default_rng(1),
    )
    result = difference(labels, ([first], [second]), metric=metric, resamples=8000)
    assert result.value == pytest.approx(statistic(np.arange(250)))
    assert result.interval == pytest.approx(expected.confidence_interval, abs=0.015)
    assert result.standard_error == pytest.approx(expected.standard_error, rel=0.1)


def test_p_of_the_accuracy_of_two_runs_is_mcnemars(
    pair: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    labels, first, second = pair
    test, result = (
        mcnemar(first == labels, second == labels),
        difference(labels, ([first], [second])),
    )
    assert result.test == "mcnemar"
    assert (result.p, result.only_reference, result.only_system) == (
        *(test.p, test.only_one, test.only_other),
    )


def test_rows_with_several_labels_are_compared_by_macro_f1(
    pair: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    labels, first, second = (np.stack([each, 1 - each], axis=1) for each in pair)
    rows = answered_rows(labels, [first, second], classes=2, metric="macro_f1")
    expected = [f1_score(labels, each, average="macro") for each in (first, second)]
    assert rows.scores() == pytest.approx(expected)
    result = compare_answers(rows, reference_seeds=[1], seeds=[1], resamples=400, swaps=500)
    assert result.test == "randomization"
    assert result.value == pytest.approx(expected[1] - expected[0])
    # The same task, written with one label per row.
    single = answered_rows(*_split(pair), classes=2, metric="macro_f1")
    assert rows.scores() == pytest.approx(single.scores())


def _split(
    pair: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> tuple[np.ndarray, list[np.ndarray]]:
    return pair[0], [pair[1], pair[2]]


def test_a_class_that_occurs_nowhere_does_not_count() -> None:
    labels = np.array([0, 0, 1, 1])
    rows = answered_rows(labels, [labels], classes=3, metric="macro_f1")
    assert rows.scores() == pytest.approx([1.0])


def test_the_variance_over_rows_and_seeds_is_that_of_the_analysis_of_variance() -> None:
    draw = np.random.default_rng(3)
    hardness = draw.normal(1.5, 1.5, size=400)
    groups = [
        answers_of(draw, 400, 4, seed_spread=0.4, hardness=hardness, shift=shift)
        for shift in (0.0, 0.5)
    ]
    result = difference(np.ones(400, int), (groups[0], groups[1]), resamples=20_000)
    # Mean squares of a table of rows by seeds, without replication.
    table = np.array(groups[1]).T - np.array(groups[0]).T
    rows, seeds = table.shape
    residual = table - table.mean(0) - table.mean(1, keepdims=True) + table.mean()
    noise = (residual**2).sum() / ((rows - 1) * (seeds - 1))
    by_row = seeds * table.mean(1).var(ddof=1)
    by_seed = rows * table.mean(0).var(ddof=1)
    expected = (by_row + by_seed - noise) / (rows * seeds)
    assert result.test == "rows-and-seeds"
    assert result.standard_error**2 == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize(
    ("seeds", "spread"),
    [
        (((1, 2, 3), (1, 2, 3)), 0.0),
        (((1, 2, 3), (1, 2, 3)), 0.3),
        (((1, 2, 3), (4, 5, 6, 7)), 0.3),
        (((1,), (2,)), 0.0),
    ],
)
def test_equal_systems_are_told_apart_in_about_one_of_twenty_comparisons_at_most(
    seeds: tuple[tuple[int, ...], tuple[int, ...]], spread: float
) -> None:
    draw, repetitions = np.random.default_rng(5), 150
    found = 0
    for _ in range(repetitions):
        hardness = draw.normal(1.5, 1.5, size=200)
        first, second = (
            answers_of(draw, 200, len(each), seed_spread=spread, hardness=hardness)
            for each in seeds
        )
        result = difference(np.ones(200, int), (first, second), seeds=seeds, resamples=200)
        found += result.p < 0.05
    # More than 16 of 150 have a probability of 0.2 % at a rate of 5 %.
    assert found <= 16


def test_intervals_contain_the_true_difference_in_19_of_20_comparisons() -> None:
    draw, repetitions, covered = np.random.default_rng(6), 150, 0
    everything = draw.normal(1.5, 1.5, size=100_000)
    chances = [
        expit(everything[:, None] + shift + draw.normal(0.0, 0.25, size=(1, 40))).mean()
        for shift in (0.0, 0.6)
    ]
    true = chances[1] - chances[0]
    for _ in range(repetitions):
        hardness = draw.choice(everything, size=200)
        first, second = (
            answers_of(draw, 200, 4, seed_spread=0.25, hardness=hardness, shift=shift)
            for shift in (0.0, 0.6)
        )
        low, high = difference(np.ones(200, int), (first, second), resamples=200).interval
        covered += low <= true <= high
    assert 0.9 <= covered / repetitions <= 1.0


def test_single_runs_of_one_recipe_differ_more_often_than_rows_alone_explain() -> None:
    draw, found = np.random.default_rng(7), 0
    for _ in range(60):
        hardness = draw.normal(1.5, 1.5, size=500)
        runs = answers_of(draw, 500, 2, seed_spread=0.4, hardness=hardness)
        found += difference(np.ones(500, int), ([runs[0]], [runs[1]]), resamples=100).p < 0.05
    assert found > 10  # why a comparison of single runs does not speak of recipes


def test_the_variance_of_a_single_run_is_taken_from_the_other_system() -> None:
    draw = np.random.default_rng(8)
    hardness = draw.normal(1.5, 1.5, size=400)
    runs = answers_of(draw, 400, 5, seed_spread=0.5, hardness=hardness)
    labels = np.ones(400, int)
    alone = difference(labels, (runs[:1], runs[1:2]))
    against_four = difference(labels, (runs[:1], runs[1:]), seeds=((9,), (1, 2, 3, 4)))
    assert against_four.standard_error > alone.standard_error
    assert against_four.degrees_of_freedom is not None
    assert against_four.degrees_of_freedom < 10


def test_identical_runs_show_no_difference_and_nothing_detectable() -> None:
    labels = np.array([0, 1, 1, 0] * 10)
    for metric, size in (("macro_f1", 1), ("accuracy", 2), ("macro_f1", 2)):
        result = difference(labels, ([labels] * size, [labels] * size), metric=metric)
        assert (result.value, result.p, result.detectable) == (0.0, 1.0, None)
        assert result.interval == (0.0, 0.0)


def test_runs_that_hardly_differ_are_not_said_to_detect_less_than_their_rows_can_show() -> None:
    labels = np.array([0, 1] * 100)
    almost = labels.copy()
    almost[0] = 1
    for other in (labels, almost):
        smallest = difference(labels, ([labels], [other])).detectable
        assert smallest is not None
        # Of a run that is right wherever the other one is, and on more rows.
        power, power_of_half = (
            np.mean([_mcnemar_p(200, more) < 0.05 for more in draws])
            for draws in (
                np.random.default_rng(0).binomial(200, share, size=300)
                for share in (smallest, smallest / 2)
            )
        )
        assert power > 0.75
        assert power_of_half < 0.5


def _mcnemar_p(rows: int, only_other: int) -> float:
    return mcnemar(np.zeros(rows, dtype=bool), np.arange(rows) < only_other).p


@st.composite
def systems(
    draw: st.DrawFn,
) -> tuple[np.ndarray, tuple[list[np.ndarray], list[np.ndarray]], tuple[range, range]]:
    rows = draw(st.integers(8, 30))
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    sizes = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    labels = generator.integers(0, 2, rows)
    groups = tuple(
        [np.where(generator.random(rows) < 0.8, labels, 1 - labels) for _ in range(size)]
        for size in sizes
    )
    start = draw(st.sampled_from((0, 10)))
    return labels, (groups[0], groups[1]), (range(sizes[0]), range(start, start + sizes[1]))


@settings(max_examples=30, deadline=None)
@given(systems(), st.sampled_from(["accuracy", "macro_f1"]))
def test_exchanging_the_systems_turns_the_difference_around(
    given_systems: tuple[
        np.ndarray, tuple[list[np.ndarray], list[np.ndarray]], tuple[range, range]
    ],
    metric: str,
) -> None:
    labels, groups, seeds = given_systems
    forth = difference(labels, groups, metric=metric, seeds=seeds, resamples=2000)
    back = difference(labels, groups[::-1], metric=metric, seeds=seeds[::-1], resamples=2000)
    assert forth.value == pytest.approx(-back.value)
    assert forth.interval[0] <= forth.value <= forth.interval[1]
    assert 0.0 <= forth.p <= 1.0
    assert forth.p == pytest.approx(back.p)
    assert forth.interval == pytest.approx((-back.interval[1], -back.interval[0]), abs=1e-9)
    assert forth.standard_error == pytest.approx(back.standard_error, abs=1e-9)


def test_the_number_of_seeds_has_to_be_that_of_the_runs() -> None:
    rows = answered_rows(np.array([0, 1]), [np.array([0, 1])] * 2, classes=2, metric="accuracy")
    with pytest.raises(ValueError, match=r"2 runs, but 2 \+ 1 seeds"):
        compare_answers(rows, reference_seeds=[1, 2], seeds=[1])
    with pytest.raises(ValueError, match="at least one row"):
        answered_rows(np.array([0, 1]), [np.array([0])], classes=2, metric="accuracy")
