"""Train a recipe into a run directory: read, plan, build, train, prove, evaluate, record."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import peft
import torch
from accelerate import Accelerator

from pennyweight.base import BaseModel
from pennyweight.budget import Plan
from pennyweight.budget.count import prove, read_adapter, trainable_sizes
from pennyweight.data.splits import Reading, Splits, fingerprint_of, make_splits
from pennyweight.engine import checkpoint
from pennyweight.engine.batch import Tokens, tokenize
from pennyweight.engine.device import Compute, choose_compute
from pennyweight.engine.feed import Feed, make_ready
from pennyweight.engine.loop import Progress, Step, total_steps
from pennyweight.engine.loop import train as train_steps
from pennyweight.engine.prefix import with_states
from pennyweight.environment import cache_directory, peak_memory_bytes
from pennyweight.errors import NonFiniteLossError, PennyweightError, RecipeError
from pennyweight.evaluation import Metrics
from pennyweight.model import build_model, load_tokenizer, save_adapter
from pennyweight.recipe import Recipe, dump_recipe
from pennyweight.runs.classifier import load_ready
from pennyweight.runs.measuring import measure_tokens
from pennyweight.runs.planning import find_base, plan
from pennyweight.runs.record import RunRecord, load_record, save_record, write_atomically
from pennyweight.runs.setup import (
    Watcher,
    describe_splits,
    first_record,
    make_accelerator,
    make_optimizer,
    prepare_directory,
    settings_of,
    source_of,
)

__all__ = ["train"]


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
    base = find_base(recipe, config_only=False)
    compute = choose_compute(
        precision=recipe.train.precision, attention=recipe.base.attention, config=base.config
    )
    planned = plan(recipe, base=base)
    accelerator = make_accelerator(recipe, compute, out)
    if accelerator.is_main_process:
        prepare_directory(out, recipe, resume=resume)
    accelerator.wait_for_everyone()
    run = _Run(recipe, out, base, planned, compute, accelerator, watcher)
    return run.go(resume=resume)


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
        self.record = first_record(
            recipe, base, planned, compute, processes=accelerator.num_processes
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
        finally:
            # Closes the trackers and, of several processes, the group that they talk through.
            self.accelerator.end_training()

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
        self._fit(
            model,
            self._cache_prefix(model, train),
            self._cache_prefix(model, validation),
            fresh,
            tokenizer,
            resume=resume,
        )
        # Every process proves, so that all of them return the whole record, or stop together.
        self._prove(model)
        self._evaluate(validation, splits, tokenizer)
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
        for line in describe_splits(splits):
            self.say(line)
        return splits

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
        self.feed = make_ready(
            model, self._compute_here(), most_tokens=self.recipe.train.batch_tokens
        )
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

    def _cache_prefix(self, model: peft.PeftModel, tokens: Tokens) -> Tokens:
        """The rows with what the lowest layers make of them, where the recipe wants it kept."""
        where = self.recipe.train.prefix_cache
        if where == "off":
            return tokens
        # One process writes the file; the others find it.
        with self.accelerator.main_process_first():
            return with_states(
                model,
                tokens,
                feed=self.feed,
                where=where,
                cache=cache_directory() / "states",
                say=self.say,
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
        settings = settings_of(self.recipe)
        last = total_steps(len(train), settings)
        optimizer, scheduler = make_optimizer(self.recipe, model, last)
        latest = self.out / "checkpoints" / "last"
        progress = Progress()
        if resume and latest.is_dir():
            checkpoint.load_weights(model, latest)
            progress = checkpoint.load_state(latest, optimizer=optimizer, scheduler=scheduler)
            kept = [entry for entry in self.record.history if entry["step"] <= progress.step]
            self.record = self.record.with_changes(history=kept)
            self.say(f"resumed after step {progress.step}")
        prepared, optimizer = self.accelerator.prepare(model, optimizer)
        feed = self.feed
        self._start_trackers()
        self.watcher.on_start(progress.step, last)

        def evaluate() -> Mapping[str, float]:
            where = f"step {progress.step}, validation"
            return self._measure(model, feed, validation, where=where).scalars()

        def save_best(directory: Path) -> None:
            labels = self.recipe.data.labels
            save_adapter(model, directory, labels=labels, fresh_weights=fresh, tokenizer=tokenizer)

        def save_last(directory: Path) -> None:
            checkpoint.save_state(
                directory, optimizer=optimizer, scheduler=scheduler, progress=progress
            )
            save_adapter(model, directory, labels=self.recipe.data.labels, fresh_weights=fresh)

        steps = train_steps(
            prepared,
            train,
            feed=feed,
            optimizer=optimizer,
            scheduler=scheduler,
            accelerator=self.accelerator,
            settings=settings,
            evaluate=evaluate,
            progress=progress,
        )
        self._follow(steps, progress, save_best=save_best, save_last=save_last)
        self.accelerator.wait_for_everyone()

    def _follow(
        self,
        steps: Iterator[Step],
        progress: Progress,
        *,
        save_best: Callable[[Path], None],
        save_last: Callable[[Path], None],
    ) -> None:
        """Show and record every step, and save at every evaluation."""
        latest = self.out / "checkpoints" / "last"
        try:
            for step in steps:
                self._note(step)
                if step.evaluation is None or not self.is_main:
                    continue
                # The best first: were it to be lost, the steps since the last would bring it back.
                if step.is_best:
                    checkpoint.replace_directory(self.out / "adapter", save_best)
                checkpoint.replace_directory(latest, save_last)
                best = {"step": progress.best_step, self.recipe.train.keep_best: progress.best}
                self._save(best=best)
        except NonFiniteLossError as error:
            saved = latest.is_dir()
            where = f"the last good checkpoint is {latest}" if saved else "no checkpoint yet"
            raise NonFiniteLossError(
                f"{error}; {where}; try a lower optimizer.learning_rate"
            ) from None

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

    def _measure(self, model: Any, feed: Feed, tokens: Tokens, *, where: str) -> Metrics:
        return measure_tokens(
            model,
            tokens,
            feed=feed,
            compute=self._compute_here(),
            accelerator=self.accelerator,
            recipe=self.recipe,
            where=where,
        )

    def _evaluate(self, validation: Tokens, splits: Splits, tokenizer: Any) -> None:
        """The only place where labels of the test are read: once, after everything is chosen.

        What is measured is the saved adapter, loaded as `pennyweight evaluate` loads it.
        """
        model, feed = load_ready(
            self.recipe, self.base, self.out / "adapter", compute=self._compute_here()
        )
        measured = self._measure(model, feed, validation, where="validation")
        metrics = {"validation": measured.to_json()}
        for name, rows in splits.held_out.items():
            tokens = self._tokens(rows, tokenizer)
            metrics[name] = self._measure(model, feed, tokens, where=name).to_json()
        self._save(metrics=metrics)

    def _compute_here(self) -> Compute:
        """The run's compute, on this process's own device."""
        return replace(self.compute, device=str(self.accelerator.device))
