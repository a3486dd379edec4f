"""The space of a search: its axes with their values, checked against the recipe."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pennyweight.errors import RecipeError
from pennyweight.recipe import Recipe, change_recipe
from pennyweight.recipe.search import Interval, Search

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

__all__ = ["LEARNING_RATE", "Axis", "Space", "Values", "space_of"]

LEARNING_RATE = "optimizer.learning_rate"
# Without ranges, the learning rate is searched from a tenth to ten times the recipe's own.
_FACTOR = 10.0
# Grids and lists of values that were not tried are made for at most this many points.
_LARGEST_GRID = 100_000

Values = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Axis:
    """A key that is searched, and its values: a list, or numbers from `low` to `high`.

    Attributes:
        key: of the recipe, dotted.
        choices: the listed values; empty for numbers.
        low: smallest number.
        high: largest number, which is a whole number of steps away from `low`.
        log: whether numbers are drawn on a log scale.
        step: distance between numbers; None for a continuum.
        is_whole: whether numbers are whole.
    """

    key: str
    choices: tuple[Any, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    step: float | None = None
    is_whole: bool = False

    @property
    def size(self) -> int | None:
        """Number of values; None for a continuum."""
        if self.choices:
            return len(self.choices)
        if self.step is None:
            return None
        return round((self.high - self.low) / self.step) + 1

    def values(self) -> list[Any]:
        """Return all values of an axis that has a size."""
        if self.choices:
            return list(self.choices)
        assert self.step is not None  # noqa: S101 - has a size
        indices = range(self.size or 0)
        if self.is_whole:
            return [int(self.low + index * self.step) for index in indices]
        return [self.decode(index) for index in indices]

    def contains(self, value: Any) -> bool:
        """Return whether a value is one of this axis."""
        if self.choices:
            return self.parameter(value) in map(self.parameter, self.choices)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        if self.step is None:
            return self.low <= value <= self.high
        steps = (value - self.low) / self.step
        # Fractions are rounded; see `decode`.
        return math.isclose(steps, round(steps), abs_tol=1e-6) and 0 <= round(steps) < (
            self.size or 0
        )

    def distribution(self) -> BaseDistribution:
        """Return the values as Optuna knows them."""
        from optuna.distributions import (
            CategoricalDistribution,
            FloatDistribution,
            IntDistribution,
        )

        if self.choices:
            return CategoricalDistribution([self.parameter(value) for value in self.choices])
        if self.is_whole:
            step = 1 if self.log else int(self.step or 1)
            return IntDistribution(int(self.low), int(self.high), log=self.log, step=step)
        if self.size is not None:
            return IntDistribution(0, self.size - 1)
        return FloatDistribution(self.low, self.high, log=self.log)

    def parameter(self, value: Any) -> str | int | float | bool:
        """Return what Optuna knows a value as.

        Lists and tables are JSON. Fractional steps are counted, because sums of binary fractions
        miss the last one.
        """
        if self.choices:
            return value if isinstance(value, str | int | float) else json.dumps(value)
        if self.is_whole:
            return int(value)
        if self.step is not None:
            return round((value - self.low) / self.step)
        return float(value)

    def decode(self, parameter: Any) -> Any:
        """Return the recipe's value that Optuna's parameter stands for."""
        if self.choices:
            return next(value for value in self.choices if self.parameter(value) == parameter)
        if self.is_whole:
            return int(parameter)
        if self.step is not None:
            # 0.1 + 2 * 0.1 is not 0.3 without rounding.
            return float(f"{self.low + parameter * self.step:.12g}")
        return float(parameter)


@dataclass(frozen=True, slots=True)
class Space:
    """The axes of a search.

    Attributes:
        axes: one for each searched key.
        default: the recipe's own value of each key; None for a key that it does not have.
    """

    axes: tuple[Axis, ...]
    default: Values = field(default_factory=dict)

    @property
    def size(self) -> int | None:
        """Number of combinations; None if an axis is a continuum."""
        sizes = [axis.size for axis in self.axes]
        return None if None in sizes else math.prod(size for size in sizes if size is not None)

    @property
    def trials(self) -> int | None:
        """The most trials that differ from each other, the recipe itself included; None: no end."""
        if self.size is None:
            return None
        return self.size + (not self.contains(self.default))

    def contains(self, values: Mapping[str, Any]) -> bool:
        """Return whether every value is on its axis."""
        return all(axis.contains(values.get(axis.key)) for axis in self.axes)

    def points(self) -> Iterator[Values]:
        """Yield every combination; none if there are too many to list."""
        if self.size is None or self.size > _LARGEST_GRID:
            return
        for values in itertools.product(*(axis.values() for axis in self.axes)):
            yield {axis.key: value for axis, value in zip(self.axes, values, strict=True)}


def space_of(recipe: Recipe, completed: Recipe, search: Search) -> Space:
    """Return the space that a recipe's search covers.

    Args:
        recipe: the recipe, in which keys may be "auto".
        completed: the same recipe with nothing left open.
        search: its `[search]` section.

    Raises:
        RecipeError: a value is not valid for its key, is given twice, or a grid is asked for over
            a continuum.
    """
    own = completed.model_dump(mode="json")
    if search.ranges:
        axes = tuple(_axis(recipe, key, each) for key, each in search.ranges.items())
    else:
        rate = completed.optimizer.learning_rate
        assert isinstance(rate, float)  # noqa: S101 - completed
        axes = (Axis(LEARNING_RATE, low=rate / _FACTOR, high=rate * _FACTOR, log=True),)
    space = Space(axes, {axis.key: _value(own, axis.key) for axis in axes})
    if search.sampler == "grid":
        _require_grid(space)
    return space


def _axis(recipe: Recipe, key: str, values: Interval | tuple[Any, ...]) -> Axis:
    if not isinstance(values, Interval):
        choices: list[Any] = []
        for value in values:
            # As a complete recipe holds it, so that 0 is the recipe's own 0.0.
            complete = _value(_checked(recipe, key, value).model_dump(mode="json"), key)
            if complete in choices:
                raise RecipeError(f'search.ranges: "{key}": {value!r} is given twice')
            choices.append(complete)
        return Axis(key, choices=tuple(choices))
    is_whole = values.is_whole and not _accepts(recipe, key, values.low + 0.5)
    step = values.step
    if step is None and is_whole and not values.log:
        step = 1
    high = values.high
    if step is not None:
        high = values.low + math.floor((values.high - values.low) / step + 1e-9) * step
    for value in (values.low, high if step is None else values.low + step, high):
        _checked(recipe, key, value)
    return Axis(key, (), values.low, high, values.log, step, is_whole)


def _checked(recipe: Recipe, key: str, value: Any) -> Recipe:
    """Return the recipe with a value.

    Raises:
        RecipeError: the message names the key, the value and what is allowed.
    """
    plain = recipe.model_copy(update={"search": None})
    return change_recipe(plain, {key: value}, origin="search.ranges")


def _accepts(recipe: Recipe, key: str, value: Any) -> bool:
    try:
        _checked(recipe, key, value)
    except RecipeError:
        return False
    return True


def _value(table: Mapping[str, Any], key: str) -> Any:
    """Return the value of a dotted key; None if there is none."""
    value: Any = table
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _require_grid(space: Space) -> None:
    for axis in space.axes:
        if axis.size is None:
            raise RecipeError(
                f'search.sampler: a grid needs a list of values or a step for "{axis.key}"; give '
                'them in search.ranges, or use the sampler "tpe" or "random"'
            )
    if space.size is not None and space.size > _LARGEST_GRID:
        raise RecipeError(
            f"search.sampler: the grid has {space.size:,} points; at most {_LARGEST_GRID:,} are "
            'possible: list fewer values, or use the sampler "tpe" or "random"'
        )
