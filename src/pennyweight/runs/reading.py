"""From a recipe's `[data]` and `[evaluate]` to rows, and from rows to tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import datasets
import numpy as np

from pennyweight.data.ingest import OnBadRow, Source
from pennyweight.data.splits import Reading, Splits, fingerprint_of, make_splits
from pennyweight.engine.batch import Tokens, tokenize
from pennyweight.environment import cache_directory
from pennyweight.recipe import Recipe
from pennyweight.recipe.data import SourceTable

__all__ = [
    "describe_splits",
    "labelled_rows",
    "read_splits",
    "reading_of",
    "source_of",
    "tokens_of",
]


def read_splits(recipe: Recipe, *, bad_rows: Path, say: Callable[[str], None]) -> Splits:
    """The rows that a run trains, chooses and is measured on, cleaned and checked for leaks.

    Args:
        recipe: with training rows named.
        bad_rows: folder for rows set aside.
        say: gets what is being done.

    Raises:
        DataError: a set cannot be read, or rows overlap and the recipe refuses that.
    """
    data, evaluate = recipe.data, recipe.evaluate
    assert data.train is not None  # noqa: S101 - checked before a run begins
    held_out = {"test": evaluate.test} if evaluate.test is not None else {}
    held_out |= evaluate.also
    return make_splits(
        source_of(data.train),
        validation=source_of(data.validation) if data.validation is not None else None,
        held_out={name: source_of(source) for name, source in held_out.items()},
        reading=reading_of(recipe, bad_rows=bad_rows),
        validation_fraction=data.validation_fraction,
        train_rows=data.train_rows,
        overlap=data.overlap,
        similarity=data.near_duplicate_similarity,
        seed=recipe.seed,
        target=source_of(data.target) if data.target is not None else None,
        say=say,
    )


def reading_of(
    recipe: Recipe, *, bad_rows: Path, on_bad_row: OnBadRow | None = None
) -> Reading:
    """How a recipe's rows are read; `on_bad_row` replaces what the recipe says of them."""
    return Reading(
        labels=recipe.data.labels,
        clean=recipe.data.clean,
        on_bad_row=on_bad_row or recipe.data.on_bad_row,
        cache=cache_directory() / "rows",
        bad_rows=bad_rows,
    )


def describe_splits(splits: Splits) -> Iterator[str]:
    """What was read, set aside and removed, line by line."""
    sizes = ", ".join(f"{name} {facts['rows']:,}" for name, facts in splits.facts.items())
    yield f"rows: {sizes}"
    for name, facts in splits.facts.items():
        if facts["bad_rows_file"] and name != "validation":
            yield f"{name}: {facts['rows_set_aside']} bad rows in {facts['bad_rows_file']}"
    for found in splits.overlaps:
        if found.exact or found.near:
            yield (
                f"{found.one} and {found.other}: {found.exact} exact and "
                f"{found.near} near duplicates"
            )
    for leak in splits.leaks:
        yield f"LEAKS: {leak}"
    if splits.removed:
        yield f"removed from train, because they stand in a held-out set: {splits.removed}"


def tokens_of(
    rows: datasets.Dataset, tokenizer: Any, *, max_tokens: int, cache: Path | None = None
) -> Tokens:
    """Cleaned rows as tokens, kept by the rows' fingerprint; in the user's cache, if not told."""
    return tokenize(
        rows,
        fingerprint=fingerprint_of(rows),
        tokenizer=tokenizer,
        max_tokens=max_tokens,
        cache=cache or cache_directory() / "tokens",
    )


def labelled_rows(texts: list[str], labels: np.ndarray) -> datasets.Dataset:
    """Texts and the indices of their classes, -1 where there is none, as rows to train on."""
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.Value("int64")}
    )
    values = {"text": texts, "label": labels.tolist()}
    return datasets.Dataset.from_dict(values, features=features)


def source_of(table: SourceTable) -> Source:
    """A recipe's source as the plain value that readers take."""
    return Source(**dict(table))
