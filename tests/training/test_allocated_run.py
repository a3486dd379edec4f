"""A run whose ranks were allocated records them, resumes, and repeats without measuring again."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from pennyweight.defaults import is_completion, measurement
from pennyweight.errors import RunError
from pennyweight.recipe import Recipe, load_recipe
from pennyweight.runs.record import load_record
from pennyweight.training.train import train
from tiny import tiny_recipe

BUDGET = 2_500


def _recipe(roberta: Path, sets: Path, **adapter: Any) -> Recipe:
    return tiny_recipe(
        roberta,
        sets,
        adapter={
            "targets": ["*"],
            "rank": "allocate",
            "allocate": {"method": "gradient", "rows": 16},
            "head": "planned",
            **adapter,
        },
        budget={"trainable_parameters": BUDGET},
        train={"max_steps": 2},
    )


@pytest.fixture(scope="module")
def run(roberta: Path, sets: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("allocated") / "run"
    train(_recipe(roberta, sets), out=out)
    return out


def test_an_allocated_run_keeps_to_its_budget_and_says_how_it_was_planned(
    run: Path, roberta: Path, sets: Path
) -> None:
    record = load_record(run)
    assert record.parameters is not None
    assert BUDGET - 64 < record.parameters.file <= BUDGET
    assert record.allocation is not None
    assert record.allocation.adapter == _recipe(roberta, sets).adapter
    assert re.fullmatch(
        r"allocation: gradient; \d+ of 12 matrices, ranks \d+ to \d+; head: .*",
        record.allocation.notes[-1],
    )
    given = _recipe(roberta, sets)
    assert is_completion(record.recipe, given, allocated=record.allocation.adapter)


def test_a_run_repeats_from_itself_without_measuring(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measurement, "make_splits", None)
    record = train(load_recipe(run), out=tmp_path / "again")
    first = load_record(run)
    assert record.plan == first.plan
    assert record.allocation is None
    assert [step.loss for step in record.history] == [step.loss for step in first.history]


def test_a_directory_that_is_in_use_is_refused_before_anything_is_measured(
    run: Path, roberta: Path, sets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measurement, "make_splits", None)
    with pytest.raises(RunError, match="holds a complete run"):
        train(_recipe(roberta, sets), out=run)


def test_an_interrupted_run_resumes_with_its_own_ranks(
    roberta: Path, sets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, out = _recipe(roberta, sets), tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr("pennyweight.training.train._finish", _interrupt)
        with pytest.raises(KeyboardInterrupt):
            train(recipe, out=out)
    monkeypatch.setattr(measurement, "make_splits", None)
    record = train(recipe, out=out, resume=True)
    assert record.status == "complete"
    assert record.allocation is not None


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


def test_a_budget_for_some_matrices_trains_with_fill(
    roberta: Path, sets: Path, tmp_path: Path
) -> None:
    recipe = tiny_recipe(
        roberta,
        sets,
        adapter={"targets": ["*"], "rank": "fill", "alpha": "auto", "head": "output-only"},
        # The output layer, and value and query of the upper layer with the value of the lower.
        budget={"trainable_parameters": 132 + 3 * 64},
        train={"max_steps": 2},
    )
    record = train(recipe, out=tmp_path / "run")
    assert record.parameters is not None
    assert record.parameters.file == 132 + 3 * 64
    names = [".".join(m.name.split(".")[-4:]) for m in record.plan.matrices if m.rank]
    assert sorted(names) == sorted(
        [
            "0.attention.self.value",
            "1.attention.self.query",
            "1.attention.self.value",
        ]
    )


def test_a_plan_file_trains(roberta: Path, sets: Path, tmp_path: Path) -> None:
    name = "roberta.encoder.layer.1.attention.self.value"
    path = tmp_path / "plan.toml"
    path.write_text(
        f'[head]\nkind = "low-rank"\nrank = 2\n[matrices]\n"{name}" = {{ rank = 3, alpha = 3.0 }}\n'
    )
    recipe = _recipe(roberta, sets, rank=8, allocate=None, head="full", plan=str(path))
    record = train(recipe, out=tmp_path / "run")
    adapters = {m.name: (m.rank, m.alpha) for m in record.plan.matrices if m.rank}
    assert adapters == {name: (3, 3.0), "classifier.dense": (2, 4.0)}
    path.unlink()
    again = train(load_recipe(tmp_path / "run"), out=tmp_path / "again")
    assert again.plan == record.plan
