"""Every recipe key is live: change it, and the run differs or is refused.

`CHANGES` in `live_keys.py` names, for each leaf of the schema, a value other than the default and,
where the key has no effect alone, the other keys that give it one. A key that is missing there
fails `test_every_key_of_the_schema_is_tried`.
"""

from __future__ import annotations

import copy
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import pyarrow as pa
import pytest
from pydantic import BaseModel
from safetensors.numpy import load_file

from lab.stub_server import Reply, answer_with, serve
from pennyweight.budget.facts import read_artifact_facts
from pennyweight.engine.batches.batcher import PackedBatcher, PaddedBatcher
from pennyweight.errors import PennyweightError, RecipeError
from pennyweight.lab.endpoint import ChatClient
from pennyweight.lab.fine_tuning import FineTuning
from pennyweight.lab.language_model import LanguageModel, ModelSize
from pennyweight.lab.manifest import write_derived
from pennyweight.recipe import Recipe, resolve_recipe
from pennyweight.recipe.data import SourceTable
from pennyweight.section import Section
from pennyweight.training.train import train
from pennyweight.training.watcher import Watcher
from tiny import LABELS, news, tiny_recipe, write_news, write_wordnet
from training.live_keys import CHANGES, SEARCH_KEYS, Change, Settings

Outcome = Callable[[Settings], str]


def _sections_in(annotation: Any) -> set[type[Section]]:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return {annotation}
    return {section for argument in get_args(annotation) for section in _sections_in(argument)}


def _keys(section: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Yield the leaves of the schema.

    A key that may be a value or a table is a leaf, and so are the table's fields.
    """
    for name, field in section.model_fields.items():
        key, annotation = f"{prefix}{name}", field.annotation
        inside = _sections_in(annotation)
        choices = {annotation} if annotation in inside else {*get_args(annotation)}
        if not inside or choices != inside or SourceTable in inside:
            yield key
        # A source has the same fields wherever it is.
        for subsection in inside if key == "data.train" else inside - {SourceTable}:
            yield from _keys(subsection, f"{key}.")


def test_every_key_of_the_schema_is_tried() -> None:
    # A summary is for the reader: `pennyweight recipes` prints it, and the run does not differ.
    assert sorted(set(_keys(Recipe)) - {"summary"} - SEARCH_KEYS) == sorted(CHANGES)
    assert set(_keys(Recipe)) >= SEARCH_KEYS


def test_nearly_every_training_shows_that_a_key_is_live() -> None:
    changed = {_as_text(_with_change(key, change)) for key, change in CHANGES.items()}
    references = {_as_text(_values(change.besides)) for change in CHANGES.values()}
    assert len(changed) == len(CHANGES)
    # The recipe itself, AdaLoRA, VeRA, four allocations, four optimizers, large batches, logit
    # adjustment, balanced self-training, an endpoint, a metric that gets worse again,
    # validation rows that are split off, and 13 adapter methods with keys of their own.
    assert len(references - changed) == 30


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """Serve texts that depend on the whole request, and return the address."""

    def reply(request: dict[str, Any]) -> Reply:
        digest = hashlib.sha256(json.dumps(request, sort_keys=True).encode()).digest()
        return answer_with(news(1, seed=int.from_bytes(digest[:4], "big"))[0][1])

    with serve(reply) as stub:
        yield stub.url


@pytest.fixture(scope="module")
def places(
    bert: Path, roberta: Path, sets: Path, endpoint: str, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """Write all files that `CHANGES` names in braces, and return their paths by that name."""
    folder = tmp_path_factory.mktemp("live")
    for name in ("validation", "test"):
        shutil.copy(sets / f"{name}.csv", folder)
    rows = news(112, seed=1)
    test = rows[64:76]
    # One row of the test, one that nearly is, and one whose words hide behind an entity.
    extra = [test[0], (1, "coach#39;s week"), (test[1][0], test[1][1] + " the")]
    write_news(folder / "train.csv", [*rows[:45], *extra])
    write_news(folder / "other.csv", rows[76:])
    write_news(folder / "bad.csv", [*rows[:47], (9, "the label is wrong")])
    write_news(folder / "target.csv", news(120, seed=31))
    text = (folder / "train.csv").read_text().splitlines()
    shifted = [f"{line},{(index + 1) % 4}" for index, line in enumerate(text[1:])]
    (folder / "train.csv").write_text("\n".join([text[0] + ",second_label", *shifted]) + "\n")
    replacing = shutil.copytree(bert, folder / "replacing")
    tokenizer = json.loads((replacing / "tokenizer.json").read_text())
    tokenizer["normalizer"] = {"type": "Replace", "pattern": {"String": "the"}, "content": "a"}
    (replacing / "tokenizer.json").write_text(json.dumps(tokenizer))
    for name, seed in (("teacher", 1), ("student", 2)):
        recipe = tiny_recipe(bert, folder, train={"max_steps": 4})
        train(recipe.model_copy(update={"seed": seed}), out=folder / name)
    names = ("replacing", "teacher", "student")
    return {
        "sets": str(folder),
        "endpoint": endpoint,
        "roberta": str(roberta),
        "bert": str(bert),
        **{name: str(folder / name) for name in names},
        **_lab_files(folder, rows),
    }


def _lab_files(folder: Path, rows: list[tuple[int, str]]) -> dict[str, str]:
    """Write a language model, prompts, extra rows and a WordNet; return their paths by name."""
    size = ModelSize(vocabulary=300, layers=1, width=32, heads=2, context=64)
    texts = [text for _, text in rows]
    model = LanguageModel.untrained(texts, size, seed=0)
    model.fit(texts, FineTuning(epochs=8, learning_rate=3e-3, batch_tokens=512))
    model.save(folder / "lm")
    prompts = [f'"{label}" = ["the {label.lower()} says", "a"]' for label in LABELS]
    (folder / "prompts.toml").write_text("\n".join(prompts))
    query = "roberta.encoder.layer.0.attention.self.query"
    plan = f'[head]\nkind = "output-only"\n[matrices]\n"{query}" = {{ rank = 3 }}\n'
    (folder / "plan.toml").write_text(plan)
    instructions = [f'"{label}" = "{label} like {{examples}}"' for label in LABELS]
    (folder / "instructions.toml").write_text("\n".join(instructions))
    table = pa.table({"text": ["a new week", "the report"], "label": [0, 1]})
    write_derived(folder / "extra.parquet", table, {})
    return {
        "lm": str(folder / "lm"),
        "prompts": str(folder / "prompts.toml"),
        "plan": str(folder / "plan.toml"),
        "instructions": str(folder / "instructions.toml"),
        "extra": str(folder / "extra.parquet"),
        "wordnet": str(write_wordnet(folder / "wordnet")),
    }


def _values(settings: Settings) -> Settings:
    """Return a recipe's values with some keys set; files are still names in braces."""
    recipe = tiny_recipe(Path("{roberta}"), Path("{sets}"))
    values = recipe.model_dump(mode="json", exclude_none=True)
    values["data"]["train"] = {"location": values["data"]["train"], "label_column": "label"}
    for key, value in copy.deepcopy(settings).items():
        _set(values, key.split("."), value)
    return values


def _with_change(key: str, change: Change) -> Settings:
    values = _values(change.besides)
    _set(values, key.split("."), copy.deepcopy(change.value), element=change.element)
    return values


def _set(values: Settings, path: list[str], value: Any, *, element: int = 0) -> None:
    for name in path[:-1]:
        inside = values.get(name)
        if isinstance(inside, list) and inside and isinstance(inside[0], dict):
            inside = inside[element]
        elif not isinstance(inside, dict):
            inside = values[name] = {}
        values = inside
    if value is None:
        del values[path[-1]]
    else:
        values[path[-1]] = value


def _as_text(values: Settings) -> str:
    """Return the complete recipe as text, or the values where they are no recipe."""
    try:
        recipe = resolve_recipe(values)
    except RecipeError:
        return json.dumps(values, sort_keys=True)
    return json.dumps(recipe.model_dump(mode="json"), sort_keys=True)


@pytest.fixture(scope="module")
def outcome_of(places: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """Return a function that runs the recipe of some values, once each, and describes the run."""
    outcomes: dict[str, str] = {}

    def outcome(values: Settings) -> str:
        key = _as_text(values)
        if key not in outcomes:
            outcomes[key] = _run(values, places, tmp_path_factory.mktemp("run") / "run")
        return outcomes[key]

    return outcome


def _run(values: Settings, places: dict[str, str], out: Path) -> str:
    text = json.dumps(values)
    for name, path in places.items():
        text = text.replace(f"{{{name}}}", path)
    sizes: list[int] = []
    lines: list[str] = []
    try:
        with pytest.MonkeyPatch.context() as patch:
            _count_batches(patch, sizes)
            if values.get("generate", {}).get("method") == "endpoint":
                # Some keys change how texts are fetched, so nothing may come from the cache.
                patch.setenv("PENNYWEIGHT_CACHE", str(out.parent / "cache"))
                patch.setattr(ChatClient, "_pause", lambda *_: None)
            watcher = Watcher(log=lines.append)
            record = train(resolve_recipe(json.loads(text)), out=out, watcher=watcher)
    except PennyweightError as error:
        return str(error).replace(str(out), "RUN")
    outcome = record.model_dump(
        mode="json",
        # What repeats the recipe, and what differs between two runs of the same recipe.
        exclude={
            *("recipe", "plan", "allocation", "artifact", "environment", "git"),
            *("started", "seconds", "predicted_seconds", "peak_memory_bytes", "process_id"),
        },
    )
    for step in outcome["history"]:
        del step["seconds"], step["rows_per_second"]
    for baseline in outcome["baselines"].values():
        del baseline["seconds"]
    facts = read_artifact_facts(out / "adapter")
    assert facts is not None
    weights = load_file(out / "adapter" / "adapter_model.safetensors")
    outcome |= {
        # A name has no other effect than to be recorded.
        "name": record.recipe.name,
        "batches": sizes,
        "files": sorted(
            str(file.relative_to(out)) for file in out.rglob("*") if "events" not in file.name
        ),
        "labels": facts.labels,
        "sent": [line for line in lines if "requests at a time" in line],
        "weights": {name: float(abs(weight).sum()) for name, weight in weights.items()},
    }
    return json.dumps(outcome, sort_keys=True).replace(str(out), "RUN")


def _count_batches(patch: pytest.MonkeyPatch, sizes: list[int]) -> None:
    """Append the number of rows of every batch to a list."""
    for batcher in (PackedBatcher, PaddedBatcher):
        inputs = batcher.inputs

        def counted(
            self: Any, rows: Any, indices: Any, *, copies: int = 1, inputs: Any = inputs
        ) -> Any:
            sizes.append(len(indices))
            return inputs(self, rows, indices, copies=copies)

        patch.setattr(batcher, "inputs", counted)


def test_the_same_recipe_gives_the_same_outcome(
    places: dict[str, str], tmp_path: Path, outcome_of: Outcome
) -> None:
    # Without this, every difference below could be chance.
    assert outcome_of(_values({})) == _run(_values({}), places, tmp_path / "run")
    assert json.loads(outcome_of(_values({})))["status"] == "complete"


@pytest.mark.parametrize("key", CHANGES)
def test_a_changed_key_changes_the_run(key: str, outcome_of: Outcome) -> None:
    change = CHANGES[key]
    reference = outcome_of(_values(change.besides))
    assert outcome_of(_with_change(key, change)) != reference
    # Bad rows stop a run by default.
    assert '"status": "complete"' in reference or key == "data.on_bad_row"
