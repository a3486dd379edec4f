"""The verbs of `pennyweight data`: single steps of row preparation, on a recipe's own rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from itertools import combinations, groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa

from pennyweight.data.clean import cleaner
from pennyweight.data.infer import Inferred, infer
from pennyweight.data.ingest import ReadOptions, read_rows
from pennyweight.data.overlap import Overlap, find_overlap
from pennyweight.data.source import Source
from pennyweight.data.splits import Splits, fingerprint_of, make_splits
from pennyweight.defaults import complete
from pennyweight.environment import cache_directory
from pennyweight.errors import DataError, RecipeError
from pennyweight.lab.fine_tuning import FineTuning, FineTuningStep
from pennyweight.lab.language_model import LanguageModel, ModelSize
from pennyweight.lab.manifest import with_class_names, write_derived
from pennyweight.recipe import Recipe
from pennyweight.settings.assemble import settings_of
from pennyweight.settings.values import RowSettings, Settings
from pennyweight.training.generation import check_generation, generate_rows
from pennyweight.training.rows import PreparedRows, RowContext, prepare_rows

__all__ = [
    "augment_rows",
    "clean_rows",
    "count_overlaps",
    "filter_rows",
    "infer_rows",
    "preview",
    "train_language_model",
    "write_generated",
]

Log = Callable[[str], None]


def preview(recipe: Recipe, *, rows: int) -> Iterator[tuple[str, str]]:
    """Yield the first training texts that cleaning changes, before and after.

    Labels are not read, so the recipe need not name them.

    Raises:
        DataError: the training rows cannot be read.
        RecipeError: the recipe names no training rows.
    """
    data = recipe.data
    options = ReadOptions(
        labels=data.labels or (),
        clean=(),
        on_bad_row=data.on_bad_row,
        cache=cache_directory() / "rows",
    )
    table = read_rows("train", _train_source(recipe), options, labelled=False).table
    clean = cleaner(data.clean)
    shown = 0
    for row in table:
        for column in ("text", "text_pair"):
            if column in row and shown < rows and (after := clean(row[column])) != row[column]:
                yield row[column], after
                shown += 1
        if shown >= rows:
            return


def infer_rows(recipe: Recipe) -> Inferred:
    """Return what the training rows are; see `pennyweight.data.infer`.

    Raises:
        DataError: the training rows cannot be read, or they are not classes.
        RecipeError: the recipe names no training rows.
    """
    data = recipe.data
    return infer(
        _train_source(recipe),
        task=data.task,
        label_separator=data.label_separator,
        labels=data.labels,
    )


def _train_source(recipe: Recipe) -> Source:
    if recipe.data.train is None:
        raise RecipeError(
            "data.train: missing; name the labelled training rows, for example "
            "--set data.train=train.csv"
        )
    return Source(**dict(recipe.data.train))


def clean_rows(recipe: Recipe, *, out: Path) -> dict[str, Any]:
    """Write the training rows, cleaned, in constant memory.

    Raises:
        DataError: they cannot be read or written.
    """
    data = _settings_for(recipe, out).data
    rows = read_rows("train", data.sources.train, _read_options(data.read, out))
    facts = {"clean": list(data.read.clean), "source": rows.source, "set_aside": rows.bad}
    return _write(out, rows.table, data.read.labels, facts)


def filter_rows(recipe: Recipe, *, out: Path, log: Log) -> dict[str, Any]:
    """Write the training rows that the recipe's filters keep, and beside them the removed ones."""
    settings = _settings_for(recipe, out)
    prepared, splits = _prepared(settings, out, log, augment=False)
    if settings.data.sources.validation is None:
        log(
            f"left out before the filters: {len(splits.validation):,} rows that are split off for "
            f"validation (data.validation_fraction), and {splits.removed:,} that are also in "
            "another set (data.overlap)"
        )
    elif splits.removed:
        log(f"left out before the filters: {splits.removed:,} rows that are also in another set")
    if not settings.rows.filters:
        log(
            "data.filters: empty, so no other row is left out; add one, for example "
            "--set 'data.filters=[{method=\"duplicates\"}]'"
        )
    steps = [step.model_dump(exclude_none=True) for step in prepared.steps]
    facts = {"steps": steps, "set_aside": splits.sets["train"].rows_set_aside}
    return _write(out, prepared.table, settings.labels, facts)


def augment_rows(recipe: Recipe, *, out: Path, log: Log) -> dict[str, Any]:
    """Write the changed copies that the recipe's augmentations produce, for `data.extra`.

    Raises:
        RecipeError: the recipe has no augmentation.
    """
    settings = _settings_for(recipe, out)
    if not settings.rows.augmentations:
        raise RecipeError(
            "data.augmentations: empty, so there is nothing to produce; add one, for example "
            "--set 'data.augmentations=[{method=\"swap\"}]'"
        )
    prepared, splits = _prepared(settings, out, log, augment=True)
    kept = len(splits.train) - sum(step.removed or 0 for step in prepared.steps)
    return _write(
        out,
        prepared.table.select(range(kept, len(prepared.table))),
        settings.labels,
        {
            "seed": settings.seed,
            "augmentations": [asdict(step) for step in settings.rows.augmentations],
            "parents": fingerprint_of(prepared.table.select(range(kept))),
        },
    )


def write_generated(recipe: Recipe, *, out: Path, log: Log) -> dict[str, Any]:
    """Write the rows that the recipe's `[generate]` produces, with their provenance.

    Raises:
        RecipeError: the recipe has no `[generate]` section.
    """
    settings = _settings_for(recipe, out)
    if settings.rows.generation is None:
        raise RecipeError(
            "generate: missing; the recipe has no [generate] section, for example "
            "--set generate.model=gpt2"
        )
    check_generation(settings.rows.generation, settings.labels)
    prepared, splits = _prepared(settings, out, log, augment=False)
    derived = generate_rows(
        settings.rows.generation, prepared.table, splits, settings.labels, log=log
    )
    rows = with_class_names(derived.rows, settings.labels)
    return dict(write_derived(out, rows, derived.manifest).manifest)


def count_overlaps(recipe: Recipe, *, log: Log) -> list[Overlap]:
    """Count what every two sets of a recipe share, extra rows and the target among them."""
    settings = _settings(recipe)
    similarity = settings.data.overlap.similarity
    # Nothing is removed or refused here, only counted.
    keep = replace(settings.data, overlap=replace(settings.data.overlap, rule="keep"))
    splits = _read_splits(replace(settings, data=keep), log)
    sets = {"train": splits.train, **splits.labelled}
    if splits.target is not None:
        sets["target"] = splits.target
    for name in settings.rows.extra:
        sets[name] = datasets.Dataset.from_parquet(name)
    known = {frozenset((overlap.one, overlap.other)): overlap for overlap in splits.overlaps}
    pairs = [pair for pair in combinations(sets, 2) if frozenset(pair) not in known]
    for one, missing in groupby(pairs, key=itemgetter(0)):
        others = {other: sets[other] for _, other in missing}
        for overlap in find_overlap(one, sets[one], others, similarity=similarity):
            known[frozenset((overlap.one, overlap.other))] = overlap
    return [known[frozenset(pair)] for pair in combinations(sets, 2)]


def train_language_model(
    source: Source, *, out: Path, epochs: float, size: ModelSize, seed: int, log: Log
) -> None:
    """Train a tokenizer and a small GPT-2 on texts from scratch, and save them in the hub's format.

    Raises:
        DataError: the directory is not empty, the epochs are not above 0, or the texts cannot be
            read.
    """
    if not epochs > 0:
        raise DataError(f"--epochs {epochs:g}: give a number above 0")
    if out.exists() and any(out.iterdir()):
        raise DataError(f"--out {out}: not empty; name a new directory")
    options = ReadOptions(
        labels=("",), clean=(), on_bad_row="stop", cache=cache_directory() / "rows"
    )
    texts = read_rows("texts", source, options, labelled=False).table["text"][:]
    model = LanguageModel.untrained(texts, size, seed=seed)

    def show(step: FineTuningStep) -> None:
        if step.step == step.last or step.step % 50 == 0:
            log(step.describe())

    model.fit(texts, FineTuning(epochs=epochs, learning_rate=1e-3, seed=seed), on_step=show)
    model.save(out)


def _settings(recipe: Recipe) -> Settings:
    return settings_of(complete(recipe).recipe)


def _settings_for(recipe: Recipe, out: Path) -> Settings:
    """Return the settings of a step that writes rows, after a look at where it is to write.

    Raises:
        DataError: the name does not end with .parquet, or is that of a file of the recipe.
    """
    if out.suffix != ".parquet":
        raise DataError(f"--out {out}: rows are written as Parquet; end the name with .parquet")
    settings = _settings(recipe)
    sources = settings.data.sources
    given = [sources.train, sources.validation, sources.target, *sources.held_out.values()]
    paths = [Path(each.location).expanduser() for each in given if each is not None]
    for path in (*paths, *map(Path, settings.rows.extra)):
        if out.exists() and path.exists() and path.samefile(out):
            raise DataError(
                f"--out {out}: a file of the recipe, which stays as it is; name another"
            )
    return settings


def _prepared(
    settings: Settings, out: Path, log: Log, *, augment: bool
) -> tuple[PreparedRows, Splits]:
    """Return the split's training rows after filters and, if asked for, augmentations alone."""
    data = replace(settings.data, read=_read_options(settings.data.read, out))
    splits = _read_splits(replace(settings, data=data), log)
    steps = RowSettings(
        filters=settings.rows.filters,
        augmentations=settings.rows.augmentations if augment else (),
        extra=(),
        generation=None,
        self_training=None,
        consistency_rows=0,
        density_ratio=None,
        label_smoothing=0.0,
    )
    removed = out.with_name(out.stem) / "removed"
    context = RowContext(settings.labels, settings.seed, removed, log)
    return prepare_rows(splits, steps, context), splits


def _read_splits(settings: Settings, log: Log) -> Splits:
    data = settings.data
    return make_splits(
        data.sources, read=data.read, split=data.split, overlap=data.overlap, log=log
    )


def _read_options(options: ReadOptions, out: Path) -> ReadOptions:
    return replace(options, bad_rows=out.with_name(out.stem + ".bad_rows"))


def _write(
    out: Path, rows: datasets.Dataset, labels: Sequence[str], manifest: Mapping[str, Any]
) -> dict[str, Any]:
    """Write rows with the names of their classes, and return their manifest."""
    columns = [name for name in ("text", "text_pair", "label") if name in rows.column_names]
    # A table with its own order of rows is brought into it first.
    plain = rows if rows._indices is None else rows.flatten_indices()
    table = pa.table({name: plain.data.column(name) for name in columns})
    facts = {"labels": list(labels), **manifest}
    return dict(write_derived(out, with_class_names(table, labels), facts).manifest)
