"""The generated findings: comparisons of the same rows only, and many classes in a table."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from pennyweight.evaluation.metrics import measure
from pennyweight.evaluation.statistics import holm
from pennyweight.report.content import Table, Text
from pennyweight.report.facts import Facts, RunFacts, load_facts
from pennyweight.report.findings import lessons, results
from pennyweight.report.shares import share_blocks
from pennyweight.runs.predictions import mcnemar_of_runs
from runs.finished import noisy_answers, write_run
from runs.records import example_record


def _run(path: str, fingerprint: str) -> RunFacts:
    record = example_record()
    assert record.data is not None
    sets = {**record.data.sets}
    sets["test"] = replace(sets["test"], fingerprint=fingerprint)
    data = record.data.model_copy(update={"sets": sets})
    return RunFacts(Path(path), record.with_changes(data=data), ())


def test_runs_on_other_rows_are_named_and_get_a_table_of_their_own() -> None:
    facts = Facts((_run("/1", "a"), _run("/2", "b"), _run("/3", "a"), _run("/4", "b")))
    blocks = lessons(facts, frozenset())
    tables = [block for block in blocks if isinstance(block, Table)]
    assert [[row[0] for row in table.rows] for table in tables] == [
        ["example (1)", "example (3)"],
        ["example (2)", "example (4)"],
    ]
    assert len({table.label for table in tables}) == 2
    texts = [block.text for block in blocks if isinstance(block, Text)]
    assert any(
        text.startswith("example (2) (66.67% of 3 rows) and example (4) (66.67% of 3 rows) were")
        and "cannot be compared" in text
        for text in texts
    )


def test_p_values_of_several_runs_are_adjusted(tmp_path: Path) -> None:
    labels = np.array([0, 1] * 60)
    paths = [
        write_run(tmp_path / str(n), {"test": (labels, noisy_answers(labels, share, seed=n))})
        for n, share in enumerate((0.7, 0.85, 0.9))
    ]
    for number in (2, 3):
        blocks = lessons(load_facts(paths[:number]), frozenset())
        (table,) = [block for block in blocks if isinstance(block, Table)]
        raw = [mcnemar_of_runs(paths[0], other, "test").p for other in paths[1:number]]
        assert [row[2] for row in table.rows] == ["", *(f"{p:.3f}" for p in holm(raw))]
        text = " ".join(block.text for block in blocks if isinstance(block, Text))
        assert ("Holm's method" in text) == (number == 3)


def test_of_many_classes_the_hardest_are_in_a_table() -> None:
    draw = np.random.default_rng(0)
    labels = draw.integers(77, size=900)
    logits = np.eye(77)[labels] + draw.normal(0, 0.5, (900, 77))
    metrics = measure(logits, labels, names=[f"class {index}" for index in range(77)])
    facts = Facts((RunFacts(Path("/1"), example_record(metrics={"test": metrics}), ()),))
    tables = [block for block in results(facts, frozenset()) if isinstance(block, Table)]
    (hardest,) = [table for table in tables if table.name == "hardest"]
    expected = sorted(metrics.classes, key=lambda entry: entry.f1)[:8]
    assert [row[0] for row in hardest.rows] == [entry.label for entry in expected]


def test_the_groups_of_a_target_are_in_a_table_with_an_example() -> None:
    run = RunFacts(Path("/1"), example_record(), ())
    blocks = share_blocks(run)
    (table,) = [block for block in blocks if isinstance(block, Table)]
    assert table.rows == (("target", "6", "a 40%"),)
    texts = [block.text for block in blocks if isinstance(block, Text)]
    assert "treated as one population, because" in texts[0]
    assert texts[1] == 'Typical of the texts target: "an example"'
    assert share_blocks(RunFacts(Path("/1"), example_record(correction=None), ())) == ()
