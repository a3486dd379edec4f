"""Runs with adapters in the top layers, whose lower layers are cached without being asked for."""

from __future__ import annotations

from pathlib import Path

from pennyweight.training.train import train, train_together
from pennyweight.training.watcher import Watcher
from tiny import tiny_recipe


def test_the_lower_layers_of_a_run_with_top_layers_are_cached(
    roberta: Path, sets: Path, tmp_path: Path
) -> None:
    recipe = tiny_recipe(
        roberta,
        sets,
        base={"attention": "packed"},
        budget={"trainable_parameters": 2_000},
        adapter={"targets": ["query", "value"], "rank": "fill", "top_layers": 1},
        train={"epochs": 2, "prefix_cache": "auto"},
    )
    lines: list[str] = []
    record = train(recipe, out=tmp_path / "run", watcher=Watcher(log=lines.append))
    derived = "train.prefix_cache = disk  (the lowest 1 of 2 layers have no adapter; "
    assert any(line.startswith(derived) for line in lines)
    assert sum(line.startswith("prefix cache: ") for line in lines) == 2
    assert record.recipe.train.prefix_cache == "disk"
    assert {matrix.layer for matrix in record.plan.matrices if matrix.kind == "lora"} == {1}
    # The head has 1,188 parameters, and a rank of query and value 128.
    assert record.parameters is not None
    assert record.parameters.file == 1_188 + 6 * 128


def test_runs_trained_together_cache_only_what_all_of_them_leave_frozen(
    roberta: Path, sets: Path, tmp_path: Path
) -> None:
    recipes = [
        tiny_recipe(
            roberta,
            sets,
            base={"attention": "packed"},
            adapter={"rank": 2, "top_layers": top},
            train={"max_steps": 2, "epochs": 2, "prefix_cache": "auto"},
        )
        for top in (1, "all")
    ]
    records = train_together(recipes, outs=[tmp_path / "top", tmp_path / "all"])
    assert [record.recipe.train.prefix_cache for record in records] == ["disk", "off"]
    assert [record.status for record in records] == ["complete", "complete"]
