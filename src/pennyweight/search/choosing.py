"""Choose values of a recipe's keys on validation, by training it with each combination of them.

It is a search over a grid, of which nothing is ended early, and which never reads a held-out set.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pennyweight.errors import RunError, TrainingError
from pennyweight.recipe import Recipe
from pennyweight.recipe.search import Search
from pennyweight.search.job import SearchJob
from pennyweight.search.results import RESULT, SearchResult, load_result
from pennyweight.search.search import make_search_job
from pennyweight.search.space import Values

__all__ = ["Choice", "Tried", "choice_job", "chosen", "finished_choice"]


@dataclass(frozen=True, slots=True)
class Tried:
    """A combination that was trained.

    Attributes:
        values: of the keys.
        value: of the metric on validation; None if the training failed.
        reason: why it failed.
    """

    values: Values
    value: float | None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Choice:
    """Values that were chosen on validation.

    Attributes:
        values: the chosen ones.
        metric: on validation, by which they were compared.
        tried: all combinations.
        at_edge: keys whose chosen number is the smallest or the largest of its list, so that one
            beyond the list might be better.
    """

    values: Values
    metric: str
    tried: list[Tried]
    at_edge: list[str]


def choice_job(recipe: Recipe, search: Search, *, out: Path) -> SearchJob:
    """Return the search that trains a recipe with every combination of values.

    Each combination is trained once, in a directory of its own in `out`. A choice that was stopped,
    at any moment, continues where it was. Nothing is written yet.

    Args:
        recipe: the recipe, with the seed to train with and the first value of each list; the first
            trial of a search is the recipe itself.
        search: the keys with their lists of values, as a search over a grid.
        out: directory of the choice.

    Raises:
        RecipeError: there are no validation rows.
        RunError: Optuna is missing.
        PennyweightError: the recipe cannot be planned.
    """
    if find_spec("optuna") is None:
        raise RunError("choosing values needs Optuna; run: pip install 'pennyweight[search]'")
    return make_search_job(recipe.model_copy(update={"search": search}), out=out)


def chosen(job: SearchJob) -> Choice:
    """Return the values that are best on validation, once all are trained.

    A combination whose training failed is not chosen; of equally good ones, the one that was
    trained first is.

    Raises:
        TrainingError: no combination could be trained.
        RunError: the storage cannot be used.
    """
    from pennyweight.search.worker import current_result

    result = current_result(job)
    if result.best is None:
        raise TrainingError(
            f"{job.out}: none of {len(result.rows)} combinations could be trained; the first one: "
            f"{result.rows[0].reason}"
        )
    return _choice(result, job.search)


def finished_choice(search: Search, *, out: Path) -> Choice | None:
    """Return what was chosen in a directory; None if anything of it remains to be trained."""
    if not (out / RESULT).is_file():
        return None
    result = load_result(out)
    done = [row.values for row in result.rows if row.status in ("complete", "failed")]
    lists = _lists(search)
    is_of_this = result.keys == list(lists) and all(
        values[key] in lists[key] for values in done for key in lists
    )
    is_all = len(done) == search.trials and result.best is not None
    return _choice(result, search) if is_of_this and is_all else None


def _lists(search: Search) -> dict[str, tuple[Any, ...]]:
    return {key: values for key, values in search.ranges.items() if isinstance(values, tuple)}


def _choice(result: SearchResult, search: Search) -> Choice:
    best = result.best_row
    assert best is not None  # noqa: S101 - checked by the callers
    return Choice(
        values=best.values,
        metric=result.metric,
        tried=[Tried(row.values, row.value, row.reason) for row in result.rows],
        at_edge=[
            key for key, values in _lists(search).items() if _is_at_edge(best.values[key], values)
        ],
    )


def _is_at_edge(value: Any, values: tuple[Any, ...]) -> bool:
    """Return whether a number is the smallest or the largest of several."""
    are_numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
    return are_numbers and len(values) > 1 and value in (min(values), max(values))
