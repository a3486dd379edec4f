"""What a training needs before its first step: a directory, an accelerator, plain settings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from pennyweight.base import BaseModel
from pennyweight.budget import Plan
from pennyweight.engine import optim
from pennyweight.engine.device import Compute
from pennyweight.engine.features import Features
from pennyweight.engine.loop import Settings, Step
from pennyweight.engine.objective import Objective
from pennyweight.environment import describe_environment, git_state
from pennyweight.errors import RecipeError, RunError
from pennyweight.recipe import Recipe
from pennyweight.recipe.schema import EarlyStopping
from pennyweight.runs.record import RunRecord, load_record

__all__ = [
    "Watcher",
    "curves_of",
    "first_record",
    "make_accelerator",
    "make_objective",
    "make_optimizer",
    "prepare_directory",
    "settings_of",
]


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


def curves_of(step: Step) -> dict[str, float]:
    """What trackers draw of a step."""
    curves = {
        "train/loss": step.loss,
        "train/learning_rate": step.learning_rate,
        "train/gradient_norm": step.gradient_norm,
        "train/rows_per_second": step.rows_per_second,
    }
    return curves | {f"validation/{name}": v for name, v in (step.evaluation or {}).items()}


def prepare_directory(out: Path, recipe: Recipe, *, resume: bool) -> None:
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


def make_accelerator(recipe: Recipe, compute: Compute, out: Path) -> Accelerator:
    r"""Accelerate, for this device and precision, with the recipe\'s trackers."""
    # Accelerate keeps one state per process; a second training may want another precision.
    AcceleratorState._reset_state(reset_partial_state=True)
    # In bf16 a frozen encoder itself is held in it; fp16 needs its gradients scaled as well.
    mixed = compute.precision if compute.autocast else "no"
    try:
        return Accelerator(
            cpu=compute.device == "cpu",
            mixed_precision=mixed,
            log_with=list(recipe.train.trackers) or None,
            project_dir=str(out / "logs"),
        )
    except (ValueError, ImportError) as error:
        raise RecipeError(f"train.trackers: {str(error).splitlines()[0]}") from None


def settings_of(recipe: Recipe) -> Settings:
    """The plain values of the recipe's `[train]` section."""
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


def make_optimizer(
    recipe: Recipe, model: torch.nn.Module, last: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """Optimizer and schedule as the recipe says, for a run of `last` steps."""
    optimizer = optim.make_optimizer(model, recipe.optimizer.model_dump())
    over_time = recipe.optimizer.schedule
    scheduler = optim.schedule(
        optimizer,
        method=over_time.method,
        warmup_steps=over_time.warmup_steps,
        warmup_ratio=over_time.warmup_ratio,
        total_steps=last,
    )
    return optimizer, scheduler


def make_objective(
    recipe: Recipe,
    model: torch.nn.Module,
    planned: Plan,
    penalties: Sequence[Callable[[], torch.Tensor]],
) -> Objective:
    """What the recipe's training makes small."""
    taught, mixup = recipe.distillation, recipe.train.mixup
    hidden = taught.hidden if taught else 0.0
    watched = Features(model, planned.output_layer) if mixup > 0.0 or hidden > 0.0 else None
    return Objective(
        label_smoothing=recipe.train.label_smoothing,
        r_drop=recipe.train.r_drop,
        consistency=recipe.transduction.consistency if recipe.transduction else 0.0,
        mixup=mixup,
        temperature=taught.temperature if taught else 1.0,
        soft=taught.soft if taught else 0.0,
        hidden=hidden,
        features=watched,
        penalties=tuple(penalties),
    )


def first_record(
    recipe: Recipe, base: BaseModel, planned: Plan, compute: Compute, *, processes: int
) -> RunRecord:
    """The record of a run that has just begun."""
    return RunRecord(
        status="running",
        recipe=recipe.model_dump(mode="json", exclude_none=True),
        plan=planned.to_json(recipe=recipe.name, base=base.name),
        compute={**asdict(compute), "processes": processes},
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
