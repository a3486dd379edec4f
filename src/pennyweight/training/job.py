"""Everything that is settled, and can be refused, before a run's directory is touched."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from accelerate import Accelerator
from accelerate.state import AcceleratorState

from pennyweight.base import BaseModel
from pennyweight.budget import Plan
from pennyweight.data.splits import check_sources
from pennyweight.defaults import allocate, complete, is_completion
from pennyweight.engine.device import Compute, choose_compute
from pennyweight.engine.kernels.compiled import choose_compile
from pennyweight.environment import describe_environment, git_state
from pennyweight.errors import RecipeError, RunError, first_line
from pennyweight.recipe import Recipe
from pennyweight.runs.directory import RunDirectory
from pennyweight.runs.record import (
    AllocationRecord,
    BaseRecord,
    ComputeRecord,
    EnvironmentRecord,
    GitRecord,
    GitState,
    RunRecord,
    load_record,
)
from pennyweight.runs.resume import Opening, decide_opening
from pennyweight.settings import find_base, plan
from pennyweight.settings.assemble import settings_of
from pennyweight.settings.values import Settings
from pennyweight.training.generation import check_generation
from pennyweight.training.processes import waiting
from pennyweight.training.start import check_start
from pennyweight.training.target import check_self_training
from pennyweight.training.teacher import check_teachers
from pennyweight.training.watcher import Watcher

__all__ = ["Job", "first_record", "make_job"]


@dataclass(frozen=True, slots=True)
class Job:
    """One training that may begin.

    Attributes:
        settings: the recipe as plain values.
        recipe: itself, for the record.
        base: the model to adapt.
        plan: what is trained in it.
        compute: device, precision and attention.
        compiled: whether blocks are compiled.
        accelerator: of the processes that train.
        opening: what becomes of the run's directory.
        watcher: who is told about it.
        began: `time.perf_counter()` when the run began.
        uses_held_out: whether the finished run is evaluated on the held-out sets.
        allocation: how a strategy settled the ranks; None if the recipe has ranks itself.
    """

    settings: Settings
    recipe: Recipe
    base: BaseModel
    plan: Plan
    compute: Compute
    compiled: bool
    accelerator: Accelerator
    opening: Opening
    watcher: Watcher
    began: float
    uses_held_out: bool = True
    allocation: AllocationRecord | None = None

    def log(self, line: str) -> None:
        """Tell the watcher, once for all processes."""
        if self.accelerator.is_main_process:
            self.watcher.log(line)


def make_job(
    recipe: Recipe,
    out: Path,
    *,
    resume: bool = False,
    watcher: Watcher | None = None,
    uses_held_out: bool = True,
    trains: bool = True,
) -> Job:
    """Settle everything that is known before rows are read; nothing is written.

    Where the weights come from finished runs, `trains` is False: what only training reads, such as
    teachers, may then be missing.

    Raises:
        PennyweightError: the base, a source, a teacher or a setting cannot be used, the plan is
            over budget, or the directory holds something else.
    """
    began, watcher = time.perf_counter(), watcher or Watcher()
    if resume and out.is_dir() and RunDirectory(out).is_unused():
        _once(watcher.log)(f"{out}: nothing to resume yet: the run begins")
        resume = False
    # A new run is refused its directory before anything is read or measured.
    opening = None if resume else decide_opening(out, recipe, resume=False)
    settled = _settle(recipe, out, resume=resume, log=_once(watcher.log))
    recipe = settled.recipe
    settings = settings_of(recipe)
    opening = opening or decide_opening(out, recipe, resume=True)
    base = find_base(recipe, config_only=False)
    planned = plan(recipe, base=base)
    if resume and planned.method.resume_refusal and opening.directory.checkpoint.is_dir():
        raise RunError(f"{out}: {planned.method.resume_refusal}")
    compute = choose_compute(
        precision=settings.compute.precision,
        attention=settings.compute.attention,
        products=settings.compute.products,
        config=base.config,
        trains_all=planned.method.trains_every_weight,
    )
    check_sources(settings.data.sources)
    if trains:
        _check_training_sources(settings)
        check_start(settings, planned, base)
    accelerator = _make_accelerator(compute, settings.fit.trackers, opening.directory.logs)
    compute = replace(compute, device=str(accelerator.device))
    compiled, reason = choose_compile(
        settings.compute.compile, device=compute.device.partition(":")[0]
    )
    job = Job(
        *(settings, recipe, base, planned, compute, compiled, accelerator, opening, watcher, began),
        uses_held_out=uses_held_out,
        allocation=settled.allocation,
    )
    _describe(job, reason)
    for line in settled.lines:
        job.log(line)
    return job


@dataclass(frozen=True, slots=True)
class _Settled:
    """A recipe that leaves nothing open, how its ranks came about, and lines that say why."""

    recipe: Recipe
    allocation: AllocationRecord | None
    lines: tuple[str, ...] = ()


def _settle(recipe: Recipe, out: Path, *, resume: bool, log: Callable[[str], None]) -> _Settled:
    """Complete a recipe and settle its ranks; a run that is resumed has done so before.

    Raises:
        PennyweightError: the recipe cannot be completed, or there is no run to resume.
    """
    if resume:
        record = load_record(out)
        section = None if record.allocation is None else record.allocation.adapter
        if is_completion(record.recipe, recipe, allocated=section):
            return _Settled(record.recipe, record.allocation)
    completed = complete(recipe)
    allocated = allocate(completed.recipe, log=log)
    allocation = None
    if allocated.section is not None:
        allocation = AllocationRecord(adapter=allocated.section, notes=allocated.notes)
    return _Settled(allocated.recipe, allocation, (*completed.lines(), *allocated.notes))


def _once(log: Callable[[str], None]) -> Callable[[str], None]:
    """Return a function that logs in the first of several processes only."""
    return log if os.environ.get("RANK", "0") == "0" else lambda _: None


def _check_training_sources(settings: Settings) -> None:
    """Refuse what cannot be read later, before anything takes time."""
    for name in settings.rows.extra:
        if not Path(name).is_file():
            raise RecipeError(f"data.extra: {name}: no such file")
    if settings.rows.generation is not None:
        check_generation(settings.rows.generation, settings.labels)
    if settings.rows.self_training is not None:
        check_self_training(settings.rows.self_training, settings.labels)
    check_teachers(settings)


def _describe(job: Job, compile_reason: str) -> None:
    lines: list[str | None] = [
        job.opening.describe(),
        f"device: {job.compute.why}",
        compile_reason or None,
        f"plan: {job.plan.trainable_parameters:,} trainable parameters of {job.plan.budget:,} "
        f"allowed, on {job.base.name}",
    ]
    if not job.plan.within_budget:
        lines.append(
            "over budget, as full fine-tuning usually is: this run can teach or serve as a "
            "baseline, but cannot be submitted"
        )
    if job.settings.base.weights == "random":
        lines.append("base: random weights, as the recipe asks; the encoder knows no language")
    for line in lines:
        if line is not None:
            job.log(line)


def _make_accelerator(compute: Compute, trackers: tuple[str, ...], logs: Path) -> Accelerator:
    # Accelerate keeps one state per process; a second training may want another precision.
    AcceleratorState._reset_state(reset_partial_state=True)
    try:
        return Accelerator(
            cpu=compute.device == "cpu",
            # In bf16 the frozen encoder itself is held in it; fp16 needs scaled gradients as well.
            mixed_precision=compute.precision if compute.autocast else "no",
            log_with=list(trackers) or None,
            project_dir=str(logs),
            kwargs_handlers=[waiting()],
        )
    except (ValueError, ImportError) as error:
        raise RecipeError(f"train.trackers: {first_line(error)}") from None


def first_record(job: Job) -> RunRecord:
    """Return the record of a run that begins, or that resumes an earlier one."""
    base, compute = job.base, asdict(job.compute)
    record = RunRecord(
        status="running",
        recipe=job.recipe,
        allocation=job.allocation,
        plan=job.plan.summary,
        compute=ComputeRecord(
            **compute, processes=job.accelerator.num_processes, compiled=job.compiled
        ),
        base=BaseRecord(
            name=base.name, reference=base.reference, revision=base.revision, origin=base.origin
        ),
        environment=EnvironmentRecord.model_validate(describe_environment()),
        git=GitRecord(
            working_directory=GitState.model_validate(git_state(Path.cwd())),
            pennyweight=GitState.model_validate(git_state(Path(__file__).parent)),
        ),
        started=datetime.now(UTC).isoformat(timespec="seconds"),
        process_id=os.getpid(),
    )
    previous = job.opening.previous
    if previous is None:
        return record
    return record.with_changes(
        started=previous.started,
        data=previous.data,
        leaks=previous.leaks,
        transductive=previous.transductive,
        history=previous.history,
        best=previous.best,
        planned_steps=previous.planned_steps,
        skips_refit=previous.skips_refit,
        predicted_seconds=previous.predicted_seconds,
        seconds=previous.seconds,
        peak_memory_bytes=previous.peak_memory_bytes,
    )
