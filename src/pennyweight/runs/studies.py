"""Run a study: every row with every seed, each in its own run directory, and one table."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pennyweight.errors import PennyweightError, RunError
from pennyweight.evaluation.compare import mean_interval, paired_p
from pennyweight.recipe import Recipe
from pennyweight.recipe.study import Study
from pennyweight.runs.record import RunRecord, load_record, write_atomically
from pennyweight.runs.setup import Watcher
from pennyweight.runs.training import train

__all__ = ["StudyRow", "run_study"]

_FILE = "study.json"


@dataclass(frozen=True, slots=True)
class StudyRow:
    """One row of a study's table, over its seeds.

    Attributes:
        name: of the variation.
        seeds: of the runs that are complete.
        accuracies: of each of those runs, by set.
        mean: mean accuracy by set.
        deviation: standard deviation by set; None for one seed.
        interval: 95 % interval of the mean by set, over seeds; None for one seed.
        p: of the paired t-test against the first row by set, over the seeds both have; None where
            it says nothing.
        predicted_shares: of each class in the unlabelled target, mean over seeds; empty without one.
        parameters: trained.
        seconds: mean of a run.
        peak_memory_bytes: largest of the runs.
        leaks: what the runs say of rows that stand in two sets; such a row is no fair comparison.
        transductive: which uses the runs made of the target's text.
        failures: what stopped the runs that failed, by seed.
    """

    name: str
    seeds: list[int]
    accuracies: dict[str, list[float]]
    mean: dict[str, float]
    deviation: dict[str, float | None]
    interval: dict[str, tuple[float, float] | None]
    p: dict[str, float | None]
    predicted_shares: dict[str, float]
    parameters: int
    seconds: float
    peak_memory_bytes: int
    leaks: list[str]
    transductive: list[str]
    failures: dict[str, str]


def run_study(
    study: Study,
    *,
    out: str | Path,
    say: Callable[[str], None] = lambda _: None,
    watcher: Watcher | None = None,
) -> list[StudyRow]:
    """Train what is not trained yet, and sum up; `out/study.json` holds the same rows.

    A study that was interrupted goes on where it stopped: complete runs are read, the others
    resumed. A run that fails is recorded, and the next one begins.

    Raises:
        RunError: a run directory in `out` belongs to another recipe.
    """
    out = Path(out)
    rows: list[StudyRow] = []
    first: dict[int, RunRecord] = {}
    for number, variation in enumerate(study.variations, start=1):
        records: dict[int, RunRecord] = {}
        failures: dict[str, str] = {}
        for seed, recipe in zip(study.seeds, variation.recipes, strict=True):
            run = out / f"{number:02d}-{_slug(variation.name)}" / f"seed-{seed}"
            say(f"{variation.name}, seed {seed}: {run}")
            try:
                records[seed] = _complete(recipe, run, watcher)
            except RunError:
                raise
            except PennyweightError as error:
                failures[str(seed)] = str(error)
                say(f"failed: {error}")
        first = first or records
        rows.append(_row(variation.name, records, first, failures))
        _save(out, study, rows)
    return rows


def _complete(recipe: Recipe, run: Path, watcher: Watcher | None) -> RunRecord:
    """The record of a run, trained, resumed or found."""
    if not (run / "record.json").is_file():
        return train(recipe, out=run, watcher=watcher)
    record = load_record(run)
    if record.recipe != recipe.model_dump(mode="json", exclude_none=True):
        raise RunError(
            f"{run}: trained with another recipe; name a new --out, or delete the directory"
        )
    if record.status == "complete":
        return record
    if recipe.adapter.method == "adalora":  # cannot be resumed
        shutil.rmtree(run)
        return train(recipe, out=run, watcher=watcher)
    return train(recipe, out=run, resume=True, watcher=watcher)


def _row(
    name: str,
    records: dict[int, RunRecord],
    first: dict[int, RunRecord],
    failures: dict[str, str],
) -> StudyRow:
    sets = list(next(iter(records.values())).metrics) if records else []
    accuracies = {s: [_accuracy(r, s) for r in records.values()] for s in sets}
    shared = [seed for seed in records if seed in first]
    p: dict[str, float | None] = {}
    for s in sets:
        pairs = [(_accuracy(records[seed], s), _accuracy(first[seed], s)) for seed in shared]
        p[s] = paired_p(*zip(*pairs, strict=True)) if pairs and records is not first else None
    return StudyRow(
        name=name,
        seeds=list(records),
        accuracies=accuracies,
        mean={s: float(np.mean(values)) for s, values in accuracies.items()},
        deviation={
            s: float(np.std(values, ddof=1)) if len(values) > 1 else None
            for s, values in accuracies.items()
        },
        interval={s: mean_interval(values) for s, values in accuracies.items()},
        p=p,
        predicted_shares=_mean_shares(list(records.values())),
        parameters=max((r.parameters["model"] for r in records.values()), default=0),
        seconds=float(np.mean([r.seconds for r in records.values()])) if records else 0.0,
        peak_memory_bytes=max((r.peak_memory_bytes for r in records.values()), default=0),
        leaks=sorted({leak for record in records.values() for leak in record.leaks}),
        transductive=sorted({use for record in records.values() for use in record.transductive}),
        failures=failures,
    )


def _mean_shares(records: Sequence[RunRecord]) -> dict[str, float]:
    told = [record.target["predicted_shares"] for record in records if record.target]
    return {name: float(np.mean([shares[name] for shares in told])) for name in told[0]} if told else {}


def _accuracy(record: RunRecord, name: str) -> float:
    return float(record.metrics[name]["accuracy"])


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:60]


def _save(out: Path, study: Study, rows: Sequence[StudyRow]) -> None:
    table: dict[str, Any] = {
        "study": study.name,
        "summary": study.summary,
        "seeds": study.seeds,
        "rows": [asdict(row) for row in rows],
    }
    write_atomically(out / _FILE, json.dumps(table, indent=1, ensure_ascii=False) + "\n")
