"""Several runs trained at once leave what each would leave alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from pennyweight.errors import RecipeError, RunError
from pennyweight.recipe import Recipe
from pennyweight.runs.training import train, train_together
from pennyweight.runs.using import evaluate
from runs.tiny import tiny_recipe


def _recipes(base: Path, sets: Path, **train_keys: object) -> list[Recipe]:
    shared = {"epochs": 2, **train_keys}
    still = {"dropout": 0.0, "attention": "packed"}
    made = []
    for name, adapter, rate in (
        ("narrow", {"rank": 1, "targets": ["layer.1.attention.self.value"]}, 0.02),
        (
            "wide",
            {
                "rank": 4,
                "targets": ["layer.1.attention.self.query", "layer.1.attention.self.value"],
                "head": "low-rank",
            },
            0.005,
        ),
    ):
        recipe = tiny_recipe(
            base,
            sets,
            base={**still, "name": str(base)},
            adapter=adapter,
            optimizer={"learning_rate": rate},
            train=shared,
        )
        made.append(recipe.model_copy(update={"name": name}))
    return made


@pytest.mark.parametrize("cache", ["off", "device"])
def test_each_run_is_as_if_it_had_been_alone(
    roberta: Path, sets: Path, tmp_path: Path, cache: str
) -> None:
    recipes = _recipes(roberta, sets, prefix_cache=cache)
    alone = [train(recipe, out=tmp_path / f"alone-{recipe.name}") for recipe in recipes]
    outs = [tmp_path / recipe.name for recipe in recipes]
    together = train_together(recipes, outs=outs)
    for one, other, out in zip(alone, together, outs, strict=True):
        assert other.status == "complete"
        assert other.parameters == one.parameters
        losses = [[entry["loss"] for entry in record.history] for record in (one, other)]
        np.testing.assert_allclose(losses[1], losses[0], atol=1e-4)
        first, second = (
            load_file(run / "adapter" / "adapter_model.safetensors")
            for run in (tmp_path / f"alone-{out.name}", out)
        )
        assert first.keys() == second.keys()
        for name, weight in first.items():
            np.testing.assert_allclose(second[name], weight, atol=1e-3)
        measured = evaluate(out, str(sets / "test.csv"))
        assert measured.accuracy == other.metrics["test"]["accuracy"]


def test_recipes_that_differ_in_their_data_are_refused(
    roberta: Path, sets: Path, tmp_path: Path
) -> None:
    one, other = _recipes(roberta, sets)
    other = other.model_copy(update={"seed": 5})
    with pytest.raises(RecipeError, match=r"wide: \[seed\] differs from narrow's"):
        train_together([one, other], outs=[tmp_path / "a", tmp_path / "b"])
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_is_in_use_stops_all_of_them(
    roberta: Path, sets: Path, tmp_path: Path
) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "file").touch()
    with pytest.raises(RunError, match="not empty"):
        train_together(_recipes(roberta, sets), outs=[tmp_path / "a", tmp_path / "b"])
