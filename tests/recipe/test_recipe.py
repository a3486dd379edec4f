"""Recipes are read, joined, overridden and refused as documented."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from pennyweight.errors import RecipeError
from pennyweight.recipe import (
    Recipe,
    dump_recipe,
    load_recipe,
    resolve_recipe,
    shipped_recipes,
)
from pennyweight.recipe.fields import marked, models_in


def _file(folder: Path, text: str, *, name: str = "spam.toml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("text", "key", "near"),
    [
        ("[adapter]\nrnak = 4", "adapter.rnak", "rank"),
        ("[adaptor]\nrank = 4", "adaptor", "adapter"),
        ("[optimizer]\nlearning_rat = 1e-3", "optimizer.learning_rat", "learning_rate"),
        (
            '[optimizer]\nschedule = { method = "cosine", warmup_step = 5 }',
            "optimizer.schedule.warmup_step",
            "warmup_steps",
        ),
        ("[train]\nearly_stopping = { patince = 2 }", "train.early_stopping.patince", "patience"),
        ("[evaluate]\nalso = { x = { locaton = 's' } }", "evaluate.also.x.locaton", "location"),
        ("[[data.filters]]\nmethod = 'length'\nshortst = 3", "data.filters.shortst", "shortest"),
    ],
)
def test_unknown_key_names_the_nearest_known_one(
    tmp_path: Path, text: str, key: str, near: str
) -> None:
    path = _file(tmp_path, text)
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    problem = f'recipe {path}: {key}: unknown key, did you mean "{near}"?'
    assert problem in str(caught.value).splitlines()


@pytest.mark.parametrize(
    ("text", "key", "given_value", "allowed"),
    [
        ("[adapter]\nrank = 0", "adapter.rank", "0", '"fill"'),
        ('[adapter]\nrank = "full"', "adapter.rank", '"full"', '"fill"'),
        ("[adapter]\nalpha = -1", "adapter.alpha", "-1", "above 0"),
        ('[adapter]\nhead = "half"', "adapter.head", '"half"', "'low-rank'"),
        ('[budget]\ntrainable_parameters = "1M"', "budget.trainable_parameters", '"1M"', "integer"),
        (
            '[optimizer]\nschedule = { method = "sine" }',
            "optimizer.schedule.method",
            "sine",
            "'cosine'",
        ),
        ("[optimizer]\nlearning_rate = nan", "optimizer.learning_rate", "NaN", "a number above 0"),
        ("[train]\nepochs = true", "train.epochs", "true", "a whole number from 1"),
        ('[data]\nlabels = ["one"]', "data.labels", '["one"]', "at least 2"),
        ("adapter = 3", "adapter", "3", "a table"),
        ("[data]\ntrain = 3", "data.train", "3", '"sample:SPLIT"'),
        ("[evaluate]\nalso = 3", "evaluate.also", "3", "a table"),
        ("[evaluate]\nalso = { x = 3 }", "evaluate.also.x", "3", '"sample:SPLIT"'),
        (
            "[train]\nearly_stopping = { patience = 0 }",
            "train.early_stopping.patience",
            "0",
            "greater than 0",
        ),
    ],
)
def test_wrong_value_names_file_key_given_and_allowed(
    tmp_path: Path, text: str, key: str, given_value: str, allowed: str
) -> None:
    path = _file(tmp_path, text)
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    message = str(caught.value)
    assert message.startswith(f"recipe {path}: {key}: ")
    assert given_value in message.split("allowed")[0]
    assert allowed in message.split("allowed")[1]


def test_override_is_validated_like_a_file_and_named() -> None:
    with pytest.raises(RecipeError, match=r'--set adapter\.rnak: .*did you mean "rank"'):
        load_recipe("spar-lora", overrides=["adapter.rnak=4"])
    with pytest.raises(RecipeError, match=r'--set adapter\.rank: adapter\.rank: given -4.*"fill"'):
        load_recipe("spar-lora", overrides=["adapter.rank=-4"])
    with pytest.raises(RecipeError, match=r'--set train\.seed: .*did you mean "seed"\?$'):
        load_recipe("quickstart", overrides=["train.seed=2"])
    with pytest.raises(RecipeError, match=r'--set train\.rank: .*did you mean "adapter\.rank"\?$'):
        load_recipe("quickstart", overrides=["train.rank=2"])
    with pytest.raises(RecipeError, match=r'--set adaptr\.rank=4: .*did you mean "adapter"'):
        load_recipe("spar-lora", overrides=["adaptr.rank=4"])
    with pytest.raises(RecipeError, match="expected KEY=VALUE"):
        load_recipe("spar-lora", overrides=["adapter.rank"])


def test_override_takes_toml_or_else_the_text_and_the_last_one_wins() -> None:
    recipe = load_recipe(
        "spar-lora",
        overrides=[
            "adapter.rank=fill",
            "seed=1",
            "seed=7",
            'adapter.targets=["key"]',
            "summary=it's '''quoted''' text",
            "optimizer.learning_rate=1e-3",
            "adapter.alpha.query=3",
        ],
    )
    assert recipe.adapter.rank == "fill"
    assert recipe.seed == 7
    assert recipe.adapter.targets == ("key",)
    assert recipe.summary == "it's '''quoted''' text"
    assert recipe.optimizer.learning_rate == 1e-3
    assert recipe.adapter.alpha == {"query": 3.0}


@pytest.mark.parametrize("key", ["[adapter]#", "a = 1\nb", "a..b", "", " ", '"', "[[x]]\ny"])
def test_override_key_that_cannot_be_read_is_refused(key: str) -> None:
    with pytest.raises(RecipeError, match="--set"):
        load_recipe("spar-lora", overrides=[f"{key}=1"])


def test_child_stands_over_its_parent(tmp_path: Path) -> None:
    _file(tmp_path, "seed = 1\n[adapter]\nrank = 2\nalpha = 5", name="parent.toml")
    child = _file(tmp_path, 'extends = "parent.toml"\n[adapter]\nrank = 4', name="child.toml")
    recipe = load_recipe(child)
    assert (recipe.seed, recipe.adapter.rank, recipe.adapter.alpha) == (1, 4, 5.0)
    assert recipe.name == "child"


def test_fault_inherited_from_a_parent_names_the_parent(tmp_path: Path) -> None:
    parent = _file(tmp_path, "[adapter]\nrnak = 2", name="parent.toml")
    child = _file(tmp_path, 'extends = "parent.toml"\n[adapter]\nrank = 4', name="child.toml")
    with pytest.raises(RecipeError, match=f"recipe {parent}: adapter.rnak"):
        load_recipe(child)


def test_a_section_of_another_method_keeps_what_both_methods_have(tmp_path: Path) -> None:
    # A method that does not exist has no keys, so the parent's unknown key is not complained of.
    _file(tmp_path, "[adapter]\nrnak = 4", name="parent.toml")
    child = _file(
        tmp_path, 'extends = "parent.toml"\n[adapter]\nmethod = "other"', name="child.toml"
    )
    with pytest.raises(RecipeError) as caught:
        load_recipe(child)
    assert "adapter.method" in str(caught.value)
    parent = '[adapter]\nmethod = "other"\nrnak = 4'
    _file(tmp_path, parent, name="parent.toml")
    _file(tmp_path, 'extends = "parent.toml"\n[adapter]\nmethod = "lora"', name="child.toml")
    assert load_recipe(child).adapter.method == "lora"
    _file(tmp_path, "[adapter]\nrank = 3\nalpha = 5\ndropout = 0.5", name="parent.toml")
    _file(tmp_path, 'extends = "parent.toml"\n[adapter]\nmethod = "vera"', name="child.toml")
    for recipe in (
        load_recipe(child),
        load_recipe(tmp_path / "parent.toml", overrides=["adapter.method=vera"]),
    ):
        adapter = recipe.adapter.model_dump()
        assert (adapter["method"], adapter["rank"], adapter["dropout"]) == ("vera", 3, 0.5)
        assert "alpha" not in adapter


def test_recipes_that_extend_each_other_are_refused(tmp_path: Path) -> None:
    first = _file(tmp_path, 'extends = "b.toml"', name="a.toml")
    _file(tmp_path, 'extends = "a.toml"', name="b.toml")
    with pytest.raises(RecipeError, match="cannot extend itself"):
        load_recipe(first)
    with pytest.raises(RecipeError, match="extends: given 3"):
        load_recipe(_file(tmp_path, "extends = 3"))


def test_paths_are_relative_to_the_file_or_to_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, elsewhere = tmp_path / "recipes", tmp_path / "elsewhere"
    folder.mkdir()
    elsewhere.mkdir()
    path = _file(
        folder,
        '[base]\nname = "./model"\n[data]\ntrain = "rows.jsonl"\n'
        '[evaluate]\ntest = "hub:fancyzhx/ag_news:test"\n'
        'also = { shifted = { location = "../shifted.csv" } }',
    )
    monkeypatch.chdir(elsewhere)
    recipe = load_recipe(path, overrides=["data.validation=held.csv", "evaluate.also.x=x.csv"])
    assert recipe.base.name == str(folder / "model")
    assert recipe.data.train is not None
    assert recipe.data.train.location == str(folder / "rows.jsonl")
    assert recipe.data.validation is not None
    assert recipe.data.validation.location == str(elsewhere / "held.csv")
    assert recipe.evaluate.test is not None
    assert recipe.evaluate.test.location == "hub:fancyzhx/ag_news:test"
    assert recipe.evaluate.also["shifted"].location == str(tmp_path / "shifted.csv")
    assert recipe.evaluate.also["x"].location == str(elsewhere / "x.csv")


# Every key that may hold a path, with a relative one; {} stands before it.
_PATHS = {
    "base.name": '"{}existing"',
    "adapter.plan": '"{}plan.toml"',
    "base.tokenizer": '"{}existing"',
    "data.train": '"{}rows.csv"',
    "data.validation": '{{ location = "{}rows.csv", format = "csv" }}',
    "data.target": '"{}existing:test"',
    "data.extra": '["{}one.parquet", "{}two.parquet"]',
    "data.filters": (
        '[{{ method = "duplicates" }}, {{ method = "perplexity", model = "{}existing" }}]'
    ),
    "data.augmentations": '[{{ method = "synonyms", wordnet = "{}dict" }}]',
    "generate.model": '"{}existing"',
    "generate.prompts": '"{}openings.toml"',
    "generate.gates": '{{ judge = "classifiers", judges = ["{}runs/a", "{}runs/b"] }}',
    "generate": (
        '{{ method = "endpoint", url = "http://localhost/v1", model = "m", '
        'instructions = "{}instructions.toml" }}'
    ),
    "train.start_from": '"{}runs/a"',
    "transduction.self_training": '{{ method = "confident", teachers = ["{}run", "{}run"] }}',
    "distillation.teachers": '["{}runs/a", "{}runs/b"]',
    "evaluate.test": '"{}rows.csv"',
    "evaluate.also": '{{ x = "{}rows.csv", y = {{ location = "{}rows.csv" }} }}',
}


@pytest.mark.parametrize("key", _PATHS)
def test_every_path_is_relative_to_the_file_or_to_the_working_directory(
    key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("recipes", "elsewhere"):
        (tmp_path / folder / "existing").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "elsewhere")
    target = [] if key.startswith("data.") else ["data.target = 'sample:shifted'"]
    relative, absolute = ([*target, f"{key} = {_PATHS[key].format(*[at] * 2)}"] for at in ("", "@"))

    def resolved(folder: str) -> dict[str, Any]:
        lines = [line.replace("@", f"{tmp_path}/{folder}/") for line in absolute]
        return load_recipe("demo", overrides=lines).model_dump(exclude={"name"})

    file = _file(tmp_path / "recipes", "\n".join(['extends = "demo"', *relative]))
    assert load_recipe(file).model_dump(exclude={"name", "summary"}) == {
        name: value for name, value in resolved("recipes").items() if name != "summary"
    }
    assert load_recipe("demo", overrides=relative).model_dump(exclude={"name"}) == resolved(
        "elsewhere"
    )


def test_every_key_that_may_hold_a_path_is_tested() -> None:
    def keys(models: list[type[BaseModel]], prefix: str = "") -> Iterator[str]:
        for model in models:
            for name, field in model.model_fields.items():
                if marked(field, "path"):
                    yield prefix + name
                elif prefix.count(".") < 3:
                    yield from keys(models_in(field.annotation), f"{prefix}{name}.")

    inside = {
        "data.filters.model": "data.filters",
        "data.augmentations.wordnet": "data.augmentations",
        "generate.gates.judges": "generate.gates",
        "generate.instructions": "generate",
        "transduction.self_training.teachers": "transduction.self_training",
    }
    assert {inside.get(key, key) for key in keys([Recipe])} == set(_PATHS)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("base.name", "embedded"),
        ("base.name", "roberta-base"),
        ("generate.model", "gpt2"),
        ("generate.prompts", "news"),
        ("data.train", "hub:fancyzhx/ag_news"),
        ("evaluate.test", "sample:test"),
    ],
)
def test_names_of_models_and_sources_are_not_taken_for_paths(
    key: str, value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A directory called "news" is not a file with openings.
    (tmp_path / "news").mkdir()
    monkeypatch.chdir(tmp_path)
    file = _file(tmp_path, f"extends = 'demo'\ndata.target = 'sample:test'\n{key} = '{value}'")
    section, name = key.split(".")
    loaded = getattr(getattr(load_recipe(file), section), name)
    assert getattr(loaded, "location", loaded) == value


@pytest.mark.parametrize("name", sorted(shipped_recipes()))
def test_every_shipped_recipe_loads_and_survives_a_round_trip(name: str, tmp_path: Path) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe.summary
    assert load_recipe(_file(tmp_path, dump_recipe(recipe))) == recipe


def test_run_directory_stands_for_its_recipe(tmp_path: Path) -> None:
    _file(tmp_path, dump_recipe(load_recipe("quickstart")), name="recipe.toml")
    assert load_recipe(tmp_path) == load_recipe("quickstart")


@pytest.mark.parametrize("name", ["quickstrat", "no/such.toml", "a\0b", "x" * 500, ""])
def test_recipe_that_does_not_exist_is_refused(name: str) -> None:
    with pytest.raises(RecipeError, match="recipe"):
        load_recipe(name)


def test_file_that_is_no_toml_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "spam.toml"
    for content in (b"rank = = 4", b"\xff\xfe", b"seed = " + b"9" * 5000, b"a = " + b"[" * 5000):
        path.write_bytes(content)
        with pytest.raises(RecipeError, match=r"spam\.toml"):
            load_recipe(path)


_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
_RANKS = st.one_of(
    st.integers(1, 64),
    st.just("fill"),
    st.dictionaries(_TEXT, st.integers(0, 64), max_size=3),
)


@settings(max_examples=100)
@given(
    seed=st.integers(0, 2**31 - 1),
    summary=_TEXT,
    rank=_RANKS,
    alpha=st.floats(1e-300, 1e300),
    labels=st.lists(_TEXT, min_size=2, max_size=5, unique=True),
    also=st.dictionaries(st.from_regex(r"\A[a-z.]{1,5}[0-9]\Z"), st.just("sample:test")),
    stopping=st.one_of(st.just("off"), st.just({"patience": 3})),
)
def test_dumped_recipe_reads_back_the_same(
    tmp_path_factory: pytest.TempPathFactory, also: dict[str, str], **values: object
) -> None:
    recipe = resolve_recipe(
        {
            "seed": values["seed"],
            "summary": values["summary"],
            "adapter": {"rank": values["rank"], "alpha": values["alpha"]},
            "data": {"labels": values["labels"]},
            "evaluate": {"also": also},
            "train": {"early_stopping": values["stopping"]},
        }
    )
    path = _file(tmp_path_factory.mktemp("dumped"), dump_recipe(recipe))
    assert load_recipe(path) == recipe


_KEYS = st.sampled_from(
    ["seed", "adapter.rank", "adapter.alpha", "data.train", "base.name", "evaluate.also.x",
     "optimizer.schedule", "train.early_stopping", "name.x", "evaluate", "data.clean"]
)  # fmt: skip


@settings(max_examples=300)
@given(text=st.one_of(st.text(), st.builds("{}={}".format, st.one_of(_KEYS, st.text()), st.text())))
def test_any_override_gives_a_recipe_or_a_recipe_error(text: str) -> None:
    try:
        recipe = load_recipe("spar-lora", overrides=[text])
    except RecipeError:
        return
    assert isinstance(recipe, Recipe)


@pytest.mark.parametrize(
    "value", ["~nobody-here/x", "\0", "." + "x" * 5000, "9" * 5000, "[" * 5000, "\ud800", "1\nb=2"]
)
def test_odd_override_values_are_no_crash(value: str) -> None:
    for key in ("data.train", "base.name", "seed", "evaluate.also.x", "optimizer.learning_rate"):
        try:
            load_recipe("spar-lora", overrides=[f"{key}={value}"])
        except RecipeError as error:
            assert "--set" in str(error)  # noqa: PT017
