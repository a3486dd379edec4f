"""Ctrl-C during training."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pennyweight.engine.train.progress import Step
from pennyweight.engine.train.step import TrainContext
from pennyweight.errors import TerminatedError
from pennyweight.runs.record import load_record
from pennyweight.signals import deferred_interrupt, ended_processes, terminable
from pennyweight.training.train import train
from pennyweight.training.watcher import Watcher
from tiny import tiny_recipe
from training.outcomes import weights_are_equal


def press_at(step: int, lines: list[str]) -> Watcher:
    """Return a watcher that presses Ctrl-C during a step."""

    def on_step(seen: Step) -> None:
        if seen.step == step:
            signal.raise_signal(signal.SIGINT)

    return Watcher(log=lines.append, on_step=on_step)


def test_a_run_interrupted_before_its_first_evaluation_resumes_to_the_same_weights(
    bert: Path, sets: Path, tmp_path: Path
) -> None:
    recipe = tiny_recipe(bert, sets, train={"epochs": 1})
    lines: list[str] = []
    train(recipe, out=tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(recipe, out=tmp_path / "run", watcher=press_at(2, lines))
    assert load_record(tmp_path / "run").status == "interrupted"
    assert "interrupting after this step; press Ctrl-C again to stop at once" in lines
    assert lines[-1].startswith("interrupted; continue with: pennyweight train ")
    resumed = train(recipe, out=tmp_path / "run", resume=True)
    assert resumed.status == "complete"
    assert weights_are_equal(tmp_path / "whole" / "adapter", tmp_path / "run" / "adapter")


@pytest.mark.parametrize(
    ("pressed_at", "changes"),
    [
        (1, {}),
        # The step after it ends with an evaluation.
        (2, {}),
        # The step after it is the last one, whose weights are kept.
        (5, {"data": {"validation": None, "validation_fraction": 0}}),
    ],
    ids=["between evaluations", "before an evaluation", "before the end"],
)
def test_a_step_that_a_device_has_begun_is_finished_and_recorded_before_the_interruption(
    bert: Path,
    sets: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    pressed_at: int,
    changes: dict[str, Any],
) -> None:
    # As on a GPU, where a step is read once the next one has begun.
    monkeypatch.setattr(TrainContext, "runs_ahead", True)
    recipe = tiny_recipe(bert, sets, **changes, train={"epochs": 1, "evaluate_every": 3})
    whole = train(recipe, out=tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(recipe, out=tmp_path / "run", watcher=press_at(pressed_at, []))
    begun = [step.step for step in load_record(tmp_path / "run").history]
    assert begun == list(range(1, pressed_at + 2))
    resumed = train(recipe, out=tmp_path / "run", resume=True)
    assert _without_times(resumed.history) == _without_times(whole.history)
    assert weights_are_equal(tmp_path / "whole" / "adapter", tmp_path / "run" / "adapter")


def _without_times(steps: Sequence[Step]) -> list[Step]:
    return [replace(step, seconds=0.0, rows_per_second=0.0) for step in steps]


def test_the_second_press_interrupts_at_once() -> None:
    lines: list[str] = []
    with deferred_interrupt(lines.append) as interrupt:
        signal.raise_signal(signal.SIGINT)
        assert interrupt.number == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert len(lines) == 1
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_other_threads_train_without_a_handler() -> None:
    seen: list[int | None] = []

    def run() -> None:
        with terminable(), deferred_interrupt(print) as interrupt:
            seen.append(interrupt.number)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [None]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_signals_end_a_block_as_ctrl_c_does(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with pytest.raises(TerminatedError, match=f"stopped by {number.name}") as caught, terminable():
        signal.raise_signal(number)
    assert caught.value.number == number
    assert isinstance(caught.value, KeyboardInterrupt)
    assert signal.getsignal(number) is before


def test_a_signal_whose_error_a_library_replaced_is_still_known() -> None:
    def library() -> None:
        try:
            signal.raise_signal(signal.SIGTERM)
        except TerminatedError:
            raise KeyboardInterrupt from None

    with pytest.raises(TerminatedError, match="stopped by SIGTERM"), terminable():
        library()


def test_a_process_that_ended_before_the_launcher_sent_its_signal_is_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # As torchrun starts them; the process of the test stands for it and for process 0.
    monkeypatch.setattr(os, "getppid", os.getpid)
    for name, value in (("RANK", "2"), ("LOCAL_RANK", "0"), ("LOCAL_WORLD_SIZE", "3")):
        monkeypatch.setenv(name, value)
    command = [sys.executable, "-c", "input()"]
    processes = [
        subprocess.Popen(command, stdin=subprocess.PIPE, env={**os.environ, "RANK": rank})
        for rank in ("2", "3", "4")
    ]
    try:
        assert ended_processes() == ()
        processes[1].kill()
        processes[1].wait()
        assert ended_processes() == (3,)
        with pytest.raises(TerminatedError) as caught, terminable():
            signal.raise_signal(signal.SIGTERM)
        assert caught.value.ended == (3,)
        processes[0].kill()
        processes[0].wait()
        # Not even this process is found, so the others may be children of another one.
        assert ended_processes() == ()
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def test_a_signal_during_a_step_is_only_marked() -> None:
    lines: list[str] = []
    with terminable(), deferred_interrupt(lines.append) as interrupt:
        signal.raise_signal(signal.SIGTERM)
        assert lines == ["SIGTERM: stopping after this step"]
        with pytest.raises(TerminatedError):
            interrupt.check()
        with pytest.raises(TerminatedError):
            signal.raise_signal(signal.SIGTERM)


def test_an_ignored_signal_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with terminable(), deferred_interrupt(print) as interrupt:
            signal.raise_signal(signal.SIGHUP)
            assert interrupt.number is None
    finally:
        signal.signal(signal.SIGHUP, before)
