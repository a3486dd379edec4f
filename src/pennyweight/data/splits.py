"""Read the sets of a run, split validation rows off, and look for rows that two sets share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import datasets
import numpy as np

from pennyweight.data.compare import find_overlaps, missing_labels, remembered_conflicts
from pennyweight.data.fingerprint import fingerprint_of
from pennyweight.data.hash_split import is_held_out
from pennyweight.data.ingest import ReadOptions, Rows, copy_bad_rows, read_rows
from pennyweight.data.overlap import Overlap, OverlapCount, OverlapPolicy, folded_texts
from pennyweight.data.scale import MANY_ROWS
from pennyweight.data.shown import listed
from pennyweight.data.source import Source, locate
from pennyweight.data.stratify import label_counts, largest_split, split_rows, strata_of
from pennyweight.data.subset import SetFacts, Subset
from pennyweight.errors import DataError

__all__ = [
    "Overlap",
    "OverlapCount",
    "OverlapPolicy",
    "ReadOptions",
    "SetFacts",
    "SourceSet",
    "SplitOptions",
    "Splits",
    "check_sources",
    "deliver_bad_rows",
    "fingerprint_of",
    "make_splits",
    "read_rows",
]


@dataclass(frozen=True, slots=True)
class SourceSet:
    """The sources of a run.

    Attributes:
        train: labelled training rows.
        validation: labelled validation rows; None to split them off the training rows.
        held_out: labelled evaluation rows, by the name of the set.
        target: unlabelled text from where the model will be used; None if there is none.
    """

    train: Source
    validation: Source | None = None
    held_out: Mapping[str, Source] = field(default_factory=dict)
    target: Source | None = None

    @property
    def labelled(self) -> dict[str, Source]:
        """The labelled sources by the name of their set."""
        sources = {"train": self.train, "validation": self.validation, **self.held_out}
        return {name: source for name, source in sources.items() if source is not None}


@dataclass(frozen=True, slots=True)
class SplitOptions:
    """How the training rows are divided.

    Attributes:
        validation_fraction: share of the training rows, below 1, that is split off for validation;
            0 for no validation rows. Unused if validation has a source of its own.
        train_rows: number of rows to train on, drawn without replacement; None for all.
        seed: seed of the split and of the draw.
        method: how validation rows are chosen: "stratified" by class, by a "hash" of their text, or
            "auto": by a hash where there are more than `MANY_ROWS` training rows.
    """

    validation_fraction: float
    train_rows: int | None
    seed: int
    method: Literal["auto", "stratified", "hash"] = "auto"

    def method_for(self, rows: int) -> Literal["stratified", "hash"] | None:
        """Return how validation rows are chosen among this many rows; None if they are not."""
        if not self.validation_fraction:
            return None
        if self.method == "auto":
            return "hash" if rows > MANY_ROWS else "stratified"
        return self.method


@dataclass(frozen=True, slots=True)
class Splits:
    """The sets of a run, memory-mapped, and the facts about them.

    Attributes:
        train: rows to train on, without removed overlaps.
        validation: rows that select checkpoints and settings; may be empty.
        held_out: evaluation sets by name.
        removed: number of training rows removed because a held-out set or validation has them.
        overlaps: rows that two sets share, for each pair of sets that was compared.
        sets: facts by the name of the set, for the record.
        target: unlabelled text from where the model will be used; None if there is none.
        dropped_from_validation: number of validation rows, split off the training rows, that were
            left out because a held-out set has them.
        notes: what a user should know about the rows, one sentence each; they have been logged.
        split: how validation rows were split off the training rows; None if they were not.
    """

    train: datasets.Dataset
    validation: datasets.Dataset
    held_out: Mapping[str, datasets.Dataset]
    removed: int
    overlaps: tuple[Overlap, ...]
    sets: Mapping[str, SetFacts]
    target: datasets.Dataset | None = None
    dropped_from_validation: int = 0
    notes: tuple[str, ...] = ()
    split: Literal["stratified", "hash"] | None = None

    @property
    def labelled(self) -> dict[str, datasets.Dataset]:
        """The sets to evaluate on: validation and the held-out sets."""
        return {"validation": self.validation, **self.held_out}

    @property
    def leaks(self) -> tuple[str, ...]:
        """One sentence for each held-out set that shares rows with validation or training."""
        return tuple(
            f"{overlap.exact} rows of {overlap.one} are also in {overlap.other}, so accuracy on "
            f"{overlap.other} is not a fair measure"
            for overlap in self.overlaps
            if overlap.exact
            and overlap.other in self.held_out
            and (
                (overlap.one == "validation" and not self.dropped_from_validation)
                or (overlap.one == "train" and not self.removed)
            )
        )


def check_sources(sources: SourceSet) -> None:
    """Check that every source exists and has a known format, without reading rows.

    Raises:
        DataError: one of them does not exist, or its format cannot be detected.
    """
    for source in (*sources.labelled.values(), sources.target):
        if source is not None:
            locate(source)


def make_splits(
    sources: SourceSet,
    *,
    read: ReadOptions,
    split: SplitOptions,
    overlap: OverlapPolicy,
    log: Callable[[str], None] = lambda _: None,
) -> Splits:
    """Read all sets, split validation rows off, and look for rows that two sets share.

    No label of the target is read, even if its file has some. Overlaps are counted whatever
    `overlap.rule` says, and remembered in `read.cache` for the same rows. Validation rows that were
    split off the training rows are left out if a held-out set has them.

    Args:
        sources: where the sets come from; all of them are checked before the first is read.
        read: how rows are read.
        split: how the training rows are divided.
        overlap: how overlaps are counted, and whether they are removed.
        log: receives progress lines and notes.

    Raises:
        DataError: a set cannot be read, too few rows would be left to train on, or training rows
            are in a held-out set and `overlap.rule` is "refuse".
    """
    check_sources(sources)
    rows = _read_sets(sources, read)
    sets = {name: Subset(each, each.table) for name, each in rows.items()}
    notes = [each.note for each in rows.values()]
    method = split.method_for(len(sets["train"].table)) if sources.validation is None else None
    if sources.validation is None:
        divide = _split_by_hash if method == "hash" else _split_stratified
        sets["train"], sets["validation"], more = divide(
            sets["train"], labels=read.labels, options=split
        )
        notes += more
    log("looking for rows that are in two sets")
    overlaps = find_overlaps(sets, list(sources.held_out), overlap.similarity, read.cache)
    sets["train"], removed = _apply_rule(sets["train"], overlaps, policy=overlap)
    dropped = 0
    if sources.validation is None:
        sets["validation"], dropped = _drop_held_out(sets["validation"], overlaps, policy=overlap)
    notes.append(_describe_dropped(dropped))
    sets["train"] = _draw(sets["train"], options=split)
    notes += _labels_to_note(sets, read)
    for note in filter(None, notes):
        log(note)
    return Splits(
        train=sets["train"].table,
        validation=sets["validation"].table,
        held_out={name: sets[name].table for name in sources.held_out},
        removed=removed,
        overlaps=tuple(overlaps),
        sets={name: subset.facts() for name, subset in sets.items()},
        target=sets["target"].table if "target" in sets else None,
        dropped_from_validation=dropped,
        notes=tuple(filter(None, notes)),
        split=method,
    )


def _read_sets(sources: SourceSet, read: ReadOptions) -> dict[str, Rows]:
    """Read all sets; the training rows decide whether rows are pairs of texts."""
    rows: dict[str, Rows] = {}
    for name, source in sources.labelled.items():
        rows[name] = read_rows(name, source, read)
        read = replace(read, pairs=rows["train"].are_pairs)
    if sources.target is not None:
        rows["target"] = read_rows("target", sources.target, read, labelled=False)
    return rows


def _labels_to_note(sets: Mapping[str, Subset], read: ReadOptions) -> list[str]:
    """Return sentences about texts under different labels, and about labels that a set lacks."""
    train = sets["train"]
    conflicts = remembered_conflicts(train, read.cache)
    labelled = {name: subset for name, subset in sets.items() if name != "target"}
    return [
        conflicts.describe(train.rows.source),
        *(missing_labels(name, each.table, read.labels) for name, each in labelled.items()),
    ]


def deliver_bad_rows(splits: Splits, folder: Path) -> Splits:
    """Copy the bad rows of every set to `folder/NAME.jsonl`, and return splits with the new paths.

    Sets that come from the same source share one file, named after the first of them. Use this
    for splits that were read with `ReadOptions.bad_rows=None`, once the folder may be created.

    Raises:
        DataError: a file cannot be copied.
    """
    copies: dict[str, str] = {}
    sets = dict(splits.sets)
    for name, facts in splits.sets.items():
        if facts.bad_rows_file is None:
            continue
        if facts.bad_rows_file not in copies:
            copies[facts.bad_rows_file] = str(folder / f"{name}.jsonl")
            copy_bad_rows(Path(facts.bad_rows_file), folder / f"{name}.jsonl")
        sets[name] = replace(facts, bad_rows_file=copies[facts.bad_rows_file])
    return replace(splits, sets=sets)


def _split_by_hash(
    train: Subset, *, labels: tuple[str, ...], options: SplitOptions
) -> tuple[Subset, Subset, list[str]]:
    """Split validation rows off the training rows by a hash of their text, and return notes."""
    fraction, rows = options.validation_fraction, len(train.table)
    held_out = is_held_out(folded_texts(train.table), fraction, seed=options.seed)
    kept, validation = (train.select(np.flatnonzero(each)) for each in (~held_out, held_out))
    has_lost = label_counts(train.table, len(labels)) > 0
    has_lost &= label_counts(kept.table, len(labels)) == 0
    if has_lost.any() or not len(validation.table):
        problem = "has no row for validation"
        if has_lost.any():
            lost = [label for label, is_lost in zip(labels, has_lost, strict=True) if is_lost]
            problem = f"leaves no training row of {listed(lost)}"
        raise DataError(
            f"data.split: a split of {rows:,} rows by hash, with data.validation_fraction "
            f'{fraction}, {problem}; set data.split = "stratified"'
        )
    note = (
        f"validation: {len(validation.table):,} of {rows:,} rows are split off by a hash of their "
        "text, so that copies of a text are in the same set"
    )
    return kept, validation, [note]


def _split_stratified(
    train: Subset, *, labels: tuple[str, ...], options: SplitOptions
) -> tuple[Subset, Subset, list[str]]:
    """Split validation rows off the training rows, stratified by class, and return notes."""
    strata = strata_of(train.table, len(labels))
    fraction, rows = options.validation_fraction, len(train.table)
    most, divided = largest_split(strata)
    count = 0
    if fraction and most:
        # One row of every class, unless that would be a large part of all rows.
        count = max(1, min(divided, rows // 5), round(fraction * rows))
    if count > most:
        raise DataError(
            f"data.validation_fraction: {fraction} of {rows} rows leaves fewer than "
            "one training row per class; lower it, or set data.validation"
        )
    counts = label_counts(train.table, len(labels))
    single = [label for label, count in zip(labels, counts, strict=True) if count == 1]
    notes = []
    if fraction and single:
        notes.append(f"train: labels with a single row, which stays in training: {listed(single)}")
    validation = split_rows(strata, count, seed=options.seed)
    kept = train.select(_others(rows, validation)) if count else train
    return kept, train.select(validation), notes


def _drop_held_out(
    validation: Subset, overlaps: Sequence[Overlap], *, policy: OverlapPolicy
) -> tuple[Subset, int]:
    """Return the validation rows, split off the training rows, that no held-out set has.

    Raises:
        DataError: there are others, and the rule is "refuse".
    """
    shared = [overlap for overlap in overlaps if overlap.one == "validation" and overlap.exact]
    if not shared:
        return validation, 0
    if policy.rule == "refuse":
        raise _refusal(shared)
    dropped = np.unique(np.concatenate([overlap.exact_rows for overlap in shared]))
    return validation.select(_others(len(validation.table), dropped)), len(dropped)


def _describe_dropped(rows: int) -> str:
    """Return a sentence about validation rows that were left out; "" if none were."""
    if not rows:
        return ""
    return (
        f"validation: {rows:,} of the rows that were split off are also in an evaluation set, and "
        "are left out"
    )


def _apply_rule(
    train: Subset, overlaps: Sequence[Overlap], *, policy: OverlapPolicy
) -> tuple[Subset, int]:
    """Return the training rows that the rule leaves, and the number of removed rows."""
    leaking = [overlap for overlap in overlaps if overlap.one == "train" and overlap.exact]
    if policy.rule == "refuse" and leaking:
        raise _refusal(leaking)
    if policy.rule != "remove" or not leaking:
        return train, 0
    removed = np.unique(np.concatenate([overlap.exact_rows for overlap in leaking]))
    kept = _others(len(train.table), removed)
    if len(kept) == 0:
        raise DataError(
            "data.train: every row is also in validation or a held-out set, so no row is left to "
            "train on; name other rows"
        )
    return train.select(kept), len(removed)


def _others(rows: int, removed: np.ndarray) -> np.ndarray:
    """Return the indices below `rows` that are not removed, ascending."""
    is_kept = np.ones(rows, dtype=bool)
    is_kept[removed] = False
    return np.flatnonzero(is_kept)


def _refusal(overlaps: Sequence[Overlap]) -> DataError:
    counts = ", ".join(f"{overlap.exact} in {overlap.other}" for overlap in overlaps)
    return DataError(
        f'data.overlap: "refuse" was given, but training rows are also in other sets: '
        f'{counts}; set data.overlap = "remove" to leave them out of training'
    )


def _draw(train: Subset, *, options: SplitOptions) -> Subset:
    """Draw `options.train_rows` rows, in their original order."""
    if options.train_rows is None or options.train_rows >= len(train.table):
        return train
    generator = np.random.default_rng((options.seed, 1))
    return train.select(np.sort(generator.permutation(len(train.table))[: options.train_rows]))
