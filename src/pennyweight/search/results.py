"""Results of a search: `search.json`, and the recipe of the best trial."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter, ValidationError

from pennyweight.documents import DocumentError, read_document
from pennyweight.errors import RunError
from pennyweight.evaluation.differences import TestName
from pennyweight.recipe import Recipe, dump_recipe
from pennyweight.runs.record import load_record, write_text
from pennyweight.search.space import Values

__all__ = [
    "BEST_RECIPE",
    "RESULT",
    "HeldOut",
    "SearchResult",
    "TrialRow",
    "TrialStatus",
    "best_of",
    "describe_held_out",
    "load_result",
    "save_result",
    "shown",
    "write_best_recipe",
]

RESULT = "search.json"
BEST_RECIPE = "best.toml"
_SIGNIFICANT = 0.05
TrialStatus = Literal["waiting", "running", "complete", "pruned", "failed"]


@dataclass(frozen=True, slots=True)
class TrialRow:
    """One trial.

    Attributes:
        run: name of its run directory.
        is_default: whether it is the recipe itself.
        status: what became of it.
        values: values of the searched keys.
        value: of the metric on validation; of a trial that was pruned, the last one; None of a
            trial that failed or is not finished.
        seconds: duration of its run.
        reason: why it was pruned or failed.
    """

    run: str
    is_default: bool
    status: TrialStatus
    values: Values
    value: float | None = None
    seconds: float | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class HeldOut:
    """The best trial and the recipe itself on a held-out set, which no choice has used.

    Attributes:
        metric: "accuracy" or "macro_f1": what the recipe itself leads with.
        rows: number of rows of the set.
        best: value of the best trial.
        best_interval: its 95% interval; None if there is none.
        default: value of the recipe itself; None if its trial is not complete.
        difference: best minus default.
        only_best: rows that only the best trial answers correctly.
        only_default: rows that only the recipe itself answers correctly.
        p: p-value that both are equally good in this metric.
        test: what gives it: McNemar's test for accuracy, a randomization test for macro F1; None
            without a recipe itself, and in older results, where it is McNemar's.
    """

    metric: str
    rows: int
    best: float
    best_interval: tuple[float, float] | None = None
    default: float | None = None
    difference: float | None = None
    only_best: int | None = None
    only_default: int | None = None
    p: float | None = None
    test: TestName | None = None


@dataclass(frozen=True, slots=True)
class SearchResult:
    """A search as `search.json` holds it; it is written anew after each trial.

    Attributes:
        name: of the recipe.
        metric: on validation, by which trials are compared.
        is_lower_better: whether lower values of it are better.
        trials: how many of them there are to be.
        sampler: how values are chosen.
        pruning: when trials are ended early.
        seed: of the sampler.
        keys: which keys are searched.
        rows: the trials so far.
        best: run of the best complete trial; None before there is one.
        importances: share of each key in the variance of the metric; empty with too few trials.
        held_out: comparison on each held-out set, once the search is over.
        marks: warnings of the best run that belong beside its results, about leaks and the target.
    """

    name: str
    metric: str
    is_lower_better: bool
    trials: int
    sampler: str
    pruning: str
    seed: int
    keys: list[str]
    rows: list[TrialRow]
    best: str | None = None
    importances: dict[str, float] = field(default_factory=dict)
    held_out: dict[str, HeldOut] = field(default_factory=dict)
    marks: list[str] = field(default_factory=list)

    @property
    def best_row(self) -> TrialRow | None:
        """The best complete trial."""
        return next((row for row in self.rows if row.run == self.best), None)

    @property
    def default_row(self) -> TrialRow | None:
        """The trial of the recipe itself."""
        return next((row for row in self.rows if row.is_default), None)

    def count(self, *states: TrialStatus) -> int:
        """Return how many trials are in one of some states."""
        return sum(row.status in states for row in self.rows)


def best_of(rows: Sequence[TrialRow], *, is_lower_better: bool) -> str | None:
    """Return the run of the best complete trial; of equally good ones, the first."""
    sign = -1.0 if is_lower_better else 1.0
    complete = [
        (sign * row.value, -number, row.run)
        for number, row in enumerate(rows)
        if row.status == "complete" and row.value is not None
    ]
    return max(complete)[2] if complete else None


def describe_held_out(name: str, each: HeldOut) -> str:
    """Return a sentence that compares the best trial with the recipe itself on a set."""
    metric = each.metric.replace("macro_f1", "macro F1")
    sentence = f"{name} ({each.rows:,} rows): {metric} {each.best:.2%} of the best trial"
    if each.default is None or each.difference is None:
        return f"{sentence}; the trial of the recipe itself was not completed"
    if each.difference == each.only_best == each.only_default == 0:
        return f"{sentence}, and the same of the recipe itself"
    test = "randomization test" if each.test == "randomization" else "McNemar's test"
    doubt = "" if each.p is not None and each.p < _SIGNIFICANT else ", which may be chance"
    return (
        f"{sentence}, {each.default:.2%} of the recipe itself: a difference of "
        f"{100 * each.difference:+.2f} points{doubt} ({test}, p = {each.p:.3f})"
    )


def shown(value: object) -> str:
    """Return a value as text; numbers with four digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def save_result(result: SearchResult, out: Path) -> None:
    """Write `search.json`.

    Raises:
        RunError: it cannot be written.
    """
    text = json.dumps(asdict(result), indent=1, ensure_ascii=False)
    write_text(out / RESULT, text + "\n")


def load_result(out: str | Path) -> SearchResult:
    """Read the `search.json` of a search.

    Raises:
        RunError: there is none, or it cannot be read.
    """
    path = Path(out) / RESULT
    try:
        return TypeAdapter(SearchResult).validate_json(read_document(path))
    except OSError as error:
        raise RunError(f"{out}: not a search: {RESULT}: {error.strerror}") from None
    except DocumentError as error:
        raise RunError(f"{path}: {error}") from None
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        key = ".".join(map(str, problem["loc"]))
        raise RunError(f"{path}: {key}: {problem['msg']}; run the search again") from None


def write_best_recipe(result: SearchResult, original: Recipe, out: Path) -> Path | None:
    """Write the recipe of the best trial, complete, with the original's baselines.

    Returns:
        The file; None if no trial is complete.
    """
    if result.best is None:
        return None
    recipe = load_record(out / result.best).recipe
    evaluate = recipe.evaluate.model_copy(update={"baselines": original.evaluate.baselines})
    best = recipe.model_copy(
        update={
            "name": f"{original.name} best",
            "summary": f"{original.name}, the best of {len(result.rows)} trials",
            "evaluate": evaluate,
        }
    )
    path = out / BEST_RECIPE
    write_text(path, dump_recipe(best))
    return path
