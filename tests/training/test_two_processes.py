"""Several processes train as one process does, and end together."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil
import pytest

from pennyweight.engine.train.progress import Step
from pennyweight.engine.train.speed import Speed
from pennyweight.recipe import dump_recipe
from pennyweight.runs.record import load_record
from pennyweight.training import stages
from pennyweight.training.train import train
from pennyweight.training.watcher import Watcher
from tiny import tiny_recipe

# Takes the measured speed from a variable; other processes than the first one are half as fast.
_OTHER_SPEEDS = """
import os
from pennyweight.cli.main import main
from pennyweight.engine.train.speed import Speed
from pennyweight.training import stages
speed = float(os.environ["SPEED"]) / (1 + int(os.environ["RANK"]))
stages.measure_speed = lambda *_, **__: Speed(speed, 1e9)
main()
"""


def _start(
    folder: Path,
    out: str,
    *options: str,
    processes: int = 2,
    program: Sequence[str] = ("-m", "pennyweight"),
    **variables: str,
) -> subprocess.Popen[str]:
    """Start training recipe.toml in several processes."""
    launcher = f"torch.distributed.run --standalone --nproc-per-node {processes}"
    return subprocess.Popen(
        [
            *(sys.executable, "-m", *launcher.split(), *program, "train"),
            *("recipe.toml", "--out", out, *options),
        ],
        cwd=folder,
        env={
            **os.environ,
            "CUDA_VISIBLE_DEVICES": "",
            "OMP_NUM_THREADS": "1",
            "PENNYWEIGHT_CACHE": str(folder / "cache"),
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            **variables,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_a_killed_process_ends_the_training_with_a_line_and_one_process_resumes_it(
    bert: Path, sets: Path, tmp_path: Path
) -> None:
    recipe = tiny_recipe(
        bert,
        sets,
        base={"dropout": 0.0},
        train={"epochs": 50, "evaluate_every": 2},
    )
    (tmp_path / "recipe.toml").write_text(dump_recipe(recipe), encoding="utf-8")
    with _start(tmp_path, "two") as launcher:
        lines = _lines_until_it_fails(
            launcher,
            at="step 5/",
            act=lambda: _other_process(launcher.pid, tmp_path / "two").kill(),
        )
    (message,) = [line for line in lines if line.startswith("pennyweight: ")]
    # Also if the signal by which torchrun stops the processes that are left comes first.
    assert "process 0 cannot go on without another process of this training, which has" in message
    assert "continue with: pennyweight train two --out two --resume" in message
    assert load_record(tmp_path / "two").status == "failed"
    messages: list[str] = []

    def stop(step: Step) -> None:
        if step.step == 8:
            raise KeyboardInterrupt

    for out, resume in (("one", False), ("two", True)):
        watcher = Watcher(log=messages.append, on_step=stop)
        with pytest.raises(KeyboardInterrupt):
            train(recipe, out=tmp_path / out, resume=resume, watcher=watcher)
    assert any(line.startswith("resumed after step ") for line in messages)
    one, two = (load_record(tmp_path / out).history for out in ("one", "two"))
    assert len(one) >= 7
    assert [step.step for step in one] == [step.step for step in two]
    assert [step.loss for step in two] == pytest.approx([step.loss for step in one], abs=1e-4)


def _lines_until_it_fails(
    launcher: subprocess.Popen[str], *, at: str, act: Callable[[], None]
) -> list[str]:
    """Act when a line begins with `at`, wait for the failure, and return all lines."""
    assert launcher.stdout is not None
    lines = []
    for line in launcher.stdout:
        lines.append(line)
        if line.startswith(at):
            act()
    launcher.wait(timeout=240)
    assert launcher.returncode != 0
    return lines


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
    bert: Path, sets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Batches of 9: unequal shares, and 3 rows in the last batch. Of 12 steps, about 9 of 10 days
    # each fit into the limit, and half as many for the slower process.
    recipe = tiny_recipe(
        bert,
        sets,
        base={"dropout": 0.0},
        train={
            "batch_rows": 9,
            "accumulation_steps": 2,
            "epochs": 2,
            "evaluate_every": 3,
            "minutes": 100 * 24 * 60,
        },
    )
    (tmp_path / "recipe.toml").write_text(dump_recipe(recipe), encoding="utf-8")
    (tmp_path / "slower.py").write_text(_OTHER_SPEEDS, encoding="utf-8")
    speed = 1e-4
    monkeypatch.setattr(stages, "measure_speed", lambda *_, **__: Speed(speed, 1e9))
    one = train(recipe, out=tmp_path / "one")
    with _start(tmp_path, "two", program=["slower.py"], SPEED=str(speed)) as launcher:
        output, _ = launcher.communicate(timeout=240)
    assert launcher.returncode == 0, output
    two = load_record(tmp_path / "two")
    assert one.planned_steps == two.planned_steps
    assert one.planned_steps is not None
    assert one.planned_steps < 12

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
    assert two.parameters is not None
    assert one.compute.gradient_bytes is None
    # Trained parameters and their gradients are float32.
    assert two.compute.gradient_bytes == 4 * two.parameters.model
    assert f"they exchange {two.compute.gradient_bytes:,} bytes" in output
    assert two.artifact is not None
    assert set(two.artifact.files) >= {"adapter_model.safetensors", "pennyweight.json"}


@pytest.mark.slow
def test_a_process_that_hangs_is_waited_for_as_long_as_the_variable_says(
    bert: Path, sets: Path, tmp_path: Path
) -> None:
    recipe = tiny_recipe(bert, sets, train={"epochs": 500})
    (tmp_path / "recipe.toml").write_text(dump_recipe(recipe), encoding="utf-8")
    with _start(tmp_path, "run", PENNYWEIGHT_TIMEOUT_SECONDS="20") as launcher:
        lines = _lines_until_it_fails(
            launcher,
            at="step 5/",
            act=lambda: _other_process(launcher.pid, tmp_path / "run").suspend(),
        )
    (message,) = [line for line in lines if line.startswith("pennyweight: ")]
    assert "has not answered for 20 seconds (PENNYWEIGHT_TIMEOUT_SECONDS)" in message
    assert load_record(tmp_path / "run").status == "failed"


@pytest.mark.slow
def test_four_processes_that_are_killed_are_resumed_by_two_with_the_losses_of_one(
    bert: Path, sets: Path, tmp_path: Path
) -> None:
    recipe = tiny_recipe(
        bert,
        sets,
        base={"dropout": 0.0},
        train={"epochs": 9, "max_steps": 50, "evaluate_every": 10},
    )
    (tmp_path / "recipe.toml").write_text(dump_recipe(recipe), encoding="utf-8")
    one = train(recipe, out=tmp_path / "one")
    with _start(tmp_path, "four", processes=4) as launcher:
        _lines_until_it_fails(
            launcher,
            at="step 25/",
            act=lambda: psutil.Process(load_record(tmp_path / "four").process_id).kill(),
        )
    with _start(tmp_path, "four", "--resume") as launcher:
        output, _ = launcher.communicate(timeout=240)
    assert launcher.returncode == 0, output
    assert "resumed after step 20" in output
    four = load_record(tmp_path / "four")
    assert [step.step for step in four.history] == list(range(1, 51))
    assert [step.loss for step in four.history] == pytest.approx(
        [step.loss for step in one.history], abs=1e-4
    )
