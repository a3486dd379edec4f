"""Finished runs are grouped into systems and compared on the rows that they share."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pennyweight.errors import RunError
from pennyweight.evaluation.statistics import holm
from pennyweight.search.compare import compare_runs
from pennyweight.search.study_directory import row_directory
from runs.finished import noisy_answers, write_run

LABELS = np.array([0, 1] * 100)


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Path]:
    """Writes a run with an accuracy on the test, and returns its directory."""

    def write(name: str, accuracy: float = 0.8, *, seed: int = 1, **options: Any) -> Path:
        number = sum(map(ord, name)) + 1000 * seed
        answers = noisy_answers(LABELS, accuracy, seed=number)
        sets = options.pop("sets", {"test": (LABELS, answers)})
        return write_run(tmp_path / name, sets, seed=seed, **options)

    return write


def wide(alpha: float) -> dict[str, Any]:
    return {"adapter": {"alpha": alpha}}


def test_runs_that_differ_only_in_the_seed_and_the_name_are_one_system(
    run: Callable[..., Path],
) -> None:
    paths = [run(f"a{seed}", seed=seed, recipe={"name": f"a{seed}"}) for seed in (1, 2, 3)]
    paths += [run(f"b{seed}", 0.95, seed=seed, recipe=wide(7.0)) for seed in (1, 2, 3)]
    result = compare_runs([paths[0], paths[3], *paths[1:3], *paths[4:]])
    assert [(system.name, system.seeds) for system in result.systems] == [
        ("a1", (1, 2, 3)),
        ("example", (1, 2, 3)),
    ]
    (test,) = result.sets
    assert (test.name, test.rows, test.metric) == ("test", 200, "accuracy")
    (pair,) = test.comparisons
    first, second = test.scores
    assert pair.difference.value == pytest.approx(second.mean - first.mean)
    assert pair.difference.test == "rows-and-seeds"
    assert pair.verdict == "better"
    assert pair.adjusted_p == pair.difference.p < 0.05


def test_systems_of_the_same_name_are_told_apart_by_their_directories(
    run: Callable[..., Path],
) -> None:
    result = compare_runs([run("a"), run("b", recipe=wide(7.0))])
    assert [system.name for system in result.systems] == ["example (a)", "example (b)"]
    assert result.sets[0].comparisons[0].difference.test == "mcnemar"


def test_groups_and_the_reference_can_be_named(run: Callable[..., Path]) -> None:
    paths = [run(name, seed=seed) for seed, name in enumerate("abcd", start=1)]
    groups = {"first": paths[:2], "second": paths[2:3]}
    result = compare_runs(paths[3:], groups=groups, reference="second")
    assert [system.name for system in result.systems] == ["second", "first", "example"]
    assert result.reference == "second"
    with pytest.raises(RunError, match="--reference third: no such system; choose from first, "):
        compare_runs(paths[3:], groups=groups, reference="third")


def test_several_comparisons_are_corrected_together_and_validation_apart(
    run: Callable[..., Path],
) -> None:
    def sets(accuracy: float, seed: int) -> dict[str, Any]:
        return {
            name: (LABELS, noisy_answers(LABELS, accuracy, seed=seed + number))
            for number, name in enumerate(("validation", "shifted", "test"))
        }

    paths = [
        run(name, recipe={"name": name, **wide(alpha)}, sets=sets(accuracy, int(alpha)))
        for name, accuracy, alpha in (("a", 0.8, 1.0), ("b", 0.9, 10.0), ("c", 0.82, 20.0))
    ]
    result = compare_runs(paths)
    assert [each.name for each in result.sets] == ["test", "shifted", "validation"]
    assert [each.is_validation for each in result.sets] == [False, False, True]
    held_out = [pair for each in result.sets[:2] for pair in each.comparisons]
    assert {pair.comparisons for pair in held_out} == {4}
    assert {pair.comparisons for pair in result.sets[2].comparisons} == {2}
    adjusted = holm([pair.difference.p for pair in held_out])
    assert [pair.adjusted_p for pair in held_out] == pytest.approx(adjusted)
    # What is detectable among four comparisons is larger than in one alone.
    alone = compare_runs(paths[:2], sets=["test"]).sets[0].comparisons[0].difference
    assert held_out[0].difference.value == alone.value
    assert held_out[0].difference.detectable is not None
    assert alone.detectable is not None
    assert held_out[0].difference.detectable > alone.detectable


def test_the_rows_of_a_study_are_systems(run: Callable[..., Path], tmp_path: Path) -> None:
    study, rows = tmp_path / "study", []
    for number, (name, seeds) in enumerate((("Row A", (1, 2)), ("row b", (1,))), start=1):
        for seed in seeds:
            path = row_directory(Path("study"), number, name) / f"seed-{seed}"
            run(str(path), seed=seed, recipe={"name": name, **wide(float(number))})
        rows.append({"name": name, "seeds": seeds})
    # A failed row has no seeds.
    rows.append({"name": "failed", "seeds": []})
    (study / "study.json").write_text(json.dumps({"rows": rows}))
    result = compare_runs([study, run("more", recipe=wide(9.0))])
    assert [(each.name, len(each.runs)) for each in result.systems] == [
        ("Row A", 2),
        ("row b", 1),
        ("example", 1),
    ]
    (study / "study.json").write_text('{"rows": [{"name": "x"}]}')
    with pytest.raises(RunError, match=r"study\.json: damaged, or written by another version"):
        compare_runs([study])


def test_held_out_rows_that_differ_are_refused_and_validation_is_left_out(
    run: Callable[..., Path],
) -> None:
    answers = (LABELS, noisy_answers(LABELS, 0.9, seed=1))
    both = {"validation": answers, "test": answers}
    paths = [
        run("a", sets=both),
        run("b", sets=both, recipe=wide(2.0), fingerprints={"validation": "other"}),
        run("c", sets=both, recipe=wide(3.0), fingerprints={"test": "other"}),
        run(
            "d",
            sets={"test": (LABELS[:50], LABELS[:50])},
            recipe=wide(4.0),
            fingerprints={"test": "d"},
        ),
        run("e", sets={"test": answers}, recipe=wide(5.0)),
    ]
    result = compare_runs(paths[:2])
    assert [each.name for each in result.sets] == ["test"]
    assert result.left_out[0].name == "validation"
    assert "b: its validation rows differ from those of " in result.left_out[0].reason
    message = r"c: its test rows differ from those of .*a \(their fingerprints differ\); evaluate"
    with pytest.raises(RunError, match=message):
        compare_runs([paths[0], paths[2]])
    with pytest.raises(RunError, match=r"d: its test rows .* \(50 rows and 200\)"):
        compare_runs([paths[0], paths[3]])
    assert [each.name for each in compare_runs([paths[0], paths[2]], sets=["validation"]).sets] == [
        "validation"
    ]
    left_out = compare_runs([paths[0], paths[4]]).left_out
    assert [each.reason for each in left_out] == [f"not evaluated by {paths[4]}"]
    with pytest.raises(RunError, match="there is no labelled set that all runs evaluated on"):
        compare_runs([paths[0], paths[4]], sets=["validation"])
    with pytest.raises(RunError, match=r"--only nothing: no run has .* choose from test, valid"):
        compare_runs(paths[:2], sets=["nothing"])


def test_labels_that_differ_behind_equal_fingerprints_are_refused(
    run: Callable[..., Path],
) -> None:
    other = run("b", sets={"test": (LABELS[::-1].copy(), LABELS)}, recipe=wide(2.0))
    with pytest.raises(RunError, match="b: the labels of its test rows differ"):
        compare_runs([run("a"), other])


def test_other_tasks_and_classes_are_refused(run: Callable[..., Path]) -> None:
    several = np.stack([LABELS, 1 - LABELS], axis=1)
    first = run("a")
    turned = run("b", recipe={"data": {"labels": ["b", "a"]}})
    with pytest.raises(RunError, match=r"b: its classes are b, a, but .* in another order; comp"):
        compare_runs([first, turned])
    renamed = run("c", recipe={"data": {"labels": ["b", "c"]}})
    with pytest.raises(RunError, match=r"c: its classes are b, c, but those of .*a are a, b; "):
        compare_runs([first, renamed])
    multi = run("d", recipe={"data": {"task": "multi-label"}}, sets={"test": (several, several)})
    with pytest.raises(RunError, match=r"d: a multi-label task, but .*a is a single-label one"):
        compare_runs([first, multi])


def test_rows_with_several_labels_are_compared_by_macro_f1(run: Callable[..., Path]) -> None:
    several = np.stack([LABELS, 1 - LABELS], axis=1)
    draw = np.random.default_rng(0)
    paths = []
    for name, noise in (("a", 0.3), ("b", 0.05)):
        answers = np.abs(several - (draw.random(several.shape) < noise)).astype(np.int8)
        recipe = {"data": {"task": "multi-label"}, **wide(10 * noise)}
        paths.append(run(name, recipe=recipe, sets={"test": (several.astype(np.int8), answers)}))
    (test,) = compare_runs(paths).sets
    assert test.metric == "macro_f1"
    assert test.comparisons[0].difference.test == "randomization"
    assert test.comparisons[0].verdict == "better"


def test_runs_that_cannot_be_compared_are_refused(run: Callable[..., Path]) -> None:
    first, again = run("a"), run("again")
    with pytest.raises(RunError, match=r"the same recipe with the same seed 1, .* --group one="):
        compare_runs([first, again])
    with pytest.raises(RunError, match=r"a: given twice; name two different runs"):
        compare_runs([first, first])
    with pytest.raises(RunError, match="all runs are of one recipe, example; a comparison needs"):
        compare_runs([first, run("second", seed=2)])
    with pytest.raises(RunError, match="no runs were given; a comparison needs"):
        compare_runs([])
    with pytest.raises(RunError, match="a: given twice, in x and in y"):
        compare_runs([], groups={"x": [first], "y": [first, again]})
    going = run("going", status="running", recipe=wide(2.0))
    with pytest.raises(RunError, match="going: not complete: its status is running; finish it"):
        compare_runs([first, going])


def test_leaks_and_transductive_use_are_reported_of_each_system(run: Callable[..., Path]) -> None:
    other = run("b", recipe=wide(2.0), leaks=("2 rows leak",), transductive=("self-training",))
    first, second = compare_runs([run("a"), other]).systems
    assert (first.leaks, first.transductive) == ((), ())
    assert (second.leaks, second.transductive) == (("2 rows leak",), ("self-training",))
