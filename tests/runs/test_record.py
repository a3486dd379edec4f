"""The typed record of a run: written, read again, and refused where it is damaged."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pennyweight.budget.summary import Matrix, PlanSummary
from pennyweight.data.splits import OverlapCount, SetFacts
from pennyweight.engine.train.progress import Step
from pennyweight.errors import RunError
from pennyweight.evaluation.metrics import Bin, ClassMetrics, Metrics
from pennyweight.recipe import Recipe
from pennyweight.runs.record import BaseRecord, RunRecord, load_record, save_record, write_text
from runs.records import example_recipe, example_record


def _edit(run: Path, *path: str | int, value: Any) -> None:
    """Change one value in a saved record."""
    values = json.loads((run / "record.json").read_text())
    inside = values
    for key in path[:-1]:
        inside = inside[key]
    inside[path[-1]] = value
    (run / "record.json").write_text(json.dumps(values))


def test_a_record_that_is_saved_and_loaded_is_equal_in_every_field(tmp_path: Path) -> None:
    record = example_record()
    save_record(tmp_path, record)
    loaded = load_record(tmp_path)
    for name in RunRecord.model_fields:
        assert getattr(loaded, name) == getattr(record, name), name
    assert loaded == record


def test_the_example_has_a_value_in_every_field() -> None:
    # Otherwise the round trip above would prove nothing about the missing ones.
    record = example_record()
    for name, field in RunRecord.model_fields.items():
        default = field.get_default(call_default_factory=True)
        assert name == "schema_version" or getattr(record, name) != default, name


def test_the_parts_of_a_loaded_record_are_typed(tmp_path: Path) -> None:
    save_record(tmp_path, example_record())
    record = load_record(tmp_path)
    assert record.data is not None
    parts = {
        Recipe: record.recipe,
        PlanSummary: record.plan,
        Matrix: record.plan.matrices[0],
        SetFacts: record.data.sets["train"],
        OverlapCount: record.data.overlaps[0],
        Step: record.history[0],
        Metrics: record.metrics["test"],
        ClassMetrics: record.metrics["test"].classes[0],
        Bin: record.metrics["test"].reliability[0],
    }
    for kind, part in parts.items():
        assert type(part) is kind
    assert record.metrics["test"].accuracy == pytest.approx(2 / 3)
    assert record.recipe == example_recipe()


def test_only_a_directory_with_a_record_is_a_run(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"not a run: record\.json is missing"):
        load_record(tmp_path)


@pytest.mark.parametrize("text", ["{", "", "[1, 2"])
def test_a_record_that_is_not_json_cannot_be_read(text: str, tmp_path: Path) -> None:
    (tmp_path / "record.json").write_text(text)
    with pytest.raises(RunError, match=r"record\.json: cannot be read: ") as caught:
        load_record(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("loss",), 1.0),
        (("metrics", "test", "acuracy"), 1.0),
        (("data", "sets", "train", "lines"), 7),
        (("history", 0, "loss"), "small"),
        (("recipe", "adapter", "rnak"), 4),
        (("plan", "matrices", 1, "parameters"), None),
        (("metrics", "test", "accuracy_interval"), [0.5]),
        (("correction", "groups", 0, "rows"), "six"),
        (("status",), "done"),
    ],
)
def test_an_unknown_key_or_a_wrong_type_is_refused_by_its_name(
    path: tuple[str | int, ...], value: Any, tmp_path: Path
) -> None:
    save_record(tmp_path, example_record())
    _edit(tmp_path, *path, value=value)
    with pytest.raises(RunError) as caught:
        load_record(tmp_path)
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'record.json'}: ")
    assert str(path[-1]) in message.split(": ")[1].split(".")
    assert "\n" not in message


def test_a_missing_field_is_refused_by_its_name(tmp_path: Path) -> None:
    save_record(tmp_path, example_record())
    values = json.loads((tmp_path / "record.json").read_text())
    del values["metrics"]["test"]["accuracy"]
    (tmp_path / "record.json").write_text(json.dumps(values))
    with pytest.raises(RunError, match=r": metrics\.test\.accuracy: Field required; "):
        load_record(tmp_path)


@pytest.mark.parametrize("version", [0, 3, "2", None])
def test_a_record_of_an_unknown_version_is_refused_by_its_version(
    version: object, tmp_path: Path
) -> None:
    save_record(tmp_path, example_record())
    _edit(tmp_path, "schema_version", value=version)
    # The version is named even if other fields are not what this version expects.
    _edit(tmp_path, "new_in_that_version", value=1)
    with pytest.raises(RunError) as caught:
        load_record(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path / 'record.json'}: schema_version: given {version!r}; this version of "
        "Pennyweight reads 1 to 2; read it with the version that wrote it"
    )


@pytest.mark.parametrize("value", [[], 7, "text", None])
def test_json_that_is_no_record_is_refused(value: object, tmp_path: Path) -> None:
    (tmp_path / "record.json").write_text(json.dumps(value))
    with pytest.raises(RunError, match=r"record\.json: schema_version: given None"):
        load_record(tmp_path)


def test_a_record_is_written_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_record(tmp_path, example_record(seconds=1.0))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", full)
        with pytest.raises(RunError, match=r"record\.json: cannot be written: No space left"):
            save_record(tmp_path, example_record(seconds=2.0))
    assert load_record(tmp_path).seconds == 1.0
    assert [file.name for file in tmp_path.iterdir()] == ["record.json"]


def test_text_is_written_without_changing_its_line_ends(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "one\r\ntwo\n")
    assert (tmp_path / "a.txt").read_bytes() == b"one\r\ntwo\n"


def test_a_run_is_over_budget_if_more_was_trained_than_allowed() -> None:
    within = example_record()
    assert not within.over_budget
    counts = within.parameters
    assert counts is not None
    assert within.with_changes(
        parameters=counts.model_copy(update={"model": 1001}), plan=within.plan
    ).over_budget
    # Before the count is proved, the plan decides.
    planned = PlanSummary(1000, 1001, 5000, False, ())
    assert within.with_changes(parameters=None, plan=planned).over_budget


def test_marks_name_leaks_and_uses_of_the_target() -> None:
    assert example_record().marks == (
        "LEAKS: 2 rows of train are also in test",
        "TRANSDUCTIVE: self-training on the target",
    )


def test_reading_a_record_loads_neither_torch_nor_transformers(tmp_path: Path) -> None:
    save_record(tmp_path, example_record())
    code = (
        "import sys; from pathlib import Path; from pennyweight.runs.record import load_record; "
        f"load_record(Path({str(tmp_path)!r})); "
        "sys.exit(' '.join({'torch', 'transformers', 'peft', 'sklearn'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_paths_in_the_home_directory_are_saved_with_a_tilde_and_read_as_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/alice")
    recipe = example_recipe(
        base={"name": "/home/alice/base"}, data={"train": "/home/alice/train.csv"}
    )
    base = BaseRecord(name="b", reference="/home/alice/base", revision=None, origin="directory")
    record = example_record(recipe=recipe, base=base, failure="/home/alice/x: cannot be read")
    save_record(tmp_path, record)
    assert "alice" not in (tmp_path / "record.json").read_text()
    loaded = load_record(tmp_path)
    assert (loaded.recipe, loaded.base) == (recipe, base)
    assert loaded.failure == "~/x: cannot be read"
