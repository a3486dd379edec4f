"""Every recipe key is live: change it, and the run differs or is refused.

`CHANGES` names, for each leaf of the schema, a value other than the default and, where the key
says nothing alone, the other keys that give it something to say. A key without a line here fails
`test_every_key_of_the_schema_is_tried`.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import pyarrow as pa
import pytest
from pydantic import BaseModel
from safetensors.numpy import load_file

from pennyweight.engine import feed
from pennyweight.errors import PennyweightError
from pennyweight.lab.language_model import LanguageModel
from pennyweight.lab.manifest import write_made
from pennyweight.recipe import Recipe, resolve_recipe
from pennyweight.recipe.data import SourceTable
from pennyweight.recipe.section import Section
from pennyweight.runs.training import train
from runs.tiny import LABELS, news, tiny_recipe, write_news, write_wordnet

Settings = dict[str, Any]

_ADALORA: Settings = {
    "adapter": {
        "method": "adalora",
        "rank": 3,
        "target_rank": 1,
        "start_steps": 1,
        "final_steps": 2,
        "every": 1,
    }
}
_TAUGHT: Settings = {"distillation": {"teachers": ["{teacher}"]}}
_VERA: Settings = {"adapter": {"method": "vera", "rank": 4}}


def _optimizer(method: str) -> Settings:
    return {"optimizer": {"method": method, "learning_rate": 0.01}}


def _filter(method: str, **options: Any) -> Settings:
    return {"data.filters": [{"method": method, **options}]}


def _augmentation(method: str, **options: Any) -> Settings:
    return {"data.augmentations": [{"method": method, **options}]}


_SYNONYMS = _augmentation(
    "synonyms", wordnet="{wordnet}", probability=0.99, part_of_speech="any", spare_names=True
)
_TARGET: Settings = {"data.target": "{sets}/target.csv"}
_GENERATE: Settings = {
    **_TARGET,
    "generate": {
        "model": "{lm}",
        "prompts": "{prompts}",
        "per_class": 6,
        "epochs": 2.0,
        "learning_rate": 0.001,
        "longest": 12,
        "batch_rows": 8,
        "gates": {"judge": "tf-idf", "confidence": 0.2, "similarity": 0.9, "copied_words": 30},
    },
}
_SHARES = {"World": 0.4, "Sports": 0.1, "Business": 0.25, "Sci/Tech": 0.25}
_PRIOR: Settings = {**_TARGET, "transduction.prior": {"method": "em"}}
_SELF: Settings = {
    **_TARGET,
    "transduction.self_training": {"teacher": "{teacher}", "confidence": 0.3},
}
_DENSITY: Settings = {**_TARGET, "transduction.density_ratio": {}}

# Key: (value, keys that both runs have besides). "{sets}" is the folder of the sets.
CHANGES: dict[str, tuple[Any, Settings]] = {
    "name": ("another", {}),
    "seed": (7, {}),
    "base.name": ("{bert}", {}),
    "base.revision": ("main", {}),
    "base.weights": ("random", {}),
    "base.tokenizer": ("{upper}", {}),
    "base.attention": ("packed", {}),
    "base.quantization": ("nf4", {}),
    "base.dropout": (0.0, {}),
    "data.train": ("{sets}/other.csv", {}),
    "data.train.location": ("{sets}/other.csv", {}),
    "data.train.format": ("lines", {}),
    "data.train.text_columns": (["label", "text"], {}),
    "data.train.label_column": ("second_label", {}),
    "data.train.revision": ("main", {}),
    "data.validation": ("{sets}/other.csv", {}),
    "data.target": ("{sets}/other.csv", {}),
    "data.labels": (["A", "B", "C", "D"], {}),
    "data.validation_fraction": (0.4, {"data.validation": None}),
    "data.train_rows": (24, {}),
    "data.max_tokens": (5, {}),
    "data.clean": (["html-entities"], {}),
    "data.filters": ([{"method": "length", "shortest": 6}], {}),
    "data.filters.method": ("duplicates", _filter("length", shortest=6)),
    "data.filters.shortest": (8, _filter("length", shortest=6)),
    "data.filters.longest": (9, _filter("length")),
    "data.filters.similarity": (0.2, _filter("near-duplicates", similarity=0.9)),
    "data.filters.folds": (3, _filter("agreement", folds=2)),
    "data.filters.model": ("{lm}-none", _filter("perplexity", model="{lm}", share=0.3)),
    "data.filters.share": (0.6, _filter("perplexity", model="{lm}", share=0.3)),
    "data.augmentations": ([{"method": "swap"}], {}),
    "data.augmentations.method": ("typos", _augmentation("deletion")),
    "data.augmentations.copies": (2, _augmentation("swap")),
    "data.augmentations.probability": (0.6, _augmentation("deletion")),
    "data.augmentations.count": (3, _augmentation("swap")),
    "data.augmentations.most": (1, _SYNONYMS),
    "data.augmentations.part_of_speech": ("most-frequent", _SYNONYMS),
    "data.augmentations.spare_names": (False, _SYNONYMS),
    "data.augmentations.wordnet": ("{sets}", _SYNONYMS),
    "data.extra": (["{made}"], {}),
    "data.on_bad_row": ("set-aside", {"data.train": "{sets}/bad.csv"}),
    "data.overlap": ("keep", {}),
    "data.near_duplicate_similarity": (0.2, {}),
    "budget.trainable_parameters": (1700, {}),
    "adapter.method": ("rslora", {}),
    "adapter.targets": (["key"], {}),
    "adapter.rank": (3, {}),
    "adapter.alpha": (1.0, {}),
    "adapter.dropout": (0.5, {}),
    "adapter.bias": ("all", {}),
    "adapter.head": ("output-only", {}),
    "adapter.head_rank": (2, {"adapter.head": "low-rank"}),
    "adapter.initialization": ("gaussian", {}),
    "adapter.target_rank": (2, _ADALORA),
    "adapter.start_steps": (2, _ADALORA),
    "adapter.final_steps": (1, _ADALORA),
    "adapter.every": (3, _ADALORA),
    "adapter.betas": ([0.1, 0.1], {**_ADALORA, "train.epochs": 3}),
    "adapter.orthogonality": (0.0, _ADALORA),
    "adapter.d_initial": (1.0, _VERA),
    "optimizer.method": ("adam", {}),
    "optimizer.learning_rate": (0.001, {}),
    "optimizer.weight_decay": (0.5, {}),
    "optimizer.betas": ([0.5, 0.9], {}),
    "optimizer.epsilon": (0.1, {}),
    "optimizer.b_ratio": (4.0, {}),
    "optimizer.layer_decay": (0.5, {}),
    "optimizer.smoothing": (0.5, _optimizer("rmsprop")),
    "optimizer.momentum": (0.5, _optimizer("sgd")),
    "optimizer.nesterov": (True, _optimizer("sgd")),
    "optimizer.decay_exponent": (-0.2, _optimizer("adafactor")),
    "optimizer.clip": (100.0, _optimizer("adafactor")),
    "optimizer.rest_learning_rate": (0.1, _optimizer("muon")),
    "optimizer.schedule.method": ("constant", {}),
    "optimizer.schedule.warmup_steps": (3, {}),
    "optimizer.schedule.warmup_ratio": (0.5, {}),
    "train.epochs": (2, {}),
    "train.max_steps": (3, {}),
    "train.batch_rows": (16, {}),
    "train.accumulation_steps": (2, {}),
    "train.batch_tokens": (512, {"train.batch_rows": 48, "data.max_tokens": 30}),
    "train.evaluation_batch_rows": (4, {}),
    "train.batch_order": ("random", {}),
    "train.compile": ("on", {}),
    "train.prefix_cache": (
        "disk",
        {"base.attention": "packed", "adapter.targets": ["layer.1.attention.self.value"]},
    ),
    "train.precision": ("bf16", {}),
    "train.label_smoothing": (0.2, {}),
    "train.r_drop": (1.0, {}),
    "train.mixup": (0.5, {}),
    "train.average": (0.5, {}),
    "train.max_gradient_norm": (0.01, {}),
    "train.evaluate_every": (2, {}),
    "train.keep_best": ("nll", {}),
    "train.early_stopping": ({"patience": 1, "threshold": 0.9}, {"train.epochs": 3}),
    "train.early_stopping.patience": (
        1,
        {"train.early_stopping": {"patience": 3, "threshold": 0.9}, "train.epochs": 3},
    ),
    "train.early_stopping.threshold": (
        0.9,
        {
            "train.early_stopping": {"patience": 1, "threshold": 0.0},
            "train.epochs": 3,
            "train.keep_best": "nll",
        },
    ),
    "train.log_every": (2, {}),
    "train.trackers": (["tensorboard"], {}),
    "distillation": ({"teachers": ["{teacher}"]}, {}),
    "distillation.teachers": (["{student}"], _TAUGHT),
    "distillation.temperature": (5.0, _TAUGHT),
    "distillation.soft": (1.0, _TAUGHT),
    "distillation.hidden": (1.0, _TAUGHT),
    "generate": ({"model": "{lm}", "prompts": "{prompts}", "per_class": 4}, _TARGET),
    **{
        f"generate.{key}": (value, _GENERATE)
        for key, value in {
            "model": "{lm}-none",
            "prompts": "{prompts}-none",
            "per_class": 5,
            "epochs": 1.0,
            "learning_rate": 0.01,
            "lengths": "empirical",
            "longest": 4,
            "temperature": 3.0,
            "top_k": 3,
            "top_p": 0.3,
            "repetition_penalty": 3.0,
            "batch_rows": 4,
            "gates.judge": "off",
            "gates.confidence": 0.0,
            "gates.similarity": 0.05,
            "gates.copied_words": 3,
        }.items()
    },
    "transduction": ({"prior": {"method": "em"}}, _TARGET),
    "transduction.prior": ({"method": "em"}, _TARGET),
    "transduction.prior.method": ("stated", {**_PRIOR, "transduction.prior.stated": _SHARES}),
    "transduction.prior.stated": (
        {**_SHARES, "World": 0.1, "Sports": 0.4},
        {**_PRIOR, "transduction.prior": {"method": "stated", "stated": _SHARES}},
    ),
    "transduction.prior.groups": ("one", _PRIOR),
    "transduction.self_training": ({"teacher": "{teacher}", "confidence": 0.3}, _TARGET),
    "transduction.self_training.teacher": ("{student}", _SELF),
    "transduction.self_training.confidence": (0.999, _SELF),
    # Every class, because which ones so small a teacher finds is chance.
    "transduction.self_training.by_class": (dict.fromkeys(LABELS, 0.999), _SELF),
    "transduction.self_training.most_per_class": (1, _SELF),
    "transduction.self_training.label_smoothing": (0.5, _SELF),
    "transduction.consistency": (1.0, _TARGET),
    "transduction.consistency_rows": (3, {**_TARGET, "transduction.consistency": 1.0}),
    "transduction.density_ratio": ({}, _TARGET),
    "transduction.density_ratio.largest": (0.9, _DENSITY),
    "transduction.density_ratio.power": (0.1, _DENSITY),
    "evaluate.test": ("{sets}/other.csv", {}),
    "evaluate.also": ({"more": "{sets}/other.csv"}, {}),
    "evaluate.calibration_bins": (2, {}),
}


def _sections_in(annotation: Any) -> set[type[Section]]:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return {annotation}
    return {found for argument in get_args(annotation) for found in _sections_in(argument)}


def _keys(section: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Leaves of the schema; a key that may be a value or a table counts, and so do its fields."""
    for name, field in section.model_fields.items():
        key, annotation = f"{prefix}{name}", field.annotation
        inside = _sections_in(annotation)
        choices = {annotation} if annotation in inside else {*get_args(annotation)}
        if not inside or choices != inside or SourceTable in inside:
            yield key
        # A source has the same fields wherever it stands.
        for found in inside if key == "data.train" else inside - {SourceTable}:
            yield from _keys(found, f"{key}.")


def test_every_key_of_the_schema_is_tried() -> None:
    # A summary is for the reader: `pennyweight recipes` prints it, and the run does not differ.
    assert sorted(set(_keys(Recipe)) - {"summary"}) == sorted(CHANGES)


@pytest.fixture(scope="module")
def places(
    bert: Path, roberta: Path, sets: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """What the braces in `CHANGES` stand for."""
    folder = tmp_path_factory.mktemp("live")
    for name in ("validation", "test"):
        shutil.copy(sets / f"{name}.csv", folder)
    rows = news(112, seed=1)
    tested = rows[64:76]
    # One row of the test, one near it, and one whose words hide behind an entity.
    extra = [tested[0], (1, "coach#39;s week"), (tested[1][0], tested[1][1] + " the")]
    write_news(folder / "train.csv", [*rows[:45], *extra])
    write_news(folder / "other.csv", rows[76:])
    write_news(folder / "bad.csv", [*rows[:47], (9, "the label is wrong")])
    text = (folder / "train.csv").read_text().splitlines()
    shifted = [f"{line},{(index + 1) % 4}" for index, line in enumerate(text[1:])]
    (folder / "train.csv").write_text("\n".join([text[0] + ",second_label", *shifted]) + "\n")
    upper = shutil.copytree(bert, folder / "upper")
    tokenizer = json.loads((upper / "tokenizer.json").read_text())
    tokenizer["normalizer"] = {"type": "Replace", "pattern": {"String": "the"}, "content": "a"}
    (upper / "tokenizer.json").write_text(json.dumps(tokenizer))
    for name, seed in (("teacher", 1), ("student", 2)):
        recipe = tiny_recipe(bert, folder, train={"max_steps": 4})
        train(recipe.model_copy(update={"seed": seed}), out=folder / name)
    found = {name: str(folder / name) for name in ("upper", "teacher", "student")}
    write_news(folder / "target.csv", news(120, seed=31))
    found |= _for_the_lab(folder, rows)
    return {"sets": str(folder), "roberta": str(roberta), "bert": str(bert), **found}


def _for_the_lab(folder: Path, rows: list[tuple[int, str]]) -> dict[str, str]:
    """A language model, openings, made rows and a WordNet."""
    texts = [text for _, text in rows]
    model = LanguageModel.untrained(texts, vocabulary=300, layers=1, width=32, heads=2, context=64)
    model.fit(texts, epochs=8, learning_rate=3e-3, batch_tokens=512)
    model.save(folder / "lm")
    openings = [f'"{label}" = ["the {label.lower()} says", "a"]' for label in LABELS]
    (folder / "openings.toml").write_text("\n".join(openings))
    table = pa.table({"text": ["a new week", "the report"], "label": [0, 1]})
    write_made(folder / "made.parquet", table, {})
    wordnet = write_wordnet(folder / "wordnet")
    return {
        "lm": str(folder / "lm"),
        "prompts": str(folder / "openings.toml"),
        "made": str(folder / "made.parquet"),
        "wordnet": str(wordnet),
    }


@pytest.fixture(scope="module")
def outcome_of(
    places: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[Settings], str]:
    """Runs a recipe with some keys set, once each, and says what came of it."""
    known: dict[str, str] = {}

    def outcome(settings: Settings) -> str:
        text = json.dumps(settings, sort_keys=True)
        if text not in known:
            for name, path in places.items():
                text = text.replace(f"{{{name}}}", path)
            out = tmp_path_factory.mktemp("run") / "run"
            known[json.dumps(settings, sort_keys=True)] = _run(json.loads(text), places, out)
        return known[json.dumps(settings, sort_keys=True)]

    return outcome


def _run(settings: Settings, places: dict[str, str], out: Path) -> str:
    recipe = tiny_recipe(Path(places["roberta"]), Path(places["sets"]))
    values = recipe.model_dump(mode="json", exclude_none=True)
    values["data"]["train"] = {"location": values["data"]["train"], "label_column": "label"}
    for key, value in settings.items():
        _set(values, key.split("."), value)
    sizes: list[int] = []
    inputs = feed.Feed.inputs

    def counted(self: feed.Feed, tokens: Any, rows: Any) -> Any:
        sizes.append(len(rows))
        return inputs(self, tokens, rows)

    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(feed.Feed, "inputs", counted)
            record = train(resolve_recipe(values), out=out)
    except PennyweightError as error:
        return str(error).replace(str(out), "RUN")
    told = record.model_dump(mode="json", exclude={"started", "seconds", "peak_memory_bytes"})
    for timed in ("recipe", "environment", "git"):
        told.pop(timed)
    for entry in told["history"]:
        entry.pop("seconds")
        entry.pop("rows_per_second")
    told["batches"] = sizes
    told["files"] = sorted(
        str(f.relative_to(out)) for f in out.rglob("*") if "events" not in f.name
    )
    told["labels"] = (out / "adapter" / "labels.json").read_text()
    weights = load_file(out / "adapter" / "adapter_model.safetensors")
    told["weights"] = {name: float(abs(weight).sum()) for name, weight in weights.items()}
    return json.dumps(told, sort_keys=True).replace(str(out), "RUN")


def _set(values: Settings, path: list[str], value: Any) -> None:
    for name in path[:-1]:
        inside = values.get(name)
        if isinstance(inside, list) and inside and isinstance(inside[0], dict):
            inside = inside[0]
        elif not isinstance(inside, dict):
            inside = values[name] = {}
        values = inside
    if value is None:
        values.pop(path[-1], None)
    else:
        values[path[-1]] = value


def test_the_same_recipe_gives_the_same_outcome(
    places: dict[str, str], tmp_path: Path, outcome_of: Callable[[Settings], str]
) -> None:
    # Without this, every difference below could be chance.
    assert outcome_of({}) == _run({}, places, tmp_path / "run")
    assert json.loads(outcome_of({}))["status"] == "complete"


@pytest.mark.parametrize("key", CHANGES)
def test_a_changed_key_changes_the_run(key: str, outcome_of: Callable[[Settings], str]) -> None:
    value, besides = CHANGES[key]
    assert outcome_of({**besides, key: value}) != outcome_of(besides)
