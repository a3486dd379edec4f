"""Train a recipe into a run directory: read, plan, build, train, prove, evaluate, record."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import peft
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import gather_object

from pennyweight.base import BaseModel
from pennyweight.budget import Plan
from pennyweight.budget.count import prove, read_adapter, trainable_sizes
from pennyweight.data.ingest import Source
from pennyweight.data.splits import Reading, Splits, fingerprint_of, make_splits
from pennyweight.engine import checkpoint
from pennyweight.engine.batch import Tokens, tokenize
from pennyweight.engine.device import Compute, choose_compute
from pennyweight.engine.loop import Progress, Settings, Step, total_steps
from pennyweight.engine.loop import train as train_steps
from pennyweight.engine.optim import adamw, schedule
from pennyweight.engine.predict import predict_logits
from pennyweight.environment import (
    cache_directory,
    describe_environment,
    git_state,
    peak_memory_bytes,
)
from pennyweight.errors import NonFiniteLossError, PennyweightError, RecipeError, RunError
from pennyweight.evaluation import Metrics, measure
from pennyweight.model import build_model, load_tokenizer, save_adapter
from pennyweight.recipe import Recipe, dump_recipe
from pennyweight.recipe.schema import EarlyStopping, SourceTable
from pennyweight.runs.planning import find_base, plan
from pennyweight.runs.record import RunRecord, load_record, save_record, write_atomically

__all__ = ["Watcher", "source_of", "train"]


@dataclass(frozen=True, slots=True)
class Watcher:
    """What a training tells those who watch; every function may do nothing.

    Attributes:
        say: gets one line about what happens.
        on_start: gets the number of the first step and of the last.
        on_step: gets every step.
    """

    say: Callable[[str], None] = lambda _: None
    on_start: Callable[[int, int], None] = lambda _first, _last: None
    on_step: Callable[[Step], None] = lambda _: None


def source_of(table: SourceTable) -> Source:
    """A recipe's source as the plain value that readers take."""
    return Source(**dict(table))


def train(
    recipe: Recipe,
    *,
    out: str | Path,
    resume: bool = False,
    watcher: Watcher | None = None,
) -> RunRecord:
    """Train a recipe and leave everything about it in the directory `out`.

    Raises:
        PennyweightError: whatever cannot go on, in one line; `record.json` then says "failed" and
            why, once the run has begun.
    """
    watcher = watcher or Watcher()
    out = Path(out)
    if recipe.data.train is None:
        raise RecipeError(
            "data.train: missing; name the labelled training rows, for example "
            "--set data.train=train.csv"
        )
    compute = choose_compute(precision=recipe.train.precision, attention=recipe.base.attention)
    base = find_base(recipe, config_only=False)
    planned = plan(recipe, base=base)
    accelerator = _accelerator(recipe, compute, out)
    if accelerator.is_main_process:
        _prepare(out, recipe, resume=resume)
    accelerator.wait_for_everyone()
    run = _Run(recipe, out, base, planned, compute, accelerator, watcher)
    return run.go(resume=resume)


def _prepare(out: Path, recipe: Recipe, *, resume: bool) -> None:
    """Make sure that nothing is overwritten, and that a resumed run is the same run."""
    is_used = out.exists() and (not out.is_dir() or any(out.iterdir()))
    if not resume:
        if is_used:
            raise RunError(f"--out {out}: not empty; name a new directory, or add --resume")
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"--out {out}: cannot be made: {error.strerror}") from None
        return
    record = load_record(out)
    if record.status == "complete":
        raise RunError(f"{out}: the run is complete already; name a new directory to train again")
    if record.recipe != recipe.model_dump(mode="json", exclude_none=True):
        raise RunError(
            f"{out}: the recipe differs from the one this run was begun with; resume it with "
            f"pennyweight train {out} --out {out} --resume"
        )


def _accelerator(recipe: Recipe, compute: Compute, out: Path) -> Accelerator:
    # Accelerate keeps one state per process; a second training may want another precision.
    AcceleratorState._reset_state(reset_partial_state=True)
    mixed = "no" if compute.precision == "fp32" else compute.precision
    try:
        return Accelerator(
            cpu=compute.device == "cpu",
            mixed_precision=mixed,
            log_with=list(recipe.train.trackers) or None,
            project_dir=str(out / "logs"),
        )
    except (ValueError, ImportError) as error:
        raise RecipeError(f"train.trackers: {str(error).splitlines()[0]}") from None


class _Run:
    """One training under way: holds what its stages share."""

    def __init__(
        self,
        recipe: Recipe,
        out: Path,
        base: BaseModel,
        planned: Plan,
        compute: Compute,
        accelerator: Accelerator,
        watcher: Watcher,
    ) -> None:
        self.recipe = recipe
        self.out = out
        self.base = base
        self.plan = planned
        self.compute = compute
        self.accelerator = accelerator
        self.watcher = watcher
        self.is_main = accelerator.is_main_process
        self.began = time.perf_counter()
        self.record = RunRecord(
            status="running",
            recipe=recipe.model_dump(mode="json", exclude_none=True),
            plan=planned.to_json(recipe=recipe.name, base=base.name),
            compute={**asdict(compute), "processes": accelerator.num_processes},
            base={
                "name": base.name,
                "reference": base.reference,
                "revision": base.revision,
                "origin": base.origin,
            },
            environment=describe_environment(),
            git={
                "working_directory": git_state(Path.cwd()),
                "pennyweight": git_state(Path(__file__).parent),
            },
            started=datetime.now(UTC).isoformat(timespec="seconds"),
        )

    def go(self, *, resume: bool) -> RunRecord:
        """All stages; whatever stops them is recorded."""
        try:
            return self._stages(resume=resume)
        except PennyweightError as error:
            self._save(status="failed", failure=str(error))
            raise
        except KeyboardInterrupt:
            self._save(status="interrupted", failure="interrupted from the keyboard")
            raise
        except BaseException as error:
            self._save(status="failed", failure=f"{type(error).__name__}: {error}")
            raise

    def _stages(self, *, resume: bool) -> RunRecord:
        self.say(f"device: {self.compute.why}")
        if resume and self.is_main:
            previous = load_record(self.out)
            self.record = self.record.with_changes(
                history=previous.history, started=previous.started, best=previous.best
            )
        if self.is_main:
            write_atomically(self.out / "recipe.toml", dump_recipe(self.recipe))
        self._save()
        splits = self._read()
        model, fresh, tokenizer = self._build()
        train, validation = (
            self._tokens(rows, tokenizer) for rows in (splits.train, splits.validation)
        )
        self._fit(model, train, validation, fresh, tokenizer, resume=resume)
        if self.is_main:
            self._prove(model)
        self.accelerator.wait_for_everyone()
        checkpoint.load_weights(model, self.out / "adapter")
        self._evaluate(model, validation, splits, tokenizer)
        self._save(status="complete")
        return self.record

    def say(self, line: str) -> None:
        """Tell the watcher, once for all processes."""
        if self.is_main:
            self.watcher.say(line)

    def _save(self, **changes: Any) -> None:
        self.record = self.record.with_changes(
            seconds=time.perf_counter() - self.began,
            peak_memory_bytes=max(self.record.peak_memory_bytes, peak_memory_bytes()),
            **changes,
        )
        if self.is_main:
            save_record(self.out, self.record)

    def _read(self) -> Splits:
        data, evaluate = self.recipe.data, self.recipe.evaluate
        assert data.train is not None  # noqa: S101 - checked by train()
        held_out = {"test": evaluate.test} if evaluate.test is not None else {}
        held_out |= evaluate.also
        # Only one process writes the tables; the others find them finished.
        with self.accelerator.main_process_first():
            splits = make_splits(
                source_of(data.train),
                validation=source_of(data.validation) if data.validation is not None else None,
                held_out={name: source_of(source) for name, source in held_out.items()},
                reading=Reading(
                    labels=data.labels,
                    clean=data.clean,
                    on_bad_row=data.on_bad_row,
                    cache=cache_directory() / "rows",
                    bad_rows=self.out / "bad_rows",
                ),
                validation_fraction=data.validation_fraction,
                train_rows=data.train_rows,
                overlap=data.overlap,
                similarity=data.near_duplicate_similarity,
                seed=self.recipe.seed,
                say=self.say,
            )
        self._save(
            data={
                "sets": {name: dict(facts) for name, facts in splits.facts.items()},
                "overlaps": [overlap.to_json() for overlap in splits.overlaps],
                "removed_from_train": splits.removed,
            }
        )
        self._say_data(splits)
        return splits

    def _say_data(self, splits: Splits) -> None:
        sizes = ", ".join(f"{name} {facts['rows']:,}" for name, facts in splits.facts.items())
        self.say(f"rows: {sizes}")
        for name, facts in splits.facts.items():
            if facts["bad_rows_file"] and name != "validation":
                self.say(f"{name}: {facts['rows_set_aside']} bad rows in {facts['bad_rows_file']}")
        for found in splits.overlaps:
            if found.exact or found.near:
                self.say(
                    f"{found.one} and {found.other}: {found.exact} exact and "
                    f"{found.near} near duplicates"
                )
        if splits.removed:
            self.say(f"removed from train, because they stand in a held-out set: {splits.removed}")

    def _build(self) -> tuple[peft.PeftModel, dict[str, torch.Tensor], Any]:
        if self.recipe.base.weights == "random":
            self.say("base: random weights, as the recipe says; it knows nothing of language")
        model, fresh = build_model(
            self.base,
            self.plan.peft_config,
            weights=self.recipe.base.weights,
            attention=self.compute.attention,
            seed=self.recipe.seed,
        )
        tokenizer = load_tokenizer(self.base, tokenizer=self.recipe.base.tokenizer)
        self.say(
            f"plan: {self.plan.trainable_parameters:,} trainable parameters "
            f"of {self.plan.budget:,} allowed, on {self.base.name}"
        )
        return model, fresh, tokenizer

    def _tokens(self, rows: Any, tokenizer: Any) -> Tokens:
        with self.accelerator.main_process_first():
            return tokenize(
                rows,
                fingerprint=fingerprint_of(rows),
                tokenizer=tokenizer,
                max_tokens=self.recipe.data.max_tokens,
                cache=cache_directory() / "tokens",
            )

    def _fit(
        self,
        model: peft.PeftModel,
        train: Tokens,
        validation: Tokens,
        fresh: Mapping[str, torch.Tensor],
        tokenizer: Any,
        *,
        resume: bool,
    ) -> None:
        settings = _settings(self.recipe)
        last = total_steps(len(train), settings)
        optimizer, scheduler = _optimizer(self.recipe, model, last)
        progress = Progress()
        checkpoints = self.out / "checkpoints"
        if resume and (checkpoints / "last").is_dir():
            checkpoint.load_weights(model, checkpoints / "last")
            progress = checkpoint.load_state(
                checkpoints / "last", optimizer=optimizer, scheduler=scheduler
            )
            kept = [entry for entry in self.record.history if entry["step"] <= progress.step]
            self.record = self.record.with_changes(history=kept)
            self.say(f"resumed after step {progress.step}")
        prepared, optimizer = self.accelerator.prepare(model, optimizer)
        self._start_trackers()
        self.watcher.on_start(progress.step, last)

        def evaluate() -> Mapping[str, float]:
            where = f"step {progress.step}, validation"
            return self._measure(model, validation, where=where).scalars()

        def save(directory: Path) -> None:
            checkpoint.save_state(
                directory, optimizer=optimizer, scheduler=scheduler, progress=progress
            )
            save_adapter(model, directory, labels=self.recipe.data.labels, fresh_weights=fresh)

        steps = train_steps(
            prepared,
            train,
            optimizer=optimizer,
            scheduler=scheduler,
            accelerator=self.accelerator,
            settings=settings,
            evaluate=evaluate,
            progress=progress,
        )
        try:
            for step in steps:
                self._note(step)
                if step.evaluation is None or not self.is_main:
                    continue
                # The best first: were it to be lost, the steps since the last would bring it back.
                if step.is_best:
                    checkpoint.replace_directory(
                        self.out / "adapter",
                        lambda directory: save_adapter(
                            model,
                            directory,
                            labels=self.recipe.data.labels,
                            fresh_weights=fresh,
                            tokenizer=tokenizer,
                        ),
                    )
                checkpoint.replace_directory(checkpoints / "last", save)
                self._save(
                    best={"step": progress.best_step, self.recipe.train.keep_best: progress.best}
                )
        except NonFiniteLossError as error:
            good = checkpoints / "last"
            where = f"the last good checkpoint is {good}" if good.is_dir() else "no checkpoint yet"
            raise NonFiniteLossError(
                f"{error}; {where}; try a lower optimizer.learning_rate"
            ) from None
        finally:
            self.accelerator.end_training()
        self.accelerator.wait_for_everyone()

    def _start_trackers(self) -> None:
        if self.recipe.train.trackers and self.is_main:
            (self.out / "logs").mkdir(exist_ok=True)
        if self.recipe.train.trackers:
            self.accelerator.init_trackers("pennyweight")

    def _note(self, step: Step) -> None:
        """Show a step, and record it where it is one to be recorded."""
        if self.is_main:
            self.watcher.on_step(step)
        if step.evaluation is None and step.step % self.recipe.train.log_every:
            return
        entry = {key: value for key, value in asdict(step).items() if value is not None}
        self.record.history.append(entry)
        scalars = {
            "train/loss": step.loss,
            "train/learning_rate": step.learning_rate,
            "train/gradient_norm": step.gradient_norm,
            "train/rows_per_second": step.rows_per_second,
        }
        scalars |= {f"validation/{name}": value for name, value in (step.evaluation or {}).items()}
        self.accelerator.log(scalars, step=step.step)
        if step.stop:
            self.say(f"stopped after step {step.step}: {step.stop}")

    def _prove(self, model: peft.PeftModel) -> None:
        in_model = sum(trainable_sizes(model).values())
        in_file = read_adapter(self.out / "adapter").parameters
        counts = {
            "planned": self.plan.trainable_parameters,
            "model": in_model,
            "file": in_file,
            "budget": self.plan.budget,
        }
        prove(**counts)
        self._save(parameters=counts)
        self.say(f"proved: the saved adapter holds {in_file:,} parameters, as planned")

    def _measure(self, model: peft.PeftModel, tokens: Tokens, *, where: str) -> Metrics:
        """Metrics of a set, its rows shared out over the processes."""
        world, rank = self.accelerator.num_processes, self.accelerator.process_index
        mine = np.arange(rank, len(tokens), world)
        part = Tokens(
            tokens.table.select(mine), tokens.lengths[mine], tokens.labels[mine], tokens.padding
        )
        classes = len(self.recipe.data.labels)
        logits = predict_logits(
            model,
            part,
            compute=self.compute,
            batch_rows=self.recipe.train.evaluation_batch_rows,
            classes=classes,
        )
        if world > 1:
            together = np.empty((len(tokens), classes), dtype=np.float32)
            for offset, found in enumerate(gather_object([logits])):
                together[offset::world] = found
            logits = together
        if not np.isfinite(logits).all():
            raise NonFiniteLossError(
                f"{where}: the model's logits are NaN or infinite for "
                f"{int((~np.isfinite(logits)).any(axis=1).sum())} of {len(tokens)} rows"
            )
        return measure(
            logits,
            tokens.labels,
            names=self.recipe.data.labels,
            bins=self.recipe.evaluate.calibration_bins,
        )

    def _evaluate(
        self,
        model: peft.PeftModel,
        validation: Tokens,
        splits: Splits,
        tokenizer: Any,
    ) -> None:
        """The only place where labels of the test are read: once, after everything is chosen."""
        metrics = {"validation": self._measure(model, validation, where="validation").to_json()}
        for name, rows in splits.held_out.items():
            tokens = self._tokens(rows, tokenizer)
            metrics[name] = self._measure(model, tokens, where=name).to_json()
        self._save(metrics=metrics)


def _settings(recipe: Recipe) -> Settings:
    train = recipe.train
    stopping = train.early_stopping if isinstance(train.early_stopping, EarlyStopping) else None
    return Settings(
        epochs=train.epochs,
        max_steps=train.max_steps,
        batch_rows=train.batch_rows,
        accumulation_steps=train.accumulation_steps,
        batch_order=train.batch_order,
        max_gradient_norm=None if train.max_gradient_norm == "off" else train.max_gradient_norm,
        evaluate_every=None if train.evaluate_every == "epoch" else train.evaluate_every,
        keep_best=train.keep_best,
        patience=stopping.patience if stopping else None,
        threshold=stopping.threshold if stopping else 0.0,
        seed=recipe.seed,
    )


def _optimizer(
    recipe: Recipe, model: torch.nn.Module, last: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    chosen = recipe.optimizer
    optimizer = adamw(
        model.parameters(),
        learning_rate=chosen.learning_rate,
        weight_decay=chosen.weight_decay,
        betas=chosen.betas,
        epsilon=chosen.epsilon,
    )
    over_time = chosen.schedule
    scheduler = schedule(
        optimizer,
        method=over_time.method,
        warmup_steps=over_time.warmup_steps,
        warmup_ratio=over_time.warmup_ratio,
        total_steps=last,
    )
    return optimizer, scheduler
