"""Display and record of each training step."""

from __future__ import annotations

from dataclasses import dataclass

from pennyweight.engine.batches.rows import TokenizedRows
from pennyweight.engine.train.progress import ALL_STEPS_DONE, Step, total_steps
from pennyweight.environment import without_host_name
from pennyweight.training.active_run import ActiveRun
from pennyweight.training.pace import STEPS_BEFORE_PREDICTION, Work, predict_time

__all__ = ["StepLog"]


@dataclass(frozen=True, slots=True)
class StepLog:
    """Shows the steps of a run to its watcher and its trackers, and records them.

    Attributes:
        run: the run under way.
        rows: its training rows.
        work: what the run has to do, from which its duration is predicted.
    """

    run: ActiveRun
    rows: TokenizedRows
    work: Work

    def begin(self, *, done: int) -> None:
        """Open the trackers; record how many steps there will be, and tell the watcher.

        Args:
            done: steps that had been taken before the run was resumed.
        """
        job = self.run.job
        steps = total_steps(len(self.rows), job.settings.fit.options)
        self.run.writer.update(planned_steps=steps)
        if job.settings.fit.trackers:
            if job.accelerator.is_main_process:
                self.run.directory.logs.mkdir(exist_ok=True)
            with without_host_name():
                job.accelerator.init_trackers("pennyweight")
        if job.accelerator.is_main_process:
            job.watcher.on_start(done, steps)

    def take(self, step: Step) -> None:
        """Show and record a step."""
        job = self.run.job
        if job.accelerator.is_main_process:
            job.watcher.on_step(step)
        if step.evaluation is not None or step.step % job.settings.fit.log_every == 0:
            self.run.writer.add_step(step)
            job.accelerator.log(_curves(step), step=step.step)
        if step.step == STEPS_BEFORE_PREDICTION:
            predict_time(self.run, self.work, self.rows, step)
        if step.stop == ALL_STEPS_DONE:
            self.run.log(f"finished after step {step.step}")
        elif step.stop:
            self.run.log(f"stopped after step {step.step}: {step.stop}")


def _curves(step: Step) -> dict[str, float]:
    """Return what trackers draw of a step."""
    curves = {
        "train/loss": step.loss,
        "train/learning_rate": step.learning_rate,
        "train/gradient_norm": step.gradient_norm,
        "train/rows_per_second": step.rows_per_second,
    }
    return curves | {f"validation/{name}": v for name, v in (step.evaluation or {}).items()}
