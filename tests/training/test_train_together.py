"""Several runs trained on the same batches become what each would have become alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from pennyweight.engine.device import Compute, choose_compute
from pennyweight.errors import RecipeError, RunError
from pennyweight.inference.evaluate import evaluate
from pennyweight.recipe import Recipe
from pennyweight.training import job
from pennyweight.training.train import train, train_together
from tiny import tiny_recipe
from training.outcomes import losses


def _recipes(base: Path, sets: Path, **train_keys: object) -> list[Recipe]:
    value = "layer.1.attention.self.value"
    adapters = {
        "narrow": ({"rank": 1, "targets": [value]}, 0.02),
        "wide": (
            {"rank": 4, "targets": ["layer.1.attention.self.query", value], "head": "low-rank"},
            0.005,
        ),
    }
    recipes = []
    for name, (adapter, rate) in adapters.items():
        recipe = tiny_recipe(
            base,
            sets,
            base={"name": str(base), "dropout": 0.0, "attention": "packed"},
            adapter=adapter,
            optimizer={"learning_rate": rate},
            train={"epochs": 2, **train_keys},
        )
        recipes.append(recipe.model_copy(update={"name": name}))
    return recipes


@pytest.mark.parametrize(
    "keys",
    [{"prefix_cache": "off"}, {"prefix_cache": "device"}, {"accumulation_steps": 2}],
    ids=["no cache", "cached prefix", "accumulated"],
)
def test_each_run_is_as_if_it_had_been_trained_alone(
    roberta: Path, sets: Path, tmp_path: Path, keys: dict[str, object]
) -> None:
    recipes = _recipes(roberta, sets, **keys)
    alone = [train(recipe, out=tmp_path / f"alone-{recipe.name}") for recipe in recipes]
    outs = [tmp_path / recipe.name for recipe in recipes]
    together = train_together(recipes, outs=outs)
    for one, other, out in zip(alone, together, outs, strict=True):
        assert other.status == "complete"
        assert other.parameters == one.parameters
        np.testing.assert_allclose(losses(other), losses(one), atol=1e-4)
        first, second = (
            load_file(run / "adapter" / "adapter_model.safetensors")
            for run in (tmp_path / f"alone-{out.name}", out)
        )
        assert first.keys() == second.keys()
        for name, weight in first.items():
            np.testing.assert_allclose(second[name], weight, atol=1e-3)
        metrics = evaluate(out, str(sets / "test.csv"))
        assert metrics.accuracy == other.metrics["test"].accuracy


def test_recipes_that_differ_in_their_data_are_refused(
    roberta: Path, sets: Path, tmp_path: Path
) -> None:
    one, other = _recipes(roberta, sets)
    other = other.model_copy(update={"seed": 5})
    with pytest.raises(RecipeError, match=r"wide: \[seed\] differs from narrow's"):
        train_together([one, other], outs=[tmp_path / "a", tmp_path / "b"])
    assert list(tmp_path.iterdir()) == []


def test_fp16_is_refused(
    roberta: Path, sets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def choose_fp16(**options: Any) -> Compute:
        # As on a GPU; a CPU refuses it for every run.
        return replace(choose_compute(**options), precision="fp16")

    monkeypatch.setattr(job, "choose_compute", choose_fp16)
    outs = [tmp_path / "a", tmp_path / "b"]
    with pytest.raises(RecipeError, match=r'train\.precision: "fp16" needs loss scaling'):
        train_together(_recipes(roberta, sets), outs=outs)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("initialization", ["pissa", "olora"])
def test_an_initialization_that_changes_the_shared_base_is_refused(
    roberta: Path, sets: Path, tmp_path: Path, initialization: str
) -> None:
    one, other = _recipes(roberta, sets)
    adapter = other.adapter.model_copy(update={"initialization": initialization})
    changed = other.model_copy(update={"adapter": adapter})
    with pytest.raises(RecipeError, match=r"wide: adapter.initialization changes the weights"):
        train_together([one, changed], outs=[tmp_path / "a", tmp_path / "b"])
    assert list(tmp_path.iterdir()) == []


def test_a_time_limit_is_refused(roberta: Path, sets: Path, tmp_path: Path) -> None:
    outs = [tmp_path / "a", tmp_path / "b"]
    with pytest.raises(RecipeError, match=r"^train\.minutes: .* train them one by one"):
        train_together(_recipes(roberta, sets, minutes=60), outs=outs)
    assert list(tmp_path.iterdir()) == []


def test_every_recipe_needs_a_directory(roberta: Path, sets: Path, tmp_path: Path) -> None:
    for recipes in ([], _recipes(roberta, sets)):
        with pytest.raises(RecipeError, match="a directory for each"):
            train_together(recipes, outs=[tmp_path / "a"])


def test_a_directory_in_use_stops_all_of_them_and_nothing_is_created(
    roberta: Path, sets: Path, tmp_path: Path
) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "file").touch()
    with pytest.raises(RunError, match="not empty"):
        train_together(_recipes(roberta, sets), outs=[tmp_path / "a", tmp_path / "b"])
    assert not (tmp_path / "a").exists()
    assert [file.name for file in (tmp_path / "b").iterdir()] == ["file"]
