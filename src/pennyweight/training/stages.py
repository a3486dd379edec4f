"""The stages between reading rows and the loop: each takes values and returns a new one."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from pennyweight.engine.batches.batcher import Batcher
from pennyweight.engine.batches.prefix import PrefixCache
from pennyweight.engine.batches.prefix import cache_prefix as cache_hidden_states
from pennyweight.engine.batches.rows import TokenizedRows
from pennyweight.engine.batches.truncation import cut_report
from pennyweight.engine.calibration import calibration_for
from pennyweight.engine.device import DTYPES
from pennyweight.engine.features import Features, output_layer_of
from pennyweight.engine.kernels.prepare import prepare_model
from pennyweight.engine.predictor import Predictor, TorchBackend
from pennyweight.engine.train import checkpoint
from pennyweight.engine.train.average import MovingAverage
from pennyweight.engine.train.balance import class_weights, log_shares, positive_weights
from pennyweight.engine.train.eva import begin_with_eva
from pennyweight.engine.train.loop import Learner, TrainContext
from pennyweight.engine.train.objective import ClassBalance, Objective
from pennyweight.engine.train.optimizer import make_optimizer, make_scheduler
from pennyweight.engine.train.progress import Progress, TrainOptions, total_steps
from pennyweight.engine.train.speed import Speed, measure_speed
from pennyweight.environment import cache_directory
from pennyweight.errors import RunError
from pennyweight.evaluation.metrics import measure
from pennyweight.evaluation.thresholds import fit_thresholds, sigmoid
from pennyweight.model.build import BaseOptions, build_model, load_tokenizer
from pennyweight.model.quantize import frozen_bytes
from pennyweight.runs.record import Best
from pennyweight.training.active_run import ActiveRun, tokenized
from pennyweight.training.interpolate import copy_trained_weights
from pennyweight.training.job import Job
from pennyweight.training.processes import gradient_bytes
from pennyweight.training.rows import PreparedRows
from pennyweight.training.teacher import teach
from pennyweight.wording import byte_size

__all__ = [
    "Built",
    "Fit",
    "best_of",
    "build",
    "cache_prefix",
    "initialize_adapters",
    "make_fit",
    "make_objective",
    "make_predictor",
    "measure_run",
    "measure_selection",
    "record_memory",
    "resume_fit",
    "tokenize_training_rows",
]


@dataclass(frozen=True, slots=True)
class Built:
    """The base with untrained adapters, ready to run.

    Attributes:
        model: PEFT's model on its device, made fast in place.
        batcher: turns rows into its inputs.
        tokenizer: of the base.
        fresh_weights: frozen weights that neither the base's checkpoint nor the adapter holds.
        options: how the base was loaded.
    """

    model: Any
    batcher: Batcher
    tokenizer: Any
    fresh_weights: Mapping[str, torch.Tensor]
    options: BaseOptions


@dataclass(frozen=True, slots=True)
class Fit:
    """Everything that a training changes, and how it is measured on the way.

    Attributes:
        learner: the model with its optimizer, schedule and objective.
        average: moving average of the trained weights, which is evaluated and saved; or None.
        start: the weights before training, where the trained ones are interpolated with them.
        progress: how far the training has come.
        predictor: of the model as it is.
        validation: rows to measure on.
        names: of the classes.
        calibration_bins: of the calibration error.
    """

    learner: Learner
    average: MovingAverage | None
    start: Mapping[str, torch.Tensor] | None
    progress: Progress
    predictor: Predictor
    validation: TokenizedRows
    names: tuple[str, ...]
    calibration_bins: int

    def averaged(self) -> AbstractContextManager[None]:
        """Put the moving average in the place of the weights, where one is kept."""
        return nullcontext() if self.average is None else self.average.in_place()

    def evaluate(self) -> Mapping[str, float]:
        """Return the metrics on validation of what would be saved now; none without such rows.

        In a multi-label task, F1 and accuracy are at thresholds fitted on these rows, so they are
        somewhat too high; `mean_average_precision` and `nll` need no thresholds.
        """
        if len(self.validation) == 0:
            return {}
        name = f"step {self.progress.step}, validation"
        with self.averaged():
            logits = self.predictor.rows(self.validation, name=name).logits
        return measure_selection(
            logits, self.validation.labels, names=self.names, bins=self.calibration_bins
        )


def measure_selection(
    logits: np.ndarray, labels: np.ndarray, *, names: tuple[str, ...], bins: int
) -> Mapping[str, float]:
    """Return the metrics on validation rows that weights are selected by.

    Args:
        logits: float `[rows, classes]`.
        labels: int `[rows]`, or `[rows, classes]` of 0 and 1, for which thresholds are fitted.
        names: of the classes.
        bins: of the calibration error.
    """
    thresholds = None
    if labels.ndim == 2:
        thresholds = fit_thresholds(sigmoid(logits), labels)
    metrics = measure(logits, labels, names=names, bins=bins, thresholds=thresholds, resamples=0)
    return metrics.scalars()


def build(job: Job) -> Built:
    """Load the tokenizer and the base, put the planned adapters on it, and make it fast.

    Raises:
        BaseModelError: the tokenizer or the weights cannot be read.
    """
    settings = job.settings
    tokenizer = load_tokenizer(job.base, tokenizer=settings.base.tokenizer)
    options = BaseOptions(
        seed=settings.seed,
        weights=settings.base.weights,
        attention=job.compute.attention,
        quantization=settings.base.quantization,
        dtype=DTYPES[job.compute.precision],
    )
    model, fresh_weights = build_model(job.base, job.plan, options)
    model.to(job.compute.device)
    batcher = prepare_model(
        model,
        job.compute,
        max_tokens=settings.inference.batch_tokens,
        compiled=job.compiled,
        calibration=calibration_for(job.compute, tokenizer),
    )
    return Built(model, batcher, tokenizer, fresh_weights, options)


def record_memory(run: ActiveRun, built: Built) -> None:
    """Record how many bytes the frozen weights take, and how many processes exchange in a step."""
    size, quantization = frozen_bytes(built.model), built.options.quantization
    compute = run.record.compute
    assert compute is not None  # noqa: S101 - recorded when the run was opened
    exchanged = gradient_bytes(built.model) if compute.processes > 1 else None
    changes = {"frozen_bytes": size, "gradient_bytes": exchanged}
    run.writer.update(compute=compute.model_copy(update=changes))
    if quantization != "none":
        run.log(f"base: matrices in {quantization}; the frozen weights take {byte_size(size)}")
    if exchanged is not None:
        run.log(
            f"{compute.processes} processes: in each step, they exchange {exchanged:,} bytes, the "
            f"gradients of {run.job.plan.trainable_parameters:,} parameters"
        )


def tokenize_training_rows(run: ActiveRun, built: Built, prepared: PreparedRows) -> TokenizedRows:
    """Return the training rows as tokens, with what the recipe's teachers answer for them."""
    job = run.job
    rows = replace(
        tokenized(run, prepared.table, prepared.fingerprint, tokenizer=built.tokenizer),
        weights=prepared.weights,
        smoothing=prepared.smoothing,
        soft_labels=prepared.soft_labels,
    )
    if cut := cut_report(rows, max_tokens=job.settings.inference.max_tokens).describe("training"):
        run.log(cut)
    if job.settings.distillation is None:
        return rows
    width = output_layer_of(built.model, job.plan.output_layer).in_features
    with job.accelerator.main_process_first():
        outputs = teach(
            prepared.table, prepared.fingerprint, job.settings, width=width, log=run.log
        )
    return replace(rows, teacher=outputs)


def initialize_adapters(run: ActiveRun, built: Built, rows: TokenizedRows) -> None:
    """Initialize the adapters from the training rows, where the recipe asks for that (EVA)."""
    job = run.job
    if job.plan.initialization != "eva":
        return
    run.log("adapters are initialized with EVA, from the training rows")
    begin_with_eva(
        built.model,
        rows,
        built.batcher,
        batch_rows=job.settings.fit.options.batch_rows,
        seed=job.settings.seed,
    )


def cache_prefix(
    run: ActiveRun, built: Built, rows: TokenizedRows, *, layers: int | None = None
) -> TokenizedRows:
    """Return the rows with the cached outputs of the lowest layers, where the recipe wants that.

    Args:
        run: the run under way.
        built: its model.
        rows: to which the hidden states are added.
        layers: how many of the lowest layers; None for all below the lowest adapter.
    """
    where = run.job.settings.fit.prefix_cache
    if where == "off" or len(rows) == 0:
        return rows
    cache = PrefixCache(where, cache_directory() / "states", run.log)
    # One process writes the file; the others find it.
    with run.job.accelerator.main_process_first():
        return cache_hidden_states(
            built.model, rows, batcher=built.batcher, cache=cache, layers=layers
        )


def measure_run(
    run: ActiveRun, built: Built, model: Any, objective: Objective, rows: TokenizedRows
) -> Speed:
    """Return how fast a run's training steps and evaluations are; no weight is changed.

    Args:
        run: the run under way.
        built: its model.
        model: the same model, wrapped for the processes that train it.
        objective: the loss.
        rows: its training rows.
    """
    job, settings = run.job, run.job.settings.fit
    return measure_speed(
        model,
        make_optimizer(built.model, settings.optimizer),
        objective,
        rows,
        context=TrainContext(built.batcher, settings.options, job.accelerator),
        predict=make_predictor(job, built).rows,
    )


def make_fit(
    run: ActiveRun,
    built: Built,
    objective: Objective,
    rows: TokenizedRows,
    validation: TokenizedRows,
) -> Fit:
    """Make the optimizer and schedule for some training rows, and add the method's penalties."""
    job = run.job
    settings = job.settings.fit
    steps = total_steps(len(rows), settings.options)
    optimizer = make_optimizer(built.model, settings.optimizer)
    warmup = settings.optimizer.schedule.warmup_steps or 0
    if warmup >= steps > 1:
        job.log(
            f"warning: optimizer.schedule.warmup_steps: {warmup} of {steps} steps in all, so the "
            "learning rate does not reach its peak; set fewer, or warmup_ratio instead"
        )
    scheduler = make_scheduler(optimizer, settings.optimizer.schedule, total_steps=steps)
    penalties = job.plan.method.begin_training(built.model, optimizer, steps)
    average = None
    if settings.average is not None:
        average = MovingAverage(built.model, optimizer, decay=settings.average)
    return Fit(
        Learner(built.model, optimizer, scheduler, replace(objective, penalties=penalties)),
        average,
        None if settings.interpolate is None else copy_trained_weights(built.model),
        Progress(),
        make_predictor(job, built),
        validation,
        job.settings.labels,
        job.settings.inference.calibration_bins,
    )


def make_predictor(job: Job, built: Built) -> Predictor:
    """Return a predictor of the model as it is, for tokenized rows."""
    backend = TorchBackend(
        built.model,
        built.batcher,
        job.compute,
        batch_rows=job.settings.inference.batch_rows,
        output_layer=job.plan.output_layer,
        accelerator=job.accelerator,
    )
    return Predictor(backend)


def make_objective(run: ActiveRun, built: Built, labels: np.ndarray) -> Objective:
    """Make the loss for training rows with these labels; it may watch the model from then on."""
    options = run.job.settings.fit.objective
    features = None
    if options.mixup > 0.0 or options.hidden > 0.0 or options.contrastive > 0.0:
        features = Features(built.model, run.job.plan.output_layer)
    return Objective(options, features, balance=_balance(run.job, labels))


def _balance(job: Job, labels: np.ndarray) -> ClassBalance:
    """Return the weights and offsets of the classes, from the labels of the training rows."""
    options, classes = job.settings.fit.objective, len(job.settings.labels)
    weights = offsets = None
    if options.balance:
        is_multi_label = labels.ndim == 2
        values = (
            positive_weights(labels) if is_multi_label else class_weights(labels, classes=classes)
        )
        weights = torch.from_numpy(values).to(job.compute.device)
    if options.logit_adjustment > 0.0:
        shares = options.logit_adjustment * log_shares(labels, classes=classes)
        offsets = torch.from_numpy(shares).to(job.compute.device)
    return ClassBalance(weights, offsets)


def best_of(progress: Progress, options: TrainOptions) -> Best | None:
    """Return the evaluation that was kept, for the record; None if there was none."""
    if progress.kept is None:
        return None
    return Best(step=progress.best_step, metric=options.keep_best, value=progress.kept)


def resume_fit(run: ActiveRun, built: Built, fit: Fit) -> Fit:
    """Return the fit as the last checkpoint left it, and drop later steps from the history.

    Raises:
        RunError: the checkpoint cannot be read, or the method cannot be resumed.
    """
    if run.job.opening.previous is None:
        return fit
    latest = run.directory.checkpoint
    if not latest.is_dir():
        run.log("no checkpoint was written before the interruption: training begins again")
        run.writer.forget_after(0)
        run.writer.update(best=None)
        return fit
    if refusal := run.job.plan.method.resume_refusal:
        # Refused earlier, unless a crash had left the checkpoint half-renamed.
        raise RunError(f"{run.directory.path}: {refusal}")
    checkpoint.load_weights(built.model, latest)
    progress = checkpoint.load_state(
        latest,
        optimizer=fit.learner.optimizer,
        scheduler=fit.learner.scheduler,
        average=fit.average,
        scaler=run.job.accelerator.scaler,
    )
    run.writer.forget_after(progress.step)
    # A run that was killed between checkpoint and record has recorded an earlier one.
    run.writer.update(best=best_of(progress, run.job.settings.fit.options))
    run.log(f"resumed after step {progress.step}")
    return replace(fit, progress=progress)
