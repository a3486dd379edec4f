"""Saved files of a training: its checkpoints, its best adapter, and weights made after it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from pennyweight.budget.facts import read_artifact_facts
from pennyweight.engine.train import checkpoint
from pennyweight.engine.train.progress import Step, TrainOptions, is_as_good, judge
from pennyweight.errors import NonFiniteLogitsError, NonFiniteLossError, PennyweightError
from pennyweight.files import replace_directory
from pennyweight.model.artifact import save_artifact
from pennyweight.training.active_run import ActiveRun
from pennyweight.training.interpolate import interpolate_weights
from pennyweight.training.stages import Built, Fit, best_of

__all__ = ["StepSaver"]


@dataclass(frozen=True, slots=True)
class StepSaver:
    """Saves the checkpoints of a run and its best adapter.

    Attributes:
        run: the run under way.
        built: its model.
        fit: what its training changes.
    """

    run: ActiveRun
    built: Built
    fit: Fit

    def save_start(self) -> None:
        """Save what training starts from, so that the run never ends below it."""
        settings = self.run.job.settings.fit
        has_start = settings.starts_head or settings.start_from is not None
        if not has_start or len(self.fit.validation) == 0 or self.fit.progress.step > 0:
            return
        evaluation, options = self.fit.evaluate(), settings.options
        judge(self.fit.progress, evaluation, options)
        self._keep()
        start = "head alone" if settings.starts_head else "start"
        self.run.log(f"{start}{_score(evaluation, options)}")

    def save_refit_head(self) -> None:
        """Save a head that was fitted again, if it is as good on validation as the best so far."""
        progress, options = self.fit.progress, self.run.job.settings.fit.options
        evaluation = self.fit.evaluate()
        is_kept = is_as_good(progress, evaluation, options)
        self.run.writer.update(keeps_refit=is_kept)
        if is_kept:
            progress.kept = evaluation.get(options.keep_best)
            progress.best_step = progress.step
            self._keep()
        score = _score(evaluation, options)
        line = f"head fitted again on the trained encoder's embeddings{score}"
        self.run.log(line if is_kept else f"{line}; the best head so far is kept instead")

    def save_interpolated(self) -> None:
        """Interpolate the best weights with those of the start, where the recipe says so."""
        share, start = self.run.job.settings.fit.interpolate, self.fit.start
        artifact = self.run.directory.artifact(self.run.job.plan.method.artifact)
        facts = read_artifact_facts(artifact)
        # A run that was killed after this has been saved is resumed with what has been saved.
        if share is None or start is None or facts is None or facts.interpolated == share:
            return
        checkpoint.load_weights(self.built.model, artifact)
        self.run.job.accelerator.wait_for_everyone()
        interpolate_weights(self.built.model, start, share=share)
        progress, options = self.fit.progress, self.run.job.settings.fit.options
        evaluation, before = self.fit.evaluate(), progress.kept
        progress.kept = evaluation.get(options.keep_best)
        self._keep(interpolated=share)
        line = f"weights: {share:g} of the way from the start to the trained ones"
        trained = "" if before is None else f" ({before:.4f} with the trained ones)"
        self.run.log(f"{line}{_score(evaluation, options)}{trained}")

    def _keep(self, *, interpolated: float = 1.0) -> None:
        if self.run.job.accelerator.is_main_process:
            self._keep_best(interpolated=interpolated)
            self._record_best()

    def take(self, step: Step) -> None:
        """Save where a step ends with an evaluation; it has been recorded before."""
        if step.evaluation is None or not self.run.job.accelerator.is_main_process:
            return
        # The best first: if it were lost, resuming from the checkpoint would find it again.
        if step.is_best:
            self._keep_best()
        # Then the record: a resumed run has the history up to its checkpoint.
        self._record_best()
        self._keep_checkpoint()

    def save_interrupted(self) -> None:
        """Save a checkpoint of the step that an interrupted run ended with, if it can resume."""
        job = self.run.job
        if job.accelerator.is_main_process and job.plan.method.resume_refusal is None:
            self.run.writer.update()
            self._keep_checkpoint()

    def _keep_checkpoint(self) -> None:
        directory = self.run.directory
        replace_directory(
            directory.checkpoint, self._save_checkpoint, previous=directory.previous_checkpoint
        )

    def _keep_best(self, *, interpolated: float = 1.0) -> None:
        artifact = self.run.directory.artifact(self.run.job.plan.method.artifact)

        def save(directory: Path) -> None:
            with self.fit.averaged():
                self._save_weights(
                    directory, tokenizer=self.built.tokenizer, interpolated=interpolated
                )

        replace_directory(artifact, save)

    def _record_best(self) -> None:
        best = best_of(self.fit.progress, self.run.job.settings.fit.options)
        self.run.writer.update(**({} if best is None else {"best": best}))

    def explain(self, error: NonFiniteLossError | NonFiniteLogitsError) -> PennyweightError:
        """Add to the error where the last checkpoint is, and a suggested fix."""
        latest = self.run.directory.checkpoint
        where = (
            f"the last good checkpoint is {latest}" if latest.is_dir() else "there is no checkpoint"
        )
        return type(error)(f"{error}; {where}; try a lower optimizer.learning_rate")

    def _save_checkpoint(self, directory: Path) -> None:
        learner = self.fit.learner
        checkpoint.save_state(
            directory,
            optimizer=learner.optimizer,
            scheduler=learner.scheduler,
            progress=self.fit.progress,
            average=self.fit.average,
            scaler=self.run.job.accelerator.scaler,
        )
        self._save_weights(directory, tokenizer=None)
        checkpoint.write_manifest(directory)

    def _save_weights(
        self, directory: Path, *, tokenizer: object, interpolated: float = 1.0
    ) -> None:
        job = self.run.job
        facts = job.plan.artifact_facts(job.settings.labels, task=job.settings.task)
        save_artifact(
            self.built.model,
            directory,
            replace(facts, interpolated=interpolated),
            fresh_weights=self.built.fresh_weights,
            tokenizer=tokenizer,
        )


def _score(evaluation: Mapping[str, float], options: TrainOptions) -> str:
    """Return the validation metric as the end of a line; empty without validation rows."""
    if not evaluation:
        return ""
    return f": validation {options.keep_best} {evaluation[options.keep_best]:.4f}"
