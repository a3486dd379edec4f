"""Measure what ranks gain on the training rows of a recipe, once for the same rows and base."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from pennyweight.base import skeleton
from pennyweight.budget.allocate.pool import make_problem, measured_matrices
from pennyweight.budget.allocate.problem import Gains
from pennyweight.budget.allocate.strategies import STRATEGIES
from pennyweight.budget.layout import Layout, layout_of
from pennyweight.budget.spending import Spending
from pennyweight.data.splits import Splits, make_splits
from pennyweight.documents import DocumentError, load_arrays
from pennyweight.engine.batches.batcher import PaddedBatcher
from pennyweight.engine.batches.rows import TokenizedRows
from pennyweight.engine.batches.tokenize import TokenOptions, tokenize
from pennyweight.engine.device import choose_compute
from pennyweight.environment import cache_directory
from pennyweight.errors import DataError
from pennyweight.files import replacing
from pennyweight.model.build import BaseOptions, load_base, load_tokenizer
from pennyweight.recipe import Recipe
from pennyweight.settings import find_base
from pennyweight.settings.assemble import settings_of
from pennyweight.settings.values import Settings

__all__ = ["gains_of"]

# Part of the cache's keys: to be raised when a measure changes.
_VERSION = 1
# Padded tokens that go through the model at once; enough for good speed, and little memory.
_BATCH_TOKENS = 4096
# AdaLoRA begins with one and a half times the ranks that it ends with (arXiv:2303.10512, 4.1).
_PILOT_RANKS, _SMALLEST_PILOT, _LARGEST_PILOT = 1.5, 2, 32


@dataclass(frozen=True, slots=True)
class _Subject:
    """Options of a measurement.

    Attributes:
        recipe: complete, with a full head.
        settings: the same as plain values.
        layout: of its base with a full head.
        matrices: names of the matrices to measure.
        options: the keys of `[adapter.allocate]`.
        pilot_rank: rank of a pilot's adapters; None if the strategy trains none.
    """

    recipe: Recipe
    settings: Settings
    layout: Layout
    matrices: tuple[str, ...]
    options: Mapping[str, Any]
    pilot_rank: int | None


def gains_of(
    recipe: Recipe,
    spending: Spending,
    options: Mapping[str, Any],
    *,
    log: Callable[[str], None],
) -> tuple[Gains, str]:
    """Return what each rank of each target and of the head gains, and a line on the measurement.

    The result is kept in the cache. Of several processes, one measures and the others wait for it,
    so that all have the same.

    Args:
        recipe: complete, with a full head.
        spending: the values of its `[adapter]` section.
        options: the keys of `[adapter.allocate]`.
        log: receives a line before something is measured.

    Raises:
        DataError: the training rows cannot be read, or there are none with a label.
        BaseModelError: the weights or the tokenizer cannot be loaded.
    """
    subject = _subject(recipe, spending, options)
    splits = make_splits(
        subject.settings.data.sources,
        read=subject.settings.data.read,
        split=subject.settings.data.split,
        overlap=subject.settings.data.overlap,
    )
    path = cache_directory() / "gains" / f"{_key(subject, splits)}.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):
        if not path.is_file():
            log(
                f'adapter.allocate: measuring with "{options["method"]}" on at most '
                f"{options['rows']:,} training rows"
            )
            _write(path, *_measure(subject, splits))
        return _read(path)


def _subject(recipe: Recipe, spending: Spending, options: Mapping[str, Any]) -> _Subject:
    layout = layout_of(
        skeleton(find_base(recipe, config_only=True)), labels=len(recipe.data.label_names)
    )
    matrices = tuple(matrix.name for matrix in measured_matrices(layout, spending))
    pilot_rank = None
    if STRATEGIES[options["method"]].needs == "a short training":
        pilot_rank = _pilot_rank(layout, spending, recipe.budget.trainable_parameters)
    return _Subject(recipe, settings_of(recipe), layout, matrices, options, pilot_rank)


def _pilot_rank(layout: Layout, spending: Spending, budget: int) -> int:
    problem = make_problem(layout, spending, budget=budget, plans_head=True)
    room = budget - min(head.cost for head in problem.heads)
    mean = room / sum(target.per_rank for target in problem.targets)
    return min(_LARGEST_PILOT, max(_SMALLEST_PILOT, math.ceil(_PILOT_RANKS * mean)))


def _key(subject: _Subject, splits: Splits) -> str:
    """Return a hash of everything that the result depends on."""
    recipe, inference = subject.recipe, subject.settings.inference
    identity = {
        "version": _VERSION,
        "base": recipe.base.model_dump(mode="json"),
        "files": _files_of(recipe.base.name),
        "rows": splits.sets["train"].fingerprint,
        "labels": recipe.data.label_names,
        "tokens": [inference.max_tokens, inference.truncation],
        "matrices": subject.matrices,
        "options": {**subject.options},
        "pilot": subject.pilot_rank,
    }
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:32]


def _files_of(name: str) -> list[tuple[str, int, int]]:
    """Return name, size and time of the files of a local base, which may be replaced."""
    directory = Path(name).expanduser()
    if not directory.is_dir():
        return []
    files = (file for file in sorted(directory.iterdir()) if file.is_file())
    return [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]


def _measure(subject: _Subject, splits: Splits) -> tuple[Gains, int, float]:
    """Return the gains, the number of rows that were measured, and the seconds it took."""
    from pennyweight.engine.pilot import PilotOptions, importance_of_ranks
    from pennyweight.engine.sensitivity import Probe, fit_output_layer, measure

    started, settings, options = time.perf_counter(), subject.settings, subject.options
    rows, others = _draw_rows(subject, splits)
    # A measure needs no more than the plain weights, whatever they are trained in.
    base = find_base(subject.recipe, config_only=False)
    compute = choose_compute(precision="fp32", attention="eager", config=base.config)
    model, _ = load_base(base, BaseOptions(seed=options["seed"], weights=settings.base.weights))
    probe = Probe(
        model.to(compute.device).eval().requires_grad_(False),
        PaddedBatcher(compute.device, _BATCH_TOKENS),
        output_layer=subject.layout.head_output.name,
        matrices=subject.matrices,
        rows=rows,
        seed=options["seed"],
    )
    names = options.get("measures", (options["method"],))
    if names != ("activation",):
        fit_output_layer(probe, others, compute=compute, classes=len(settings.labels))
    if subject.pilot_rank is None:
        gains = _mean([measure(probe, name) for name in names])
    else:
        pilot = {key: options[key] for key in ("steps", "batch_rows", "learning_rate")}
        gains = importance_of_ranks(probe, PilotOptions(subject.pilot_rank, **pilot))
    return gains, len(rows), time.perf_counter() - started


def _draw_rows(subject: _Subject, splits: Splits) -> tuple[TokenizedRows, TokenizedRows]:
    """Return the rows to measure on, and as many others to fit the output layer on.

    Of few rows, half are of each kind; a single row is both.

    Raises:
        DataError: no row has a label.
    """
    settings, number = subject.settings, subject.options["rows"]
    rows = tokenize(
        splits.train,
        fingerprint=splits.sets["train"].fingerprint,
        tokenizer=load_tokenizer(
            find_base(subject.recipe, config_only=False), tokenizer=settings.base.tokenizer
        ),
        max_tokens=settings.inference.max_tokens,
        cache=cache_directory() / "tokens",
        options=TokenOptions(settings.inference.truncation, settings.multi_label_classes),
    )
    labels = rows.labels if rows.labels.ndim == 1 else rows.labels.min(axis=1)
    labelled = np.flatnonzero(labels >= 0)
    if not len(labelled):
        raise DataError("adapter.allocate: no training row has a label to measure with")
    order = np.random.default_rng(subject.options["seed"]).permutation(labelled)
    number = min(number, max(1, len(order) // 2))
    return rows.take(order[:number]), rows.take(order[-number:])


def _mean(measurements: list[dict[str, np.ndarray]]) -> Gains:
    """Return the mean of measurements that have been scaled to the same total."""
    if len(measurements) == 1:
        return measurements[0]
    gains: dict[str, np.ndarray] = {}
    for name in measurements[0]:
        parts = [
            each[name] / (sum(float(values.sum()) for values in each.values()) or 1.0)
            for each in measurements
        ]
        ranks = min(map(len, parts))
        gains[name] = np.mean([part[:ranks] for part in parts], axis=0)
    return gains


def _write(path: Path, gains: Gains, rows: int, seconds: float) -> None:
    arrays: dict[str, Any] = {f"gains/{name}": values for name, values in gains.items()}
    with replacing(path) as part, part.open("wb") as file:
        np.savez(file, rows=np.array(rows), seconds=np.array(seconds), **arrays)


def _read(path: Path) -> tuple[Gains, str]:
    try:
        arrays = load_arrays(path)
    except DocumentError as error:
        raise DataError(f"{path}: damaged: {error}; delete the file to measure again") from None
    gains = {
        name.removeprefix("gains/"): values
        for name, values in arrays.items()
        if name.startswith("gains/")
    }
    rows, seconds = int(arrays["rows"]), float(arrays["seconds"])
    return gains, f"allocation: measured on {rows:,} training rows in {seconds:.1f} s"
