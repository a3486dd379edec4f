"""`pennyweight data`: the lab's steps one by one, on a recipe's own rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import combinations, groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa

from pennyweight.data.clean import cleaner
from pennyweight.data.ingest import Source, ingest
from pennyweight.data.overlap import Overlap, find_overlap
from pennyweight.data.splits import Splits, fingerprint_of, read_rows
from pennyweight.environment import cache_directory
from pennyweight.errors import DataError, RecipeError
from pennyweight.lab.language_model import LanguageModel
from pennyweight.lab.manifest import write_made
from pennyweight.recipe import Recipe
from pennyweight.runs.generating import generate_rows
from pennyweight.runs.lab import Prepared, prepare_rows
from pennyweight.runs.reading import read_splits, reading_of, source_of

__all__ = [
    "clean_rows",
    "count_overlaps",
    "filter_rows",
    "made_rows",
    "preview",
    "train_language_model",
    "write_generated",
]

Say = Callable[[str], None]


def preview(recipe: Recipe, *, rows: int) -> Iterator[tuple[str, str]]:
    """The first training texts that cleaning changes, before and after."""
    found = ingest(_train(recipe), labels=recipe.data.labels, cache=cache_directory() / "rows")
    clean = cleaner(recipe.data.clean)
    shown = 0
    for text in found.table["text"]:
        after = clean(text)
        if after != text:
            yield text, after
            shown += 1
        if shown == rows:
            return


def clean_rows(recipe: Recipe, *, out: Path) -> dict[str, Any]:
    """Write the training rows, cleaned; memory does not grow with them.

    Raises:
        DataError: they cannot be read or written.
    """
    reading = reading_of(recipe, bad_rows=_bad_rows(out))
    found = read_rows("train", _train(recipe), reading)
    return _write(out, found.table, {"clean": list(recipe.data.clean), "source": found.source})


def filter_rows(recipe: Recipe, *, out: Path, say: Say) -> dict[str, Any]:
    """Write the training rows that the recipe's filters keep, and beside them the removed ones."""
    prepared, _ = _prepared(recipe, out, say, keep=("filters",))
    return _write(out, prepared.rows, {"steps": prepared.facts})


def made_rows(recipe: Recipe, *, out: Path, say: Say) -> dict[str, Any]:
    """Write the changed copies that the recipe's augmentations make, for `data.extra`."""
    if not recipe.data.augmentations:
        raise RecipeError("data.augmentations: empty; nothing would be made")
    prepared, splits = _prepared(recipe, out, say, keep=("filters", "augmentations"))
    kept = len(splits.train) - sum(f["removed"] for f in prepared.facts if "removed" in f)
    return _write(
        out,
        prepared.rows.select(range(kept, len(prepared.rows))),
        {
            "labels": list(recipe.data.labels),
            "seed": recipe.seed,
            "augmentations": [step.model_dump() for step in recipe.data.augmentations],
            "parents": fingerprint_of(prepared.rows.select(range(kept))),
        },
    )


def write_generated(recipe: Recipe, *, out: Path, say: Say) -> dict[str, Any]:
    """Write the rows that the recipe's `[generate]` gives, with their provenance."""
    prepared, splits = _prepared(recipe, out, say, keep=("filters",))
    made = generate_rows(recipe, prepared.rows, splits, say=say)
    write_made(out, made.rows, made.manifest)
    return dict(made.manifest)


def count_overlaps(recipe: Recipe, *, say: Say) -> list[Overlap]:
    """What every two sets of a recipe share, extra rows and the target among them."""
    # Counting takes nothing out and refuses nothing.
    data = recipe.data.model_copy(update={"overlap": "keep"})
    recipe = recipe.model_copy(update={"data": data})
    splits = read_splits(recipe, bad_rows=cache_directory() / "bad_rows", say=say)
    sets = {"train": splits.train, **splits.labelled}
    if splits.target is not None:
        sets["target"] = splits.target
    for name in recipe.data.extra:
        sets[name] = datasets.Dataset.from_parquet(name)
    known = {frozenset((found.one, found.other)): found for found in splits.overlaps}
    similarity = recipe.data.near_duplicate_similarity
    pairs = [pair for pair in combinations(sets, 2) if frozenset(pair) not in known]
    for one, new in groupby(pairs, key=itemgetter(0)):
        others = {other: sets[other] for _, other in new}
        for found in find_overlap(one, sets[one], others, similarity=similarity):
            known[frozenset((found.one, found.other))] = found
    return [known[frozenset(pair)] for pair in combinations(sets, 2)]


def train_language_model(
    source: Source, *, out: Path, epochs: float, options: dict[str, int], seed: int, say: Say
) -> None:
    """Train a tokenizer and a small GPT-2 on texts from nothing, into the hub's format.

    Raises:
        DataError: the directory is not empty, or the texts cannot be read.
    """
    if out.exists() and any(out.iterdir()):
        raise DataError(f"--out {out}: not empty; name a new directory")
    found = ingest(source, labels=("",), cache=cache_directory() / "rows", labelled=False)
    texts = found.table["text"][:]
    model = LanguageModel.untrained(texts, seed=seed, **options)

    def show(step: int, last: int, loss: float) -> None:
        if step == last or step % 50 == 0:
            say(f"step {step} of {last}, loss {loss:.3f}")

    model.fit(texts, epochs=epochs, learning_rate=1e-3, seed=seed, on_step=show)
    model.save(out)


def _train(recipe: Recipe) -> Source:
    if recipe.data.train is None:
        raise RecipeError("data.train: missing; name the rows, as in --set data.train=train.csv")
    return source_of(recipe.data.train)


def _prepared(
    recipe: Recipe, out: Path, say: Say, *, keep: tuple[str, ...]
) -> tuple[Prepared, Splits]:
    """The split's training rows after some of the steps alone."""
    _train(recipe)
    dropped = {"filters": (), "augmentations": (), "extra": ()}
    data = recipe.data.model_copy(
        update={key: value for key, value in dropped.items() if key not in keep}
    )
    alone = recipe.model_copy(update={"data": data, "generate": None, "transduction": None})
    splits = read_splits(recipe, bad_rows=_bad_rows(out), say=say)
    return prepare_rows(alone, splits, out=out.with_name(out.stem), say=say), splits


def _bad_rows(out: Path) -> Path:
    return out.with_name(out.stem + ".bad_rows")


def _write(out: Path, rows: datasets.Dataset, manifest: dict[str, Any]) -> dict[str, Any]:
    if out.suffix != ".parquet":
        raise DataError(f"--out {out}: rows are written as Parquet; end the name with .parquet")
    table = pa.table(
        {
            "text": pa.chunked_array(rows.data.column("text").chunks)
            if rows._indices is None
            else pa.array(rows["text"][:]),
            "label": pa.array(np.asarray(rows["label"][:])),
        }
    )
    write_made(out, table, manifest)
    return {**manifest, "rows": len(rows)}
