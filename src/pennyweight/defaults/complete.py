"""Complete a recipe: infer what the rows are, and derive every key that is "auto"."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pennyweight.budget.methods import AdapterSection
from pennyweight.data.shown import listed
from pennyweight.defaults.rules import RULES, Derived, Facts
from pennyweight.errors import RecipeError
from pennyweight.recipe import Recipe, resolve_recipe
from pennyweight.recipe.data import SourceTable
from pennyweight.recipe.plan_file import with_plan_file
from pennyweight.settings import find_base

# What reads rows is imported where it is used: a recipe that is complete needs no rows, and the
# libraries for them take longer to import than a plan.
if TYPE_CHECKING:
    from pennyweight.data.infer import Inferred

__all__ = ["Completed", "Reason", "complete", "is_completion"]

_AUTO = "auto"
# Derived from what the rules derive; see `pennyweight.defaults.prefix_cache`.
_CACHE = "train.prefix_cache"
_INFERRED = ("data.labels", "data.task", "data.label_separator")


@dataclass(frozen=True, slots=True)
class Reason:
    """A key that was derived, its value, and why it has this value."""

    key: str
    value: Any
    reason: str


@dataclass(frozen=True, slots=True)
class Completed:
    """A recipe in which nothing is left open.

    Attributes:
        recipe: without a key that is "auto"; the one that was given, if it was complete.
        reasons: what was inferred and derived, in the order of the recipe.
        notes: what users should know about how their file was read.
    """

    recipe: Recipe
    reasons: tuple[Reason, ...] = ()
    notes: tuple[str, ...] = ()

    def lines(self) -> Iterator[str]:
        """Yield the reasons and notes as lines of text."""
        for one in self.reasons:
            yield f"{one.key} = {_shown(one.value)}  ({one.reason})"
        yield from self.notes


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {inner}" for name, inner in value.items())
    return f"{value:g}" if isinstance(value, float) else str(value)


def complete(recipe: Recipe) -> Completed:
    """Return the recipe with its labels, task and columns inferred and its "auto" keys derived.

    The training rows are read only if something is open.

    Raises:
        RecipeError: something is open and the recipe names no training rows.
        DataError: the training rows cannot be read, or are not what a classifier can learn from.
        BaseModelError: the base cannot be found.
    """
    values = recipe.model_dump()
    open_keys = [key for key in (*RULES, _CACHE) if _value(values, key) == _AUTO]
    # The metric alone needs no look at the rows: the task decides where no rule does.
    has_rules_to_follow = bool(set(open_keys) - {"train.keep_best"})
    if recipe.data.labels is not None and recipe.data.task != _AUTO and not has_rules_to_follow:
        return Completed(recipe)
    if recipe.data.train is None:
        raise RecipeError(
            "data.train: missing; name the labelled training rows, for example --data train.csv"
        )
    from pennyweight.defaults.facts import read_facts

    inferred = _infer(recipe)
    recipe, reasons = _with_inferred(recipe, inferred)
    facts = read_facts(recipe, find_base(recipe, config_only=True), inferred)
    values = recipe.model_dump()
    for key, derived in _derived(values, open_keys, facts):
        values = _assigned(values, key, derived.value)
        if derived.reason:
            reasons.append(Reason(key, derived.value, derived.reason))
    return Completed(
        resolve_recipe(values), tuple(reasons), (*inferred.notes, *_notes(facts, inferred))
    )


def _derived(
    values: Mapping[str, Any], keys: Sequence[str], facts: Facts
) -> Iterator[tuple[str, Derived]]:
    """Yield the keys with what the rules derive for them, the cache last."""
    for key in keys:
        if key in RULES:
            derived = RULES[key](facts)
            values = _assigned(values, key, derived.value)
            yield key, derived
    if _CACHE in keys:
        from pennyweight.defaults.prefix_cache import derive_prefix_cache

        yield _CACHE, derive_prefix_cache(resolve_recipe(values), facts)


def is_completion(
    recipe: Recipe, original: Recipe, *, allocated: AdapterSection | None = None
) -> bool:
    """Return whether a recipe is another one with its open keys filled in; no row is read.

    Args:
        recipe: a complete recipe, such as that of a run.
        original: the recipe as it was written; may be complete as well.
        allocated: the `[adapter]` section from which a strategy made that of `recipe`; None if none
            did.

    Raises:
        RecipeError: the plan file of `original` cannot be used.
    """
    if allocated is not None and _fills(recipe.model_copy(update={"adapter": allocated}), original):
        return True
    named = original.model_copy(update={"adapter": with_plan_file(original.adapter)})
    return _fills(recipe, named)


def _fills(recipe: Recipe, original: Recipe) -> bool:
    filled, values = recipe.model_dump(), original.model_dump()
    for key in (*RULES, _CACHE, *_INFERRED):
        if _has(values, key) and _value(values, key) in (None, _AUTO):
            values = _assigned(values, key, _value(filled, key))
    if _names_columns_of(recipe.data.train, original.data.train):
        values = _assigned(values, "data.train", _value(filled, "data.train"))
    return values == filled


def _names_columns_of(source: SourceTable | None, original: SourceTable | None) -> bool:
    """Return whether a source is another one, apart from keys that the other leaves out."""
    if source is None or original is None:
        return False
    names = SourceTable.model_fields
    return all(getattr(original, name) in (None, getattr(source, name)) for name in names)


def _has(values: Mapping[str, Any], key: str) -> bool:
    section, name = key.split(".")
    return name in values[section]


def _value(values: Mapping[str, Any], key: str) -> Any:
    section, name = key.split(".")
    return values[section].get(name)


def _assigned(values: Mapping[str, Any], key: str, value: Any) -> dict[str, Any]:
    section, name = key.split(".")
    return {**values, section: {**values[section], name: value}}


def _infer(recipe: Recipe) -> Inferred:
    from pennyweight.data.infer import infer
    from pennyweight.settings.assemble import source_of

    data = recipe.data
    assert data.train is not None  # noqa: S101 - checked before
    return infer(
        source_of(data.train),
        task=data.task,
        label_separator=data.label_separator,
        labels=data.labels,
    )


def _with_inferred(recipe: Recipe, inferred: Inferred) -> tuple[Recipe, list[Reason]]:
    """Return the recipe with what was inferred; other sets are read like the training rows."""
    from pennyweight.settings.assemble import source_of

    data = recipe.data
    assert data.train is not None  # noqa: S101 - checked before
    train = SourceTable(**_fields(inferred.named(source_of(data.train))))

    changed = data.model_copy(
        update={
            "train": train,
            "labels": inferred.labels,
            "task": inferred.task,
            "label_separator": inferred.label_separator,
        }
    )
    recipe = recipe.model_copy(update={"data": changed})
    return resolve_recipe(recipe.model_dump()), list(_inferred_reasons(data.labels, inferred))


def _inferred_reasons(given: tuple[str, ...] | None, inferred: Inferred) -> Iterator[Reason]:
    columns = inferred.pair_columns or inferred.text_columns
    text = "a pair of texts" if inferred.pair_columns else "the text"
    way = "its content" if inferred.are_texts_by_content else "the names of the columns"
    yield Reason("data.train", ", ".join(columns), f"{text}, by {way}")
    if given is None:
        kind = "labels, any number for each row" if inferred.task == "multi-label" else "classes"
        yield Reason(
            "data.labels", f"{len(inferred.labels)} {kind}", f"from the file, {inferred.order}"
        )


def _fields(source: Any) -> dict[str, Any]:
    return {name: getattr(source, name) for name in SourceTable.model_fields}


def _notes(facts: Facts, inferred: Inferred) -> Iterator[str]:
    counts = dict(zip(inferred.labels, inferred.counts, strict=True))
    for number, rows in ((0, "no training row"), (1, "1 training row")):
        if rare := [label for label, count in counts.items() if count == number]:
            subject = f'class "{rare[0]}" has' if len(rare) == 1 else f"{len(rare)} classes have"
            which = "" if len(rare) == 1 else f" each ({listed(rare)})"
            yield f"{subject} {rows}{which}; add more, or merge with another class"
