"""Paths and rows are removed from a record; labels, tags and web addresses stay."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pennyweight.data.splits import SetFacts
from pennyweight.export.anonymous import anonymous_config, anonymous_record
from pennyweight.runs.record import DataRecord
from runs.records import example_facts, example_recipe, example_record

_WORDS = st.text("abcxyz", min_size=1, max_size=8)


def test_rows_and_the_process_are_left_out() -> None:
    record = anonymous_record(example_record())
    assert record.mistakes == {}
    assert record.process_id is None
    assert record.correction is not None
    assert all(group.examples == () for group in record.correction.groups)


@given(st.lists(_WORDS, min_size=2, max_size=5), _WORDS)
def test_of_a_path_its_last_part_stays(folders: list[str], name: str) -> None:
    folder = "/" + "/".join(f"secret {word}" for word in folders)
    path = f"{folder}/{name}.csv"
    facts = SetFacts(path, "delimited", 9, 1, f"{folder}/bad.jsonl", "f")
    record = anonymous_record(
        example_record(
            recipe=example_recipe(data={"train": path}),
            data=DataRecord(sets={"train": facts, "test": example_facts("test")}),
            leaks=(f"2 rows of {path} are also in test",),
            transductive=(f"self-training on ~/secret/{name}.txt",),
        )
    )
    assert record.recipe.data.train is not None
    assert record.recipe.data.train.location == f"{name}.csv"
    assert record.leaks == (f"2 rows of {name}.csv are also in test",)
    assert record.transductive == (f"self-training on {name}.txt",)
    assert "secret" not in record.model_dump_json()


@pytest.mark.parametrize(
    "text",
    ["and/or", "</s> ends", "https://a.org/b/c", "hub:owner/name:test", "1 / 2", "Sci/Tech rows"],
)
def test_other_texts_with_slashes_stay(text: str) -> None:
    assert anonymous_record(example_record(leaks=(text,))).leaks == (text,)


def test_labels_stay_whatever_they_look_like() -> None:
    recipe = example_recipe(data={"labels": ["/home/a", "/b"]})
    assert anonymous_record(example_record(recipe=recipe)).recipe.data.labels == ("/home/a", "/b")


def test_separators_and_columns_stay_whatever_they_look_like() -> None:
    data = {
        "task": "multi-label",
        "label_separator": "/",
        "train": {"location": "rows.csv", "text_columns": ["/title"], "label_column": "/label"},
    }
    kept = anonymous_record(example_record(recipe=example_recipe(data=data))).recipe.data
    assert kept.label_separator == "/"
    assert kept.train.text_columns == ("/title",)
    assert kept.train.label_column == "/label"


def test_configs_lose_the_places_of_files() -> None:
    values = {"_name_or_path": "/a", "id2label": {"0": "/b"}, "parts": [{"vocab_file": "/c"}]}
    assert anonymous_config(values) == {"id2label": {"0": "/b"}, "parts": [{}]}
