"""One training under way: its directory, its record, and its stages in order."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from pennyweight.base import BaseModel
from pennyweight.budget import Plan
from pennyweight.budget.prove import prove_artifact
from pennyweight.data.splits import Splits
from pennyweight.engine import checkpoint
from pennyweight.engine.adalora import allocate_ranks, is_adalora, orthogonality
from pennyweight.engine.average import MovingAverage
from pennyweight.engine.batch import Tokens
from pennyweight.engine.compiled import choose_compile
from pennyweight.engine.device import DTYPES, Compute
from pennyweight.engine.eva import begin_with_eva
from pennyweight.engine.feed import make_ready
from pennyweight.engine.loop import Progress, Step, total_steps
from pennyweight.engine.prefix import with_states
from pennyweight.environment import cache_directory, peak_memory_bytes
from pennyweight.errors import NonFiniteLossError, PennyweightError, RunError
from pennyweight.model import build_model, load_tokenizer, save_adapter
from pennyweight.model.quantize import frozen_bytes
from pennyweight.recipe import Recipe, dump_recipe
from pennyweight.recipe.adapters import LoraAdapter
from pennyweight.runs.classifier import load_ready
from pennyweight.runs.finishing import Final, measure_finally
from pennyweight.runs.lab import Prepared, prepare_rows
from pennyweight.runs.measuring import Measuring
from pennyweight.runs.reading import describe_splits, read_splits, tokens_of
from pennyweight.runs.record import (
    RunRecord,
    artifact_of,
    load_record,
    save_record,
    write_atomically,
)
from pennyweight.runs.setup import (
    Watcher,
    curves_of,
    first_record,
    make_objective,
    make_optimizer,
    settings_of,
)

__all__ = ["Run"]

_SECONDS_BETWEEN_SAVES = 2.0


class Run:
    """What the stages of one training share.

    The stages, in order: `begin`, `read`, `build`, `tokens`, `prepare`, then `take` for every
    step, and `finish`; all inside `recorded`.
    """

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
        self.compute = replace(compute, device=str(accelerator.device))
        self.accelerator = accelerator
        self.watcher = watcher
        self.progress = Progress()
        self.began = time.perf_counter()
        self.record = first_record(
            recipe, base, planned, compute, processes=accelerator.num_processes
        )

    @contextmanager
    def recorded(self) -> Iterator[None]:
        """Whatever stops what is done inside is recorded."""
        try:
            yield
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

    def begin(self, *, resume: bool = False) -> None:
        """Write down what is known before anything is read."""
        self.say(f"device: {self.compute.why}")
        if self.accelerator.is_main_process:
            if resume:
                previous = load_record(self.out)
                self.record = self.record.with_changes(
                    history=previous.history, started=previous.started, best=previous.best
                )
            write_atomically(self.out / "recipe.toml", dump_recipe(self.recipe))
        self._save()

    def read(self) -> Splits:
        """The rows, cleaned, split and checked for leaks."""
        # Only one process writes the tables; the others find them finished.
        with self.accelerator.main_process_first():
            splits = read_splits(self.recipe, bad_rows=self.out / "bad_rows", say=self.say)
        self.note_splits(splits)
        return splits

    def note_splits(self, splits: Splits) -> None:
        """Record and tell what was read."""
        self._save(
            data={
                "sets": {name: dict(facts) for name, facts in splits.facts.items()},
                "overlaps": [overlap.to_json() for overlap in splits.overlaps],
                "removed_from_train": splits.removed,
            },
            leaks=list(splits.leaks),
        )
        for line in describe_splits(splits):
            self.say(line)

    def training_rows(self, splits: Splits) -> Prepared:
        """What the recipe makes of the split's training rows."""
        with self.accelerator.main_process_first():
            prepared = prepare_rows(self.recipe, splits, out=self.out, say=self.say)
        self.note_rows(prepared)
        return prepared

    def note_rows(self, prepared: Prepared) -> None:
        """Record and tell what was made of the training rows."""
        self._class_shares = prepared.class_shares(len(self.recipe.data.labels))
        facts = {"lab": {"rows": len(prepared.rows), "steps": prepared.facts}}
        self._save(data=self.record.data | facts, transductive=prepared.transductive)
        for use in prepared.transductive:
            self.say(f"TRANSDUCTIVE: {use}")

    def build(self) -> None:
        """The base with untrained adapters, ready to run, and the tokenizer."""
        if self.recipe.base.weights == "random":
            self.say("base: random weights, as the recipe says; it knows nothing of language")
        held = self.recipe.base.quantization
        self.model, self._fresh = build_model(
            self.base,
            self.plan,
            weights=self.recipe.base.weights,
            attention=self.compute.attention,
            seed=self.recipe.seed,
            quantization=held,
            dtype=DTYPES[self.compute.precision],
            loftq=getattr(self.recipe.adapter, "initialization", None) == "loftq",
        )
        self.model.to(self.compute.device)
        self._tokenizer = load_tokenizer(self.base, tokenizer=self.recipe.base.tokenizer)
        compiled, why = choose_compile(
            self.recipe.train.compile, device=self.compute.device.partition(":")[0]
        )
        if why:
            self.say(why)
        self.feed = make_ready(
            self.model,
            self.compute,
            most_tokens=self.recipe.train.batch_tokens,
            compiled=compiled,
        )
        frozen = frozen_bytes(self.model)
        self._save(compute={**self.record.compute, "compiled": compiled, "frozen_bytes": frozen})
        if held != "none":
            self.say(f"base: matrices in {held}; its frozen weights take {frozen / 1e6:.1f} MB")
        self.say(
            f"plan: {self.plan.trainable_parameters:,} trainable parameters "
            f"of {self.plan.budget:,} allowed, on {self.base.name}"
        )
        if not self.plan.within_budget:
            self.say("over budget, as full fine-tuning is: a teacher or a baseline, no submission")

    def tokens(self, rows: Any) -> Tokens:
        """Rows as tokens."""
        with self.accelerator.main_process_first():
            return tokens_of(rows, self._tokenizer, max_tokens=self.recipe.data.max_tokens)

    def cached(self, tokens: Tokens, *, layers: int | None = None) -> Tokens:
        """The rows with what the lowest layers make of them, where the recipe wants it kept."""
        where = self.recipe.train.prefix_cache
        if where == "off":
            return tokens
        # One process writes the file; the others find it.
        with self.accelerator.main_process_first():
            return with_states(
                self.model,
                tokens,
                feed=self.feed,
                where=where,
                cache=cache_directory() / "states",
                say=self.say,
                layers=layers,
            )

    def prepare(self, rows: int, validation: Tokens, *, resume: bool = False) -> None:
        """Optimizer, schedule and, resuming, what the last checkpoint holds.

        Args:
            rows: of the training set.
            validation: the rows on which `evaluate` measures.
            resume: whether to go on from the last checkpoint, where there is one.
        """
        self._validation = validation
        last = total_steps(rows, settings_of(self.recipe))
        self.optimizer, self.scheduler = make_optimizer(self.recipe, self.model, last)
        penalties = []
        if is_adalora(self.model):
            allocate_ranks(self.model, self.optimizer, steps=last)
            penalties.append(orthogonality(self.model))
        self.objective = make_objective(self.recipe, self.model, self.plan, penalties)
        self._average = None
        if (decay := self.recipe.train.average) != "off":
            self._average = MovingAverage(self.model, self.optimizer, decay=decay)
        if resume and self._latest.is_dir():
            if is_adalora(self.model):
                raise RunError(
                    f"{self.out}: AdaLoRA's importances of ranks are in no checkpoint, so the run "
                    "cannot be resumed; train it again into a new directory"
                )
            checkpoint.load_weights(self.model, self._latest)
            self.progress = checkpoint.load_state(
                self._latest,
                optimizer=self.optimizer,
                scheduler=self.scheduler,
                average=self._average,
            )
            kept = [entry for entry in self.record.history if entry["step"] <= self.progress.step]
            self.record = self.record.with_changes(history=kept)
            self.say(f"resumed after step {self.progress.step}")
        if self.recipe.train.trackers:
            if self.accelerator.is_main_process:
                (self.out / "logs").mkdir(exist_ok=True)
            self.accelerator.init_trackers("pennyweight")
        self.watcher.on_start(self.progress.step, last)

    def begin_adapters(self, tokens: Tokens) -> None:
        """What the adapters' initialization takes from the training rows."""
        adapter = self.recipe.adapter
        if isinstance(adapter, LoraAdapter) and adapter.initialization == "eva":
            self.say("adapters begin with EVA, from the training rows")
            begin_with_eva(
                self.model,
                tokens,
                self.feed,
                batch_rows=self.recipe.train.batch_rows,
                seed=self.recipe.seed,
            )

    def evaluate(self) -> dict[str, float]:
        """Metrics of the model as it is, on validation."""
        where = f"step {self.progress.step}, validation"
        with self._as_kept():
            measuring = Measuring(
                self.model, self.feed, self.compute, self.accelerator, self.recipe
            )
            return dict(measuring.metrics(self._validation, where=where).scalars())

    def take(self, step: Step) -> None:
        """Show and record a step, and save where it ends with an evaluation."""
        self._note(step)
        if step.evaluation is None or not self.accelerator.is_main_process:
            return
        # The best first: were it to be lost, the steps since the last would bring it back.
        if step.is_best:
            checkpoint.replace_directory(self.artifact, self._save_best)
        checkpoint.replace_directory(self._latest, self._save_last)
        best = {"step": self.progress.best_step, self.recipe.train.keep_best: self.progress.best}
        self._save(best=best)

    def explain(self, error: NonFiniteLossError) -> NonFiniteLossError:
        """The same error with the way on."""
        saved = self._latest.is_dir()
        where = f"the last good checkpoint is {self._latest}" if saved else "no checkpoint yet"
        return NonFiniteLossError(f"{error}; {where}; try a lower optimizer.learning_rate")

    def finish(self, splits: Splits) -> RunRecord:
        """Prove the count, measure what was saved, and close the record."""
        # Every process proves, so that all of them return the whole record, or stop together.
        self._prove()
        self._measure_saved(splits)
        self._save(status="complete")
        return self.record

    def say(self, line: str) -> None:
        """Tell the watcher, once for all processes."""
        if self.accelerator.is_main_process:
            self.watcher.say(line)

    @property
    def artifact(self) -> Path:
        """Where the best so far is kept."""
        return artifact_of(self.out, method=self.recipe.adapter.method)

    @property
    def _latest(self) -> Path:
        return self.out / "checkpoints" / "last"

    def _save(self, **changes: Any) -> None:
        self.record = self.record.with_changes(
            seconds=time.perf_counter() - self.began,
            peak_memory_bytes=max(self.record.peak_memory_bytes, peak_memory_bytes()),
            **changes,
        )
        if self.accelerator.is_main_process:
            save_record(self.out, self.record)

    def _as_kept(self) -> AbstractContextManager[None]:
        """The model as it is evaluated and saved: its average, where one is kept."""
        return nullcontext() if self._average is None else self._average.in_place()

    def _save_best(self, directory: Path) -> None:
        with self._as_kept():
            save_adapter(
                self.model,
                directory,
                labels=self.recipe.data.labels,
                fresh_weights=self._fresh,
                tokenizer=self._tokenizer,
            )

    def _save_last(self, directory: Path) -> None:
        checkpoint.save_state(
            directory,
            optimizer=self.optimizer,
            scheduler=self.scheduler,
            progress=self.progress,
            average=self._average,
        )
        labels = self.recipe.data.labels
        save_adapter(self.model, directory, labels=labels, fresh_weights=self._fresh)

    def _note(self, step: Step) -> None:
        """Show a step, and record it where it is one to be recorded."""
        if self.accelerator.is_main_process:
            self.watcher.on_step(step)
        if step.evaluation is None and step.step % self.recipe.train.log_every:
            return
        entry = {key: value for key, value in asdict(step).items() if value is not None}
        self.record.history.append(entry)
        self.accelerator.log(curves_of(step), step=step.step)
        # Those who watch the record see the curves grow.
        if time.perf_counter() - self.began - self.record.seconds > _SECONDS_BETWEEN_SAVES:
            self._save()
        if step.stop:
            self.say(f"stopped after step {step.step}: {step.stop}")

    def _prove(self) -> None:
        counts = prove_artifact(self.model, self.plan, self.artifact)
        self._save(parameters=counts)
        in_file, in_model = counts["file"], counts["model"]
        how = "as planned" if in_file == in_model else f"of the {in_model:,} that were trained"
        self.say(f"proved: {self.artifact.name} holds {in_file:,} parameters, {how}")

    def _measure_saved(self, splits: Splits) -> None:
        """The only place where labels of the test are read: once, after everything is chosen.

        What is measured is the saved adapter, loaded as `pennyweight evaluate` loads it.
        """
        compute = self.compute.for_inference()
        model, feed = load_ready(self.recipe, self.base, self.artifact, compute=compute)
        measuring = Measuring(model, feed, compute, self.accelerator, self.recipe)
        final = Final(
            sets={n: self.tokens(rows) for n, rows in splits.labelled.items()},
            target=self.tokens(splits.target) if splits.target is not None else None,
            class_shares=self._class_shares,
            texts={n: t["text"] for n, t in splits.labelled.items()},
        )
        found = measure_finally(
            measuring, final, recipe=self.recipe, artifact=self.artifact, say=self.say
        )
        self._save(**found)
