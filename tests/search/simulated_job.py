"""A small search that is never trained for real; without torch, so that processes begin fast."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pennyweight.recipe import resolve_recipe
from pennyweight.recipe.search import Search
from pennyweight.search.job import SearchJob
from pennyweight.search.space import space_of

__all__ = ["RANGES", "make_job"]

RANGES: Mapping[str, Any] = {
    "optimizer.learning_rate": {"low": 1e-4, "high": 1e-1, "log": True},
    "adapter.rank": [1, 2, 4],
}


def make_job(out: Path, /, **changes: Any) -> SearchJob:
    """Return a search of the example recipe; `changes` are of its `[search]` section."""
    search = Search.model_validate({"trials": 6, "ranges": dict(RANGES), **changes})
    recipe = resolve_recipe(
        {
            "name": "example",
            "base": {"name": "embedded"},
            "data": {"train": "train.csv", "validation": "validation.csv", "labels": ["a", "b"]},
            "optimizer": {"learning_rate": 0.01},
            "adapter": {"rank": 2},
        }
    )
    space = space_of(recipe, recipe, search)
    trials = search.trials if space.trials is None else min(search.trials, space.trials)
    return SearchJob(
        recipe, search, space, "accuracy", trials, out, f"sqlite:///{out.absolute()}/search.db"
    )
