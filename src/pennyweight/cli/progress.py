"""Training progress: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

from pennyweight.engine.train.progress import Step
from pennyweight.training.watcher import Watcher

__all__ = ["watcher"]


@contextmanager
def watcher(*, every: int) -> Iterator[Watcher]:
    """Yield a watcher that draws a progress bar, or prints a line every few steps.

    Args:
        every: the number of steps between two lines, where the output is not a terminal.
    """
    if sys.stdout.isatty():
        with _bar() as watching:
            yield watching
        return
    total_steps = 0

    def on_start(_first: int, last: int) -> None:
        nonlocal total_steps
        total_steps = last

    def on_step(step: Step) -> None:
        if step.evaluation is not None or step.step % every == 0:
            print(_line(step, total_steps), flush=True)  # noqa: T201

    yield Watcher(log=lambda line: print(line, flush=True), on_start=on_start, on_step=on_step)  # noqa: T201


@contextmanager
def _bar() -> Iterator[Watcher]:
    columns = (
        TextColumn("training"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.description}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns) as progress:
        task = progress.add_task("", total=None, visible=False)

        # Lines may hold labels and texts with square brackets.
        show = partial(progress.console.print, markup=False, emoji=False)

        def on_start(first: int, last: int) -> None:
            progress.update(task, total=last, completed=first, visible=True)

        def on_step(step: Step) -> None:
            description = f"loss {step.loss:.4f}, {step.rows_per_second:.0f} rows/s"
            progress.update(task, completed=step.step, description=description)
            if step.evaluation:
                show(_line(step, int(progress.tasks[0].total or 0)))

        yield Watcher(log=show, on_start=on_start, on_step=on_step)


def _line(step: Step, total_steps: int) -> str:
    seconds_left = (total_steps - step.step) * step.seconds / step.step
    line = (
        f"step {step.step}/{total_steps}  loss {step.loss:.4f}  {step.rows_per_second:.0f} rows/s  "
        f"{seconds_left:.0f} s left"
    )
    if step.evaluation:
        line += f"  validation accuracy {step.evaluation['accuracy']:.2%}"
        line += "  (kept)" if step.is_best else ""
    return line
