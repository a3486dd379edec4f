"""Ctrl-C during training."""

from __future__ import annotations

import signal
import threading
from pathlib import Path

import pytest

from pennyweight.engine.train.progress import Step
from pennyweight.runs.record import load_record
from pennyweight.training.interrupt import deferred_interrupt
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


def test_the_second_press_interrupts_at_once() -> None:
    lines: list[str] = []
    with deferred_interrupt(lines.append) as interrupt:
        signal.raise_signal(signal.SIGINT)
        assert interrupt.requested
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert len(lines) == 1
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_other_threads_train_without_a_handler() -> None:
    seen: list[bool] = []

    def run() -> None:
        with deferred_interrupt(print) as interrupt:
            seen.append(interrupt.requested)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [False]
