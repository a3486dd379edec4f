"""The `[search]` section: which keys are searched, over which values, and how."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import (
    BaseModel,
    BeforeValidator,
    Field,
    NonNegativeInt,
    PositiveInt,
    StrictFloat,
    StrictInt,
    model_validator,
)
from pydantic.config import JsonDict

from pennyweight.recipe.fields import fields_of, known_keys, models_in
from pennyweight.recipe.problems import unknown_key
from pennyweight.recipe.train import Metric
from pennyweight.section import Section

__all__ = ["Interval", "Range", "Search", "check_keys"]

# Keys that a search must not change, with the reason.
_FIXED: Mapping[str, str] = {
    "name": "it changes nothing about a run",
    "summary": "it changes nothing about a run",
    "seed": "trials with different seeds are not comparable; use a study to compare over seeds",
    "evaluate": "nothing about the test may influence the choice",
    "search": "a search cannot search itself",
    "data.train": "all trials must have the same rows",
    "data.validation": "all trials must be compared on the same validation rows",
    "data.validation_fraction": "all trials must be compared on the same validation rows",
    "data.split": "all trials must be compared on the same validation rows",
    "data.labels": "all trials must have the same classes",
    "data.task": "all trials must have the same task",
    "data.label_separator": "all trials must have the same classes",
    "data.on_bad_row": "all trials must be compared on the same validation rows",
    "data.overlap": "rows of the test must not influence the choice",
    "data.near_duplicate_similarity": "rows of the test must not influence the choice",
    "train.keep_best": "search.metric compares the trials, and selects their checkpoints",
}

_Number = StrictInt | StrictFloat
_NUMBER: JsonDict = {"allowed": "a number"}


class Interval(Section):
    """All numbers from `low` to `high`, or those in steps from `low`."""

    low: _Number = Field(description="the smallest value", json_schema_extra=_NUMBER)
    high: _Number = Field(description="the largest value", json_schema_extra=_NUMBER)
    log: bool = Field(
        False, description="draw the logarithm uniformly, as for learning rates; excludes step"
    )
    step: _Number | None = Field(
        None,
        description="the distance between values; 1 where the key takes whole numbers only",
        json_schema_extra=_NUMBER,
    )

    @property
    def is_whole(self) -> bool:
        """Whether all values are whole numbers."""
        return all(isinstance(v, int) for v in (self.low, self.high, self.step) if v is not None)

    @model_validator(mode="after")
    def _is_an_interval(self) -> Interval:
        if not self.low < self.high:
            raise ValueError(f"low = {self.low} must be below high = {self.high}")
        if self.log and self.low <= 0:
            raise ValueError(f"low = {self.low} must be above 0 on a log scale")
        if self.log and self.step is not None:
            raise ValueError("step has no meaning on a log scale; leave out log or step")
        # 0.3 - 0.1 is a little less than 0.2.
        if self.step is not None and not 0 < self.step <= (self.high - self.low) * (1 + 1e-9):
            raise ValueError(
                f"step = {self.step} must be above 0 and at most high - low = "
                f"{self.high - self.low:g}"
            )
        return self


def _with_dotted_keys(table: object, prefix: str = "") -> object:
    """Return the ranges by their dotted keys, although a key was given without quotes."""
    if not isinstance(table, dict):
        return table
    flat: dict[str, Any] = {}
    for name, value in table.items():
        if isinstance(value, dict) and not set(value) & set(Interval.model_fields):
            inner = _with_dotted_keys(value, f"{prefix}{name}.")
            assert isinstance(inner, dict)  # noqa: S101 - as the value is
            flat |= inner
        else:
            flat[f"{prefix}{name}"] = value
    return flat


Range = Interval | Annotated[tuple[Any, ...], Field(min_length=1, strict=False)]


class Search(Section):
    """The search for better values of some keys; other commands than `search` ignore it."""

    trials: PositiveInt = Field(
        20, description="the number of trials; the first is the recipe itself"
    )
    metric: Metric = Field(
        "auto",
        description="the validation metric that compares the trials and selects the checkpoint of "
        'each; "auto" is train.keep_best',
    )
    seed: NonNegativeInt = Field(0, description="the seed of the sampler")
    sampler: Literal["tpe", "random", "grid"] = Field(
        "tpe",
        description='how values are chosen: "tpe" learns from the trials so far (Bergstra et al. '
        '2011), "random" draws them, "grid" tries every combination in random order',
    )
    pruning: Literal["median", "hyperband", "off"] = Field(
        "median",
        description='when a trial is ended early: "median" compares it with the median of the '
        'others at the same point of training, "hyperband" with the best third (Li et al. 2018)',
    )
    ranges: Annotated[dict[str, Range], BeforeValidator(_with_dotted_keys)] = Field(
        default_factory=dict,
        description="the keys to search, each with a list of values or an interval; if there are "
        "none, optimizer.learning_rate from a tenth to ten times the recipe's",
        json_schema_extra={"allowed": "a list of at least one value, or a table with low and high"},
    )


def check_keys(recipe: type[BaseModel], search: Search) -> None:
    """Check that each searched key is a key of recipes and may be searched.

    Args:
        recipe: the schema of recipes.
        search: the section.

    Raises:
        ValueError: a key is unknown, is not a single key, or is one that must not be searched.
    """
    for key in search.ranges:
        path = tuple(key.split("."))
        for length in range(1, len(path) + 1):
            if reason := _FIXED.get(".".join(path[:length])):
                raise ValueError(f'search.ranges: "{key}" cannot be searched: {reason}')
        _check_key(recipe, key, path)


def _check_key(recipe: type[BaseModel], key: str, path: tuple[str, ...]) -> None:
    models: list[type[BaseModel]] = [recipe]
    for depth, part in enumerate(path):
        fields = fields_of(models, part)
        if not fields:
            hint = unknown_key(part, known_keys(recipe, path[:depth]))
            raise ValueError(f'search.ranges: "{key}": {part}: {hint}')
        if any(_may_be_keyed(field.annotation) for field in fields) and depth + 1 < len(path):
            return  # the names in such a table are the user's own
        models = [model for field in fields for model in models_in(field.annotation)]
    if len(path) == 1:
        raise ValueError(
            f'search.ranges: "{key}" is a section; name one of its keys, such as '
            '"optimizer.learning_rate"'
        )


def _may_be_keyed(annotation: object) -> bool:
    """Return whether a value may be a table whose keys users choose, such as ranks by matrix."""
    if get_origin(annotation) is dict:
        return True
    return any(_may_be_keyed(member) for member in get_args(annotation))
