"""Progress on the terminal; plain lines where it is none."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

from pennyweight.engine.loop import Step
from pennyweight.runs.setup import Watcher

__all__ = ["watcher"]


@contextmanager
def watcher(*, every: int) -> Iterator[Watcher]:
    """A watcher that draws a bar on a terminal, and elsewhere prints a line every few steps."""
    if sys.stdout.isatty():
        with _bar() as made:
            yield made
        return
    total = [0]

    def on_start(_first: int, last: int) -> None:
        total[0] = last

    def on_step(step: Step) -> None:
        if step.evaluation is not None or step.step % every == 0:
            print(_line(step, total[0]), flush=True)  # noqa: T201

    yield Watcher(say=lambda line: print(line, flush=True), on_start=on_start, on_step=on_step)  # noqa: T201


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

        def on_step(step: Step) -> None:
            description = f"loss {step.loss:.4f}, {step.rows_per_second:.0f} rows/s"
            progress.update(task, completed=step.step, description=description)
            if step.evaluation is not None:
                progress.console.print(_line(step, int(progress.tasks[0].total or 0)))

        yield Watcher(
            say=progress.console.print,
            on_start=lambda first, last: progress.update(
                task, total=last, completed=first, visible=True
            ),
            on_step=on_step,
        )


def _line(step: Step, total: int) -> str:
    left = (total - step.step) * step.seconds / step.step
    line = (
        f"step {step.step}/{total}  loss {step.loss:.4f}  {step.rows_per_second:.0f} rows/s  "
        f"{left:.0f} s left"
    )
    if step.evaluation is not None:
        line += f"  validation accuracy {step.evaluation['accuracy']:.2%}"
        line += "  (best so far)" if step.is_best else ""
    return line
