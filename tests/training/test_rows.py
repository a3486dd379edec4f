"""Training rows inside a run: filtered, augmented and joined, and none of them leaks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pennyweight.data.splits import Splits, make_splits
from pennyweight.errors import DataError, RecipeError
from pennyweight.lab.manifest import write_derived
from pennyweight.recipe import Recipe, resolve_recipe
from pennyweight.runs.record import RunRecord, TrainingRows
from pennyweight.settings.assemble import settings_of
from pennyweight.settings.values import Settings
from pennyweight.training.rows import PreparedRows, RowContext, prepare_rows
from pennyweight.training.train import train
from pennyweight.training.watcher import Watcher
from tiny import LABELS, news, tiny_recipe


def _recipe(base: Path, sets: Path, sections: dict[str, Any]) -> Recipe:
    values = tiny_recipe(base, sets, train={"max_steps": 1}).model_dump(
        mode="json", exclude_none=True
    )
    for name, keys in sections.items():
        values[name] = {**values[name], **keys} if name in values else keys
    return resolve_recipe(values)


def _prepared(settings: Settings, removed: Path) -> tuple[PreparedRows, Splits]:
    data = settings.data
    splits = make_splits(data.sources, read=data.read, split=data.split, overlap=data.overlap)
    context = RowContext(settings.labels, settings.seed, removed, print)
    return prepare_rows(splits, settings.rows, context), splits


def _training_rows(record: RunRecord) -> TrainingRows:
    assert record.data is not None
    assert record.data.training is not None
    return record.data.training


def test_removed_rows_are_written_and_the_rest_is_trained_on(
    roberta: Path, sets: Path, tmp_path: Path
) -> None:
    recipe = _recipe(roberta, sets, {"data": {"filters": [{"method": "length", "shortest": 7}]}})
    lines: list[str] = []
    record = train(recipe, out=tmp_path / "run", watcher=Watcher(log=lines.append))
    (step,) = _training_rows(record).steps
    assert step.step == "filter length"
    assert step.file == str(tmp_path / "run" / "removed" / "01-length.jsonl")
    removed = [json.loads(line) for line in Path(step.file).read_text().splitlines()]
    assert step.removed is not None
    assert len(removed) == step.removed > 0
    assert _training_rows(record).rows == 48 - len(removed)
    assert all(len(row["text"].split()) < 7 and row["label"] in LABELS for row in removed)
    assert f"filter length: {len(removed)} of 48 rows removed" in lines


def test_a_filter_that_removes_a_whole_class_is_refused(
    roberta: Path, sets: Path, tmp_path: Path
) -> None:
    recipe = _recipe(roberta, sets, {"data": {"filters": [{"method": "length", "shortest": 40}]}})
    with pytest.raises(DataError, match="length leaves no row of World, Sports"):
        train(recipe, out=tmp_path / "run")


def test_copies_have_their_parents_labels_and_come_from_training_rows_alone(
    roberta: Path, sets: Path, tmp_path: Path
) -> None:
    step = {"method": "swap", "copies": 2, "count": 1}
    settings = settings_of(_recipe(roberta, sets, {"data": {"augmentations": [step]}}))
    prepared, _ = _prepared(settings, tmp_path)
    texts, labels = prepared.table["text"], prepared.table["label"]
    added = prepared.steps[0].added
    assert added is not None
    assert len(prepared.table) == 48 + added > 48 + 40
    assert prepared.to_record().rows == 48 + added
    parents = {
        tuple(sorted(text.split())): label
        for text, label in zip(texts[:48], labels[:48], strict=True)
    }
    for text, label in zip(texts[48:], labels[48:], strict=True):
        assert parents[tuple(sorted(text.split()))] == label


def test_rows_that_nothing_changes_keep_the_fingerprint_of_their_set(
    roberta: Path, sets: Path, tmp_path: Path
) -> None:
    settings = settings_of(_recipe(roberta, sets, {}))
    prepared, splits = _prepared(settings, tmp_path)
    assert prepared.fingerprint == splits.sets["train"].fingerprint
    assert prepared.steps == prepared.transductive == ()
    assert prepared.weights is prepared.smoothing is None


def test_extra_rows_that_are_also_in_a_held_out_set_are_left_out(
    roberta: Path, sets: Path, tmp_path: Path
) -> None:
    leak = news(76, seed=1)[70][1]
    table = pa.table({"text": ["a new text", leak], "label": [0, 1]})
    write_derived(tmp_path / "extra.parquet", table, {})
    recipe = _recipe(roberta, sets, {"data": {"extra": [str(tmp_path / "extra.parquet")]}})
    record = train(recipe, out=tmp_path / "run")
    (step,) = _training_rows(record).steps
    assert (step.added, step.removed) == (1, 1)
    assert step.file == str(tmp_path / "extra.parquet")
    assert step.sha256 is not None
    assert _training_rows(record).rows == 49
    write_derived(tmp_path / "extra.parquet", pa.table({"text": ["x"], "label": [7]}), {})
    with pytest.raises(DataError, match=r"labels must be from 0 to 3, .* given 7 to 7"):
        train(recipe, out=tmp_path / "other")


def test_labels_of_extra_rows_are_known_by_their_names(
    roberta: Path, sets: Path, tmp_path: Path
) -> None:
    extra = tmp_path / "extra.parquet"
    settings = settings_of(_recipe(roberta, sets, {"data": {"extra": [str(extra)]}}))
    rows = pa.table({"text": ["one", "two", "three"], "label": [1, 0, 1]})
    write_derived(extra, rows, {"labels": ["Sports", "World"]})
    prepared, _ = _prepared(settings, tmp_path)
    names = [LABELS[label] for label in prepared.table["label"][:]]
    assert names[-3:] == ["World", "Sports", "World"]
    write_derived(extra, rows, {"labels": ["World", "Chess"]})
    with pytest.raises(DataError, match="labels that are no classes here: Chess; the classes"):
        _prepared(settings, tmp_path)


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"transduction": {"consistency": 1.0}}, "data.target: missing"),
        ({"generate": {}}, r"\[generate\] .*unlabelled text"),
        (
            {"data": {"target": "x"}, "transduction": {"prior": {"method": "stated"}}},
            "every class",
        ),
        (
            {
                "data": {"target": "x"},
                "transduction": {
                    "self_training": {
                        "method": "confident",
                        "teachers": ["t"],
                        "by_class": {"Spam": 0.5},
                    }
                },
            },
            '"Spam" is not a class',
        ),
    ],
)
def test_a_recipe_that_contradicts_itself_is_refused(
    roberta: Path, sets: Path, sections: dict[str, Any], message: str
) -> None:
    with pytest.raises(RecipeError, match=message):
        _recipe(roberta, sets, sections)
