"""A search that may begin: everything that is settled before the first trial."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pennyweight.engine.train.progress import LOWER_IS_BETTER
from pennyweight.recipe import Recipe, change_recipe
from pennyweight.recipe.search import Search
from pennyweight.search.space import Space, Values

__all__ = ["SearchJob"]


@dataclass(frozen=True, slots=True)
class SearchJob:
    """A search, as plain values that can be sent to another process.

    Attributes:
        recipe: the recipe of the first trial, without its `[search]` section.
        search: that section.
        space: which values the trials may have.
        metric: the validation metric that compares them.
        trials: how many of them there will be.
        out: directory of the search.
        storage: URL of the database that holds the trials.
        workers: trials that are trained at the same time; None for the engine's default.
        sources: digests of the files with the rows, by location.
    """

    recipe: Recipe
    search: Search
    space: Space
    metric: str
    trials: int
    out: Path
    storage: str
    workers: int | None = None
    sources: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_lower_better(self) -> bool:
        """Whether lower values of the metric are better."""
        return self.metric in LOWER_IS_BETTER

    @property
    def fingerprint(self) -> str:
        """The identity of a search that continues: all that its trials depend on.

        The number of trials is not part of it, so that more can be added.
        """
        values = {
            "recipe": self.recipe.model_dump(mode="json", exclude={"name", "summary"}),
            "search": self.search.model_dump(mode="json", exclude={"trials"}),
        }
        text = json.dumps(values, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def trial_recipe(self, values: Values, run: str) -> Recipe:
        """Return the recipe of a trial.

        It has no baselines, which would be the same for most trials.

        Raises:
            RecipeError: the values are not valid together.
        """
        recipe = change_recipe(self.recipe, values, origin=run)
        return recipe.model_copy(
            update={
                "name": f"{recipe.name} {run}",
                "evaluate": recipe.evaluate.model_copy(update={"baselines": ()}),
            }
        )
