"""Two processes train as one process does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from pennyweight.engine.train.progress import Step
from pennyweight.recipe import dump_recipe
from pennyweight.runs.record import load_record
from pennyweight.training.train import train
from pennyweight.training.watcher import Watcher
from tiny import tiny_recipe


def _two_processes(folder: Path) -> subprocess.Popen[str]:
    """Start training recipe.toml into the directory `two` in two processes."""
    launcher = "torch.distributed.run --standalone --nproc-per-node 2"
    return subprocess.Popen(
        [
            *(sys.executable, "-m", *launcher.split(), "-m", "pennyweight", "train"),
            *("recipe.toml", "--out", "two"),
        ],
        cwd=folder,
        env={
            **os.environ,
            "CUDA_VISIBLE_DEVICES": "",
            "OMP_NUM_THREADS": "1",
            "PENNYWEIGHT_CACHE": str(folder / "cache"),
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_a_killed_process_ends_the_training_with_a_line_and_the_run_can_be_resumed(
    bert: Path, sets: Path, tmp_path: Path
) -> None:
    recipe = tiny_recipe(
        bert,
        sets,
        base={"dropout": 0.0},
        train={"epochs": 50, "evaluate_every": 2},
        evaluate={"baselines": []},
    )
    (tmp_path / "recipe.toml").write_text(dump_recipe(recipe), encoding="utf-8")
    lines: list[str] = []
    with _two_processes(tmp_path) as launcher:
        assert launcher.stdout is not None
        for line in launcher.stdout:
            lines.append(line)
            if line.startswith("step 5/"):
                _other_process(launcher.pid, tmp_path / "two").kill()
        launcher.wait(timeout=240)
    assert launcher.returncode != 0
    (told,) = [line for line in lines if line.startswith("pennyweight: ")]
    assert "cannot go on without another process of this training" in told
    record = load_record(tmp_path / "two")
    assert record.status == "failed"
    messages: list[str] = []

    def stop(step: Step) -> None:
        if step.step == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(
            recipe,
            out=tmp_path / "two",
            resume=True,
            watcher=Watcher(log=messages.append, on_step=stop),
        )
    assert any(line.startswith("resumed after step ") for line in messages)


def _other_process(launcher: int, run: Path) -> psutil.Process:
    """Return the process that does not write the run."""
    main = load_record(run).process_id
    trainers = [
        process
        for process in psutil.Process(launcher).children(recursive=True)
        if process.pid != main and "train" in process.cmdline()
    ]
    assert len(trainers) == 1
    return trainers[0]


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
    with _two_processes(tmp_path) as launcher:
        output, _ = launcher.communicate(timeout=240)
    assert launcher.returncode == 0, output
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
