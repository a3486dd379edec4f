"""Read the sets of a run, split validation rows off, and look for rows that two sets share."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path

import datasets
import numpy as np

from pennyweight.data.fingerprint import fingerprint_of
from pennyweight.data.ingest import ReadOptions, Rows, copy_bad_rows, read_rows
from pennyweight.data.overlap import (
    Overlap,
    OverlapCount,
    OverlapPolicy,
    TextIndex,
    count_matches,
)
from pennyweight.data.source import Source, locate
from pennyweight.errors import DataError
from pennyweight.files import replacing

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
        validation_fraction: share of the training rows, between 0 and 1, that is split off for
            validation, stratified by class; unused if validation has a source of its own.
        train_rows: number of rows to train on, drawn without replacement; None for all.
        seed: seed of the split and of the draw.
    """

    validation_fraction: float
    train_rows: int | None
    seed: int


@dataclass(frozen=True, slots=True)
class SetFacts:
    """Facts about one set, for the run record.

    Attributes:
        source: the source's name in messages.
        format: a name in `read.READERS`, or "hub".
        rows: number of rows in the set.
        rows_set_aside: number of bad rows in the source.
        bad_rows_file: path of the file with the bad rows; None if there are none.
        fingerprint: `fingerprint_of` the set's rows.
    """

    source: str
    format: str
    rows: int
    rows_set_aside: int
    bad_rows_file: str | None
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Splits:
    """The sets of a run, memory-mapped, and the facts about them.

    Attributes:
        train: rows to train on, without removed overlaps.
        validation: rows that select checkpoints and settings.
        held_out: evaluation sets by name.
        removed: number of training rows removed because a held-out set or validation has them.
        overlaps: rows that two sets share, for each pair of sets that was compared.
        sets: facts by the name of the set, for the record.
        target: unlabelled text from where the model will be used; None if there is none.
    """

    train: datasets.Dataset
    validation: datasets.Dataset
    held_out: Mapping[str, datasets.Dataset]
    removed: int
    overlaps: tuple[Overlap, ...]
    sets: Mapping[str, SetFacts]
    target: datasets.Dataset | None = None

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
            and (overlap.one == "validation" or (overlap.one == "train" and not self.removed))
        )


@dataclass(frozen=True, slots=True)
class _Subset:
    """All rows of a source, or some of them.

    Attributes:
        rows: the source's rows.
        table: the rows of the subset.
        indices: their positions in the source's table, ascending; None if `table` is all of it.
    """

    rows: Rows
    table: datasets.Dataset
    indices: np.ndarray | None = None

    def select(self, positions: np.ndarray) -> _Subset:
        """Return the rows at these positions of the subset, which must ascend."""
        indices = positions if self.indices is None else self.indices[positions]
        return _Subset(self.rows, self.rows.table.select(indices), indices)

    def key(self) -> str:
        """Return a value that identifies the rows, without reading them."""
        if self.indices is None:
            return self.rows.fingerprint
        indices = self.indices.astype("<i8").tobytes()
        return hashlib.sha256(self.rows.fingerprint.encode() + indices).hexdigest()

    def facts(self) -> SetFacts:
        """Return the facts for the record; this reads the rows of a proper subset once."""
        return SetFacts(
            source=self.rows.source,
            format=self.rows.format,
            rows=len(self.table),
            rows_set_aside=self.rows.bad,
            bad_rows_file=str(self.rows.bad_rows_file) if self.rows.bad_rows_file else None,
            fingerprint=self.rows.fingerprint
            if self.indices is None
            else fingerprint_of(self.table),
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
    `overlap.rule` says, and remembered in `read.cache` for the same rows.

    Args:
        sources: where the sets come from; all of them are checked before the first is read.
        read: how rows are read.
        split: how the training rows are divided.
        overlap: how overlaps are counted, and whether they are removed.
        log: receives progress lines.

    Raises:
        DataError: a set cannot be read, a class is too small to be split, or training rows are in
            a held-out set and `overlap.rule` is "refuse".
    """
    check_sources(sources)
    rows = {name: read_rows(name, source, read) for name, source in sources.labelled.items()}
    if sources.target is not None:
        rows["target"] = read_rows("target", sources.target, read, labelled=False)
    sets = {name: _Subset(each, each.table) for name, each in rows.items()}
    if sources.validation is None:
        sets["train"], sets["validation"] = _split_validation(
            sets["train"], labels=read.labels, options=split
        )
    log("looking for rows that are in two sets")
    overlaps = _find_overlaps(sets, list(sources.held_out), overlap.similarity, read.cache)
    sets["train"], removed = _apply_rule(sets["train"], overlaps, policy=overlap)
    sets["train"] = _draw(sets["train"], options=split)
    return Splits(
        train=sets["train"].table,
        validation=sets["validation"].table,
        held_out={name: sets[name].table for name in sources.held_out},
        removed=removed,
        overlaps=tuple(overlaps),
        sets={name: subset.facts() for name, subset in sets.items()},
        target=sets["target"].table if "target" in sets else None,
    )


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


def _find_overlaps(
    sets: Mapping[str, _Subset], held_out: Sequence[str], similarity: float, cache_folder: Path
) -> list[Overlap]:
    """Count the rows that are in two sets, indexing each set at most once."""
    comparisons = {"train": ["validation", *held_out], "validation": held_out}
    if "target" in sets:
        # Reported, but not a leak: these texts come without labels.
        comparisons["target"] = held_out

    @cache
    def index_of(name: str) -> TextIndex:
        return TextIndex(name, sets[name].table, similarity=similarity)

    overlaps: list[Overlap] = []
    for one, others in comparisons.items():
        if not others:
            continue
        facts = [one, similarity, sets[one].key(), [[name, sets[name].key()] for name in others]]
        key = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]
        path = cache_folder / "overlaps" / f"{key}.json"
        counted = _load_overlaps(path)
        if counted is None:
            counted = count_matches(one, sets[one].table, [index_of(name) for name in others])
            _save_overlaps(path, counted)
        overlaps += counted
    return overlaps


def _load_overlaps(path: Path) -> list[Overlap] | None:
    if not path.is_file():
        return None
    entries = json.loads(path.read_text(encoding="utf-8"))
    return [
        Overlap(**entry | {"exact_rows": np.array(entry["exact_rows"], dtype=np.int64)})
        for entry in entries
    ]


def _save_overlaps(path: Path, overlaps: list[Overlap]) -> None:
    entries = [
        {**asdict(overlap), "exact_rows": overlap.exact_rows.tolist()} for overlap in overlaps
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial:
        partial.write_text(json.dumps(entries), encoding="utf-8")


def _split_validation(
    train: _Subset, *, labels: tuple[str, ...], options: SplitOptions
) -> tuple[_Subset, _Subset]:
    """Split the training rows into training and validation rows, stratified by class."""
    # Imported here because scikit-learn takes long to load, and the run record imports this module.
    from sklearn.model_selection import train_test_split

    classes = np.asarray(train.table.with_format("numpy")["label"][:])
    counts = np.bincount(classes, minlength=len(labels))
    for label, count in zip(labels, counts, strict=True):
        if count < 2:
            raise DataError(
                f'data.train: class "{label}" has {count} rows, but at least 2 are needed to split '
                "validation rows off; add rows, or set data.validation"
            )
    fraction = options.validation_fraction
    validation_rows = max(len(labels), round(fraction * len(train.table)))
    if len(train.table) - validation_rows < len(labels):
        raise DataError(
            f"data.validation_fraction: {fraction} of {len(train.table)} rows leaves fewer than "
            "one training row per class; lower it, or set data.validation"
        )
    train_indices, validation_indices = train_test_split(
        np.arange(len(train.table)),
        test_size=validation_rows,
        stratify=classes,
        random_state=options.seed,
    )
    return train.select(np.sort(train_indices)), train.select(np.sort(validation_indices))


def _apply_rule(
    train: _Subset, overlaps: Sequence[Overlap], *, policy: OverlapPolicy
) -> tuple[_Subset, int]:
    """Return the training rows that the rule leaves, and the number of removed rows."""
    leaking = [overlap for overlap in overlaps if overlap.one == "train" and overlap.exact]
    if policy.rule == "refuse" and leaking:
        counts = ", ".join(f"{overlap.exact} in {overlap.other}" for overlap in leaking)
        raise DataError(
            f'data.overlap: "refuse" was given, but training rows are also in other sets: '
            f'{counts}; set data.overlap = "remove" to leave them out of training'
        )
    if policy.rule != "remove" or not leaking:
        return train, 0
    removed = np.unique(np.concatenate([overlap.exact_rows for overlap in leaking]))
    kept = np.setdiff1d(np.arange(len(train.table)), removed)
    if len(kept) == 0:
        raise DataError(
            "data.train: every row is also in validation or a held-out set, so no row is left to "
            "train on; name other rows"
        )
    return train.select(kept), len(removed)


def _draw(train: _Subset, *, options: SplitOptions) -> _Subset:
    """Draw `options.train_rows` rows, in their original order."""
    if options.train_rows is None or options.train_rows >= len(train.table):
        return train
    generator = np.random.default_rng((options.seed, 1))
    return train.select(np.sort(generator.permutation(len(train.table))[: options.train_rows]))
