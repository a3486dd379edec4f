"""Two processes train as one process does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pennyweight.recipe import dump_recipe
from pennyweight.runs.record import load_record
from pennyweight.training.train import train
from tiny import tiny_recipe


def test_two_processes_give_the_losses_and_metrics_of_one(
    bert: Path, sets: Path, tmp_path: Path
) -> None:
    # Batches of 9: unequal shares, and 3 rows in the last batch.
    recipe = tiny_recipe(
        bert,
        sets,
        base={"dropout": 0.0},
        train={"batch_rows": 9, "accumulation_steps": 2, "evaluate_every": 3},
    )
    (tmp_path / "recipe.toml").write_text(dump_recipe(recipe), encoding="utf-8")
    one = train(recipe, out=tmp_path / "one")
    launcher = "torch.distributed.run --standalone --nproc-per-node 2"
    done = subprocess.run(
        [
            *(sys.executable, "-m", *launcher.split(), "-m", "pennyweight", "train"),
            *("recipe.toml", "--out", "two"),
        ],
        cwd=tmp_path,
        env={
            **os.environ,
            "CUDA_VISIBLE_DEVICES": "",
            "OMP_NUM_THREADS": "1",
            "PENNYWEIGHT_CACHE": str(tmp_path / "cache"),
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        },
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    two = load_record(tmp_path / "two")

    assert one.compute is not None
    assert two.compute is not None
    assert (one.compute.processes, two.compute.processes) == (1, 2)
    assert [step.step for step in two.history] == [step.step for step in one.history]
    for first, second in zip(one.history, two.history, strict=True):
        assert second.loss == pytest.approx(first.loss, abs=1e-4)
        assert second.gradient_norm == pytest.approx(first.gradient_norm, rel=1e-3)
    for name in ("validation", "test"):
        assert two.metrics[name].nll == pytest.approx(one.metrics[name].nll, abs=1e-4)
    assert two.parameters == one.parameters
    assert two.artifact is not None
    assert set(two.artifact.files) >= {"adapter_model.safetensors", "pennyweight.json"}
