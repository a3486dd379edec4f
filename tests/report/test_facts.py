"""Facts are read from records and study tables, and from nothing else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pennyweight.budget.summary import Matrix, PlanSummary
from pennyweight.errors import RunError
from pennyweight.report.facts import Facts, RunFacts, load_facts
from pennyweight.runs.record import load_record
from runs.records import example_record


def test_the_test_comes_first_and_validation_last(finished: Path) -> None:
    record = load_record(finished / "one")
    metrics = dict.fromkeys(("validation", "shifted", "test"), record.metrics["test"])
    facts = RunFacts(finished / "one", record.with_changes(metrics=metrics), ())
    assert facts.sets == ("test", "shifted", "validation")


def test_ranks_are_placed_by_the_plans_layers_and_roles(finished: Path) -> None:
    record = load_record(finished / "one")
    # The names alone would mislead: only `layer` and `role` count.
    matrices = (
        Matrix("block.7.a", "lora", 4, 8.0, 1, layer=0, role="query"),
        Matrix("block.8.b", "lora", 2, 8.0, 1, layer=2, role="value"),
        Matrix("head.9.c", "head", None, None, 1, layer=None, role="head.9.c"),
    )
    plan = PlanSummary(10, 3, 100, True, matrices)
    table = RunFacts(finished / "one", record.with_changes(plan=plan), ()).ranks()
    assert table.roles == ("query", "value")
    assert table.layers == (0, 1, 2)
    assert table.ranks.tolist() == [[4, 0, 0], [0, 0, 2]]
    assert not table.is_uniform
    assert load_facts([finished / "one"]).main.ranks().is_uniform


def test_a_damaged_study_table_is_named(finished: Path, tmp_path: Path) -> None:
    (tmp_path / "study.json").write_text('{"summary": "x"}')
    with pytest.raises(RunError, match=r"study\.json: damaged, or written by another version"):
        load_facts([tmp_path])


def test_a_report_needs_a_complete_run(finished: Path) -> None:
    with pytest.raises(RunError, match="no complete run"):
        load_facts([finished / "going"])


def test_runs_of_the_same_recipe_are_told_apart_by_their_directories(finished: Path) -> None:
    one, other = load_facts([finished / "one", finished / "other"]).runs
    namesake = replace(other, record=one.record)
    facts = Facts((one, other))
    assert [facts.label(run) for run in facts.runs] == ["tiny one", "tiny other"]
    facts = Facts((one, namesake))
    assert [facts.label(run) for run in facts.runs] == ["tiny one (one)", "tiny one (other)"]


def _run(path: str, **changes: Any) -> RunFacts:
    return RunFacts(Path(path), example_record(**changes), ())


def test_directories_of_the_same_name_are_told_apart_by_those_above_them() -> None:
    facts = Facts((_run("/a/x/seed-1"), _run("/a/y/seed-1"), _run("/b/y/seed-2")))
    labels = [facts.label(run) for run in facts.runs]
    assert labels == ["example (x/seed-1)", "example (y/seed-1)", "example (seed-2)"]


def test_runs_are_grouped_by_the_rows_they_were_evaluated_on() -> None:
    data = example_record().data
    assert data is not None
    other_rows = {**data.sets, "test": replace(data.sets["test"], fingerprint="other")}
    other = data.model_copy(update={"sets": other_rows})
    runs = (_run("/one"), _run("/two", data=other), _run("/three"), _run("/none", metrics={}))
    assert Facts(runs).groups == ((runs[0], runs[2]), (runs[1],))
