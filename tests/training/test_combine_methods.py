"""Runs of every adapter method and kind of head that can be combined."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import peft
import pytest
import torch

from pennyweight.errors import RunError
from pennyweight.runs.record import RunRecord
from pennyweight.training.combine import combine
from pennyweight.training.combine_options import CombineOptions
from pennyweight.training.train import train
from tiny import tiny_recipe

LOW_RANK = {"head": "low-rank", "head_rank": 2, "bias": "all"}
POOLED = {"head": "low-rank", "head_rank": 1}


def _two_runs(
    base: Path, sets: Path, folder: Path, seeds: tuple[int, int], /, **sections: Any
) -> list[Path]:
    runs = [folder / f"run-{number}" for number in (1, 2)]
    sections["adapter"] = {"targets": ["query"], "rank": 2, **sections.get("adapter", {})}
    for run, seed, steps in zip(runs, seeds, (3, 5), strict=True):
        recipe = tiny_recipe(base, sets, train={"max_steps": steps}, **sections)
        train(recipe.model_copy(update={"seed": seed}), out=run)
    return runs


def _states(*runs: Path) -> list[dict[str, torch.Tensor]]:
    return [peft.load_peft_weights(str(run / "adapter"), device="cpu") for run in runs]


def _is_valid(record: RunRecord, space: str) -> bool:
    counts, combination = record.parameters, record.combination
    return (
        counts is not None
        and counts.planned == counts.model == counts.file
        and combination is not None
        and combination.space == space
    )


@pytest.mark.parametrize(
    ("family", "sections"),
    [
        ("bert", {"adapter": {"method": "dora"}}),
        ("bert", {"adapter": {"method": "lora-fa"}}),
        ("roberta", {"adapter": LOW_RANK}),
        ("bert", {"adapter": {"initialization": "pissa"}}),
    ],
)
def test_every_tensor_of_runs_that_started_alike_is_averaged(
    family: str, sections: dict[str, Any], request: Any, sets: Path, tmp_path: Path
) -> None:
    base = request.getfixturevalue(family)
    runs = _two_runs(base, sets, tmp_path, (1, 1), **sections)
    assert _is_valid(combine(runs, out=tmp_path / "out"), "factors")
    one, other, result = _states(*runs, tmp_path / "out")
    assert set(one) == set(result)
    for name, tensor in result.items():
        torch.testing.assert_close(tensor, 0.5 * one[name] + 0.5 * other[name])


@pytest.mark.parametrize(
    ("family", "method", "space", "sections"),
    [
        ("bert", "average", "deltas", {"base": {"pooling": "mean"}, "adapter": POOLED}),
        ("bert", "concatenated", "ranks", {"adapter": {"method": "rslora"}}),
        ("bert", "average", "deltas", {"adapter": {"head": "output-only"}}),
        ("bert", "average", "deltas", {"adapter": {"initialization": "pissa"}}),
    ],
)
def test_deltas_of_runs_with_other_seeds_are_combined(
    family: str, method: str, space: str, sections: dict[str, Any], request: Any, tmp_path: Path
) -> None:
    base, sets = request.getfixturevalue(family), request.getfixturevalue("sets")
    runs = _two_runs(base, sets, tmp_path, (1, 2), **sections)
    record = combine(runs, out=tmp_path / "out", options=CombineOptions(method=method))
    assert _is_valid(record, space)
    assert record.metrics["test"].rows == 12


def test_a_low_rank_head_adds_its_rank_and_its_dense_layer_must_be_the_same(
    roberta: Path, sets: Path, tmp_path: Path
) -> None:
    runs = _two_runs(roberta, sets, tmp_path / "same", (1, 1), adapter=LOW_RANK)
    options = CombineOptions(method="concatenated")
    record = combine(runs, out=tmp_path / "out", options=options)
    assert _is_valid(record, "ranks")
    assert record.recipe.adapter.model_dump()["head_rank"] == 4
    other = _two_runs(roberta, sets, tmp_path / "other", (2, 2), adapter=LOW_RANK)
    with pytest.raises(RunError, match=r"its frozen classifier\.dense\..* with another seed"):
        combine([runs[0], other[0]], out=tmp_path / "refused")
    assert not (tmp_path / "refused").exists()


@pytest.mark.parametrize(
    ("seeds", "options", "message"),
    [
        ((1, 2), {}, r"the factors cannot be averaged: .* started from different weights; nor can"),
        ((1, 1), {"method": "concatenated"}, r"those of dora are not a product of B and A alone"),
        ((1, 1), {"method": "ties"}, r"--method ties: those of dora are not a product"),
    ],
)
def test_dora_is_combined_by_its_factors_only(
    bert: Path,
    sets: Path,
    tmp_path: Path,
    seeds: tuple[int, int],
    options: dict[str, Any],
    message: str,
) -> None:
    runs = _two_runs(bert, sets, tmp_path, seeds, adapter={"method": "dora"})
    with pytest.raises(RunError, match=message):
        combine(runs, out=tmp_path / "out", options=CombineOptions(**options))


def test_a_run_and_one_that_started_from_it_are_interpolated_by_their_factors(
    bert: Path, sets: Path, tmp_path: Path
) -> None:
    start, end = tmp_path / "start", tmp_path / "end"
    train(tiny_recipe(bert, sets, train={"max_steps": 3}), out=start)
    keys = {"max_steps": 4, "start_from": str(start)}
    recipe = tiny_recipe(bert, sets, train=keys).model_copy(update={"seed": 5})
    train(recipe, out=end)
    options = CombineOptions(method="interpolate", toward=0.75)
    record = combine([start, end], out=tmp_path / "out", options=options)
    assert _is_valid(record, "factors")
    one, other, result = _states(start, end, tmp_path / "out")
    for name, tensor in result.items():
        torch.testing.assert_close(tensor, 0.25 * one[name] + 0.75 * other[name])
