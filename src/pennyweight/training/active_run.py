"""A run under way: its job, its rows, its directory and its record."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import datasets
import torch

from pennyweight.data.splits import Splits, deliver_bad_rows, make_splits
from pennyweight.engine.batches.rows import TokenizedRows
from pennyweight.engine.batches.tokenize import TokenOptions, tokenize
from pennyweight.environment import cache_directory
from pennyweight.errors import DataError, OutOfMemoryError, RunError, TerminatedError
from pennyweight.recipe import dump_recipe
from pennyweight.runs.directory import RunDirectory, lock_run
from pennyweight.runs.record import DataRecord, RunRecord, write_text
from pennyweight.runs.resume import check_data, check_training_rows, prepare_directory
from pennyweight.runs.writer import RecordWriter
from pennyweight.signals import terminable
from pennyweight.training.job import Job, first_record
from pennyweight.training.processes import explaining_lost_processes
from pennyweight.training.rows import PreparedRows, RowContext, prepare_rows

__all__ = ["ActiveRun", "open_run", "read_splits", "record_rows", "tokenized", "training_rows"]


@dataclass(frozen=True, slots=True)
class ActiveRun:
    """A run whose directory is locked and whose record has begun.

    Attributes:
        job: what was settled before.
        splits: the rows that were read.
        directory: of the run.
        writer: keeps the record.
    """

    job: Job
    splits: Splits
    directory: RunDirectory
    writer: RecordWriter

    @property
    def record(self) -> RunRecord:
        """The record as it is now."""
        return self.writer.record

    @property
    def evaluated(self) -> dict[str, datasets.Dataset]:
        """The sets that the finished run is evaluated on, as far as they have rows, by name."""
        return {
            name: table
            for name, table in self.splits.labelled.items()
            if len(table) and (name == "validation" or self.job.uses_held_out)
        }

    def log(self, line: str) -> None:
        """Tell the watcher, once for all processes."""
        self.job.log(line)


def read_splits(job: Job) -> Splits:
    """Read, clean and split the rows and check them for leaks; the run's directory is untouched.

    Raises:
        DataError: a set cannot be read, rows overlap and the recipe refuses that, or the recipe
            needs validation rows and there are none.
        RunError: the run is resumed and its rows have changed.
    """
    data = job.settings.data
    # One process writes the cached tables; the others find them finished.
    with job.accelerator.main_process_first():
        splits = make_splits(
            data.sources, read=data.read, split=data.split, overlap=data.overlap, log=job.log
        )
    check_data(job.opening, splits.sets)
    if len(splits.validation) == 0:
        _refuse_without_validation(job)
    return splits


def _refuse_without_validation(job: Job) -> None:
    """Refuse what needs validation rows; without it, the weights of the last step are kept.

    Raises:
        DataError: the recipe stops early, or corrects for class shares.
    """
    needs = {
        "train.early_stopping": job.settings.fit.options.patience is not None,
        "transduction.prior": job.settings.prior is not None,
    }
    for key, is_used in needs.items():
        if is_used:
            raise DataError(
                f"{key}: needs validation rows, and there are none; name some in data.validation, "
                f"or leave {key} out"
            )
    job.log("no validation rows: the weights of the last step are kept")


@contextmanager
def open_run(job: Job, splits: Splits) -> Iterator[ActiveRun]:
    """Create or take over the run's directory, lock it, and record whatever happens inside.

    Raises:
        RunError: another process trains in the directory, or it cannot be written.
    """
    directory, is_main = job.opening.directory, job.accelerator.is_main_process
    with lock_run(directory) if is_main else nullcontext():
        if is_main:
            prepare_directory(job.opening, log=job.log)
        writer = RecordWriter(directory, first_record(job), is_main_process=is_main)
        # First of all: what has a record is a run, and can be resumed or started over.
        writer.update()
        if is_main:
            write_text(directory.recipe, dump_recipe(job.recipe))
        with job.accelerator.main_process_first():
            splits = deliver_bad_rows(splits, directory.bad_rows)
        run = ActiveRun(job, splits, directory, writer)
        with terminable(), writer.recording_failures():
            try:
                with _explaining_faults(run):
                    _record_splits(run)
                    yield run
            except KeyboardInterrupt as interruption:
                run.log(_how_to_continue(run, interruption))
                raise


def _how_to_continue(run: ActiveRun, interruption: KeyboardInterrupt) -> str:
    """Return a line that says how to continue an interrupted run."""
    path, what = run.directory.path, str(interruption) or "interrupted"
    if isinstance(interruption, TerminatedError) and run.job.accelerator.num_processes > 1:
        what += ", which a launcher sends to all processes when it is stopped or one of them ends"
    if not _can_resume(run):
        return f"{what} before a checkpoint that can be resumed; {path} can be trained again"
    return f"{what}; continue with: {_resuming(run)}"


def _can_resume(run: ActiveRun) -> bool:
    return run.job.plan.method.resume_refusal is None and run.directory.checkpoint.is_dir()


def _resuming(run: ActiveRun) -> str:
    path = run.directory.path
    return f"pennyweight train {path} --out {path} --resume"


@contextmanager
def _explaining_faults(run: ActiveRun) -> Iterator[None]:
    """Add to an error of the machine what is safe, and how to continue.

    Raises:
        RunError: a file cannot be written or read.
        OutOfMemoryError: there is not enough memory.
        TrainingError: another process of this training has ended.
    """
    try:
        with explaining_lost_processes(run.job.accelerator, rest=lambda: _rest(run)):
            yield
    except BrokenPipeError:  # of the output, not of the run
        raise
    except (OSError, MemoryError, OutOfMemoryError, torch.OutOfMemoryError) as error:
        if not isinstance(error, OSError):
            reason = str(error).strip().partition("\n")[0] or "out of memory"
            raise OutOfMemoryError(f"{reason}; {_rest(run)}") from None
        place = error.filename or run.directory.path
        raise RunError(f"{place}: {error.strerror or error}; {_rest(run)}") from None


def _rest(run: ActiveRun) -> str:
    """Return what is left of a run that a fault has ended, and how to continue."""
    if _can_resume(run):
        return f"the last checkpoint is whole; continue with: {_resuming(run)}"
    path = run.directory.path
    return f"there is no checkpoint that can be resumed; {path} can be trained again"


def _record_splits(run: ActiveRun) -> None:
    splits = run.splits
    run.writer.update(
        data=DataRecord(
            sets=dict(splits.sets),
            overlaps=tuple(overlap.count() for overlap in splits.overlaps),
            removed_from_train=splits.removed,
            dropped_from_validation=splits.dropped_from_validation,
            split=splits.split,
        ),
        leaks=tuple(splits.leaks),
    )
    for line in _describe(splits):
        run.log(line)


def _describe(splits: Splits) -> Iterator[str]:
    """Yield what was read, set aside and removed, line by line."""
    yield "rows: " + ", ".join(f"{name} {facts.rows:,}" for name, facts in splits.sets.items())
    # A validation set that was split off shares the training rows' file.
    shown: set[str | None] = {None}
    for name, facts in splits.sets.items():
        if facts.bad_rows_file not in shown:
            shown.add(facts.bad_rows_file)
            yield f"{name}: {facts.rows_set_aside} bad rows in {facts.bad_rows_file}"
    for overlap in splits.overlaps:
        if overlap.exact or overlap.near:
            yield (
                f"{overlap.one} and {overlap.other}: {overlap.exact} exact and "
                f"{overlap.near} near duplicates"
            )
    for leak in splits.leaks:
        yield f"LEAKS: {leak}"
    if splits.removed:
        yield f"removed from train because they are also in a held-out set: {splits.removed}"


def training_rows(run: ActiveRun) -> PreparedRows:
    """Prepare the rows to train on as the recipe says, and record how.

    Raises:
        DataError: rows cannot be read or made.
        RunError: the run is resumed, and the rows differ from those that it was begun with.
    """
    settings = run.job.settings
    context = RowContext(settings.labels, settings.seed, run.directory.removed_rows, run.log)
    with run.job.accelerator.main_process_first():
        prepared = prepare_rows(run.splits, settings.rows, context)
    check_training_rows(run.job.opening, prepared.to_record())
    record_rows(run, prepared)
    return prepared


def record_rows(run: ActiveRun, prepared: PreparedRows) -> None:
    """Record what was done to the training rows."""
    data = run.record.data
    assert data is not None  # noqa: S101 - recorded when the run was opened
    transductive, prior = prepared.transductive, run.job.settings.prior
    if prior is not None:
        is_stated = prior.method == "stated"
        stated, estimated = (
            "predictions matched to stated class shares of",
            "class shares estimated on",
        )
        transductive = (*transductive, f"{stated if is_stated else estimated} the target")
    run.writer.update(
        data=data.model_copy(update={"training": prepared.to_record()}), transductive=transductive
    )
    for use in transductive:
        run.log(f"TRANSDUCTIVE: {use}")


def tokenized(
    run: ActiveRun, table: datasets.Dataset, fingerprint: str, *, tokenizer: object
) -> TokenizedRows:
    """Return a table's texts as tokens, which are cached by the table's fingerprint."""
    settings = run.job.settings
    max_tokens = settings.inference.max_tokens
    with run.job.accelerator.main_process_first():
        return tokenize(
            table,
            fingerprint=fingerprint,
            tokenizer=tokenizer,
            max_tokens=max_tokens,
            cache=cache_directory() / "tokens",
            options=TokenOptions(settings.inference.truncation, settings.multi_label_classes),
        )
