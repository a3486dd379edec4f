"""Weights between those at the start of training and the trained ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from pennyweight.budget.facts import read_artifact_facts
from pennyweight.errors import RecipeError
from pennyweight.recipe import Recipe
from pennyweight.training.interpolate import copy_trained_weights, interpolate_weights
from pennyweight.training.train import train, train_together
from pennyweight.training.watcher import Watcher
from tiny import tiny_recipe


def test_trained_weights_move_toward_the_start_and_frozen_ones_stay() -> None:
    model = torch.nn.Linear(2, 2)
    model.bias.requires_grad_(requires_grad=False)
    start, bias = copy_trained_weights(model), model.bias.clone()
    with torch.no_grad():
        model.weight.add_(1.0)
    interpolate_weights(model, start, share=0.25)
    assert list(start) == ["weight"]
    torch.testing.assert_close(model.weight, start["weight"] + 0.25)
    assert torch.equal(model.bias, bias)


def _recipe(base: Path, sets: Path, *, rate: float = 1e-2, **train_keys: Any) -> Recipe:
    keys = {"head_start": "logistic", "epochs": 3, **train_keys}
    return tiny_recipe(
        base, sets, base={"pooling": "mean"}, train=keys, optimizer={"learning_rate": rate}
    )


def _weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "adapter" / "adapter_model.safetensors")


@pytest.fixture(scope="module")
def trained(bert: Path, sets: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("trained") / "run"
    train(_recipe(bert, sets), out=out)
    return out


@pytest.fixture(scope="module")
def interpolated(bert: Path, sets: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out, lines = tmp_path_factory.mktemp("interpolated") / "run", list[str]()
    recipe = _recipe(bert, sets, interpolate=0.5)
    record = train(recipe, out=out, watcher=Watcher(log=lines.append))
    assert any(line.startswith("weights: 0.5 of the way from the start") for line in lines)
    assert record.best is not None
    assert record.best.value == pytest.approx(record.metrics["validation"].accuracy)
    return out


def test_the_saved_weights_lie_between_those_of_the_start_and_the_trained_ones(
    bert: Path, sets: Path, tmp_path: Path, trained: Path, interpolated: Path
) -> None:
    train(_recipe(bert, sets, rate=1e-12, max_steps=1), out=tmp_path / "start")
    start, end, between = map(_weights, (tmp_path / "start", trained, interpolated))
    for name, weight in between.items():
        torch.testing.assert_close(weight, (start[name] + end[name]) / 2, atol=1e-6, rtol=1e-5)
    facts = read_artifact_facts(interpolated / "adapter")
    assert facts is not None
    assert facts.interpolated == 0.5


def test_a_run_that_is_resumed_is_not_interpolated_twice(
    bert: Path, sets: Path, interpolated: Path
) -> None:
    before = _weights(interpolated)
    record = json.loads((interpolated / "record.json").read_text())
    (interpolated / "record.json").write_text(json.dumps(record | {"status": "running"}))
    train(_recipe(bert, sets, interpolate=0.5), out=interpolated, resume=True)
    after = _weights(interpolated)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_runs_that_are_trained_together_are_interpolated(
    bert: Path, sets: Path, tmp_path: Path, interpolated: Path
) -> None:
    train_together([_recipe(bert, sets, interpolate=0.5)], outs=[tmp_path / "together"])
    alone, together = _weights(interpolated), _weights(tmp_path / "together")
    for name, weight in alone.items():
        torch.testing.assert_close(together[name], weight, atol=1e-3, rtol=1e-2)


def test_a_start_that_classifies_nothing_is_refused(bert: Path, sets: Path) -> None:
    with pytest.raises(RecipeError, match=r"train\.interpolate: .*head_start"):
        tiny_recipe(bert, sets, train={"interpolate": 0.5})
    with pytest.raises(RecipeError, match=r"train\.interpolate: .*train\.average"):
        _recipe(bert, sets, interpolate=0.5, average=0.9)
