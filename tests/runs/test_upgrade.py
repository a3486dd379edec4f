"""Records of version 1, which earlier versions of Pennyweight wrote, are still read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pennyweight.errors import RunError
from pennyweight.runs.record import (
    Best,
    CorrectionRecord,
    GroupRecord,
    ParameterCounts,
    RowStep,
    RunRecord,
    ShareEstimate,
    TargetRecord,
    TrainingRows,
    load_record,
    save_record,
)

FILE = Path(__file__).with_name("record_version_1.json")


@pytest.fixture
def values() -> dict[str, Any]:
    """Return the record of a run of the recipe "demo", as version 1 wrote it."""
    values: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    assert values["schema_version"] == 1
    return values


def _load(values: Any, run: Path) -> RunRecord:
    (run / "record.json").write_text(json.dumps(values), encoding="utf-8")
    return load_record(run)


def test_every_figure_of_a_record_of_version_1_is_read(
    values: dict[str, Any], tmp_path: Path
) -> None:
    record = _load(values, tmp_path)
    assert record.schema_version == 2
    assert record.status == "complete"
    assert {name: metrics.to_json() for name, metrics in record.metrics.items()} == {
        name: {**_with_tuples(metrics), "macro_f1_interval": None, "coverage": (), "aurc": None}
        for name, metrics in values["metrics"].items()
    }
    assert record.metrics["test"].accuracy == 0.9671717171717171
    assert record.metrics["shifted"].confusion[0] == (78, 3, 2, 9)
    assert record.parameters == ParameterCounts(
        planned=996_868, model=996_868, file=996_868, budget=1_000_000
    )
    assert record.best == Best(step=270, metric="accuracy", value=0.9767441860465116)
    assert [step.step for step in record.history] == [10, 54, 324]
    assert [step.loss for step in record.history] == [s["loss"] for s in values["history"]]
    assert record.history[1].evaluation == values["history"][1]["evaluation"]
    assert record.history[2].stop == "all steps done"
    assert (record.seconds, record.peak_memory_bytes) == (55.694900999000026, 1_298_735_104)
    assert record.mistakes["test"][0].predicted == "Sports"
    assert record.leaks == record.transductive == ()
    assert record.target is record.correction is record.artifact is record.process_id is None


def _with_tuples(metrics: dict[str, Any]) -> dict[str, Any]:
    """Return the JSON of metrics with the types that `Metrics.to_json` returns."""
    return {
        **metrics,
        "accuracy_interval": tuple(metrics["accuracy_interval"]),
        "confusion": tuple(map(tuple, metrics["confusion"])),
        "classes": tuple(metrics["classes"]),
        "reliability": tuple(metrics["reliability"]),
    }


def test_the_data_the_plan_and_the_recipe_of_version_1_are_read(
    values: dict[str, Any], tmp_path: Path
) -> None:
    record = _load(values, tmp_path)
    assert record.data is not None
    assert {name: facts.rows for name, facts in record.data.sets.items()} == {
        "train": 852,
        "validation": 172,
        "test": 396,
        "shifted": 368,
    }
    for name, facts in record.data.sets.items():
        assert facts.fingerprint == values["data"]["sets"][name]["fingerprint"]
    overlap = record.data.overlaps[0]
    assert (overlap.rows_of, overlap.found_in) == ("train", "validation")
    assert record.data.training == TrainingRows(rows=852)
    assert record.plan.trainable_parameters == 996_868
    query, dense, bias = record.plan.matrices
    assert (query.rank, query.alpha, query.parameters) == (24, 48.0, 18_432)
    # Version 1 did not record the layer and the role; they follow from the name.
    assert (query.layer, query.role) == (0, "attention.self.query")
    assert dense.layer == 5
    assert (bias.layer, bias.role) == (None, "classifier.bias")
    assert record.recipe.data.labels == ("World", "Sports", "Business", "Sci/Tech")
    assert record.recipe.adapter.rank == "fill"
    assert record.recipe.train.epochs == 6


def test_an_upgraded_record_is_saved_in_the_present_version(
    values: dict[str, Any], tmp_path: Path
) -> None:
    record = _load(values, tmp_path)
    save_record(tmp_path, record)
    assert json.loads((tmp_path / "record.json").read_text())["schema_version"] == 2
    assert load_record(tmp_path) == record


@pytest.mark.parametrize(
    ("section", "adaptation"),
    [
        (
            {"model": "gpt2", "epochs": 2.0, "learning_rate": 1e-4},
            {"method": "full", "epochs": 2.0, "learning_rate": 1e-4},
        ),
        ({"model": "gpt2", "epochs": 0.0, "learning_rate": 1e-4}, {"method": "none"}),
    ],
)
def test_how_a_generator_was_adapted_is_read_from_earlier_recipes(
    section: dict[str, Any], adaptation: dict[str, Any], values: dict[str, Any], tmp_path: Path
) -> None:
    values["recipe"]["data"]["target"] = "target.csv"
    values["recipe"]["generate"] = section
    record = _load(values, tmp_path)
    assert record.recipe.generate is not None
    assert record.recipe.generate.model_dump()["adaptation"] == adaptation
    assert load_record(tmp_path) == record
    save_record(tmp_path, record)
    assert load_record(tmp_path) == record


def test_lab_target_and_correction_of_version_1_are_read(
    values: dict[str, Any], tmp_path: Path
) -> None:
    prior = {"World": {"share": 0.4, "interval": [0.3, 0.5]}}
    group = {"name": "target", "rows": 240, "refused": None, "prior": prior}
    steps = [
        {"step": "filter length", "removed": 12, "file": "removed/01-length.jsonl"},
        {"step": "rows of generated", "added": 5, "died": {"gate": 2}, "file": "generated.parquet"},
        {"step": "self-training", "added": 2, "by_class": {"World": 2}},
        {"step": "density ratio", "effective_rows": 258.3},
    ]
    values["data"]["lab"] = {"rows": 847, "steps": steps}
    values["target"] = {"rows": 240, "predicted_shares": {"World": 1.0}}
    values["correction"] = {
        "method": "em",
        "temperature": 7.28,
        "area_under_curve": None,
        "groups": [group],
        "accuracy_without": {"test": 0.3},
        "predicted_shares_without": {"World": 0.2},
    }
    values["transductive"] = ["self-training on the target"]
    record = _load(values, tmp_path)
    assert record.data is not None
    assert record.data.training == TrainingRows(
        rows=847,
        steps=(
            RowStep(step="filter length", removed=12, file="removed/01-length.jsonl"),
            RowStep(
                step="rows of generated", added=5, rejected={"gate": 2}, file="generated.parquet"
            ),
            RowStep(step="self-training", added=2, by_class={"World": 2}),
            RowStep(step="density ratio", effective_rows=258.3),
        ),
    )
    assert record.target == TargetRecord(rows=240, predicted_shares={"World": 1.0})
    estimate = ShareEstimate(share=0.4, interval=(0.3, 0.5))
    assert record.correction == CorrectionRecord(
        method="em",
        temperature=7.28,
        area_under_curve=None,
        groups=(GroupRecord(name="target", rows=240, refused=None, prior={"World": estimate}),),
        accuracy_without={"test": 0.3},
        predicted_shares_without={"World": 0.2},
    )
    assert record.transductive == ("self-training on the target",)


def test_a_run_of_version_1_that_failed_early_is_read(
    values: dict[str, Any], tmp_path: Path
) -> None:
    # Until a stage was reached, version 1 wrote empty tables.
    for key in ("parameters", "data", "compute", "base", "environment", "git", "best", "metrics"):
        values[key] = {}
    values |= {"status": "failed", "failure": "no such file", "history": []}
    record = _load(values, tmp_path)
    assert (record.status, record.failure) == ("failed", "no such file")
    assert record.parameters is record.data is record.best is record.compute is None
    assert record.metrics == {}


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        ("best", {"step": "last", "accuracy": 1.0}, "best.step: Input should be a valid integer"),
        ("lab", {}, "lab: Extra inputs are not permitted"),
        ("metrics", {"test": {}}, "metrics.test.rows: Field required"),
        ("plan", None, "not a complete record of version 1 (TypeError"),
        ("plan", {"budget": 1}, "not a complete record of version 1 (KeyError: 'matrices')"),
        ("data", {"sets": {}}, "not a complete record of version 1 (KeyError: 'overlaps')"),
    ],
)
def test_a_damaged_record_of_version_1_is_refused_in_one_line(
    key: str, value: Any, problem: str, values: dict[str, Any], tmp_path: Path
) -> None:
    values[key] = value
    with pytest.raises(RunError) as caught:
        _load(values, tmp_path)
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'record.json'}: {problem}")
    assert "\n" not in message
