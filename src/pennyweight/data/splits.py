"""From sources to the rows a run trains and validates on: read, split, checked for leaks."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import datasets
import numpy as np
from sklearn.model_selection import train_test_split

from pennyweight.data.clean import cleaner
from pennyweight.data.ingest import OnBadRow, Rows, Source, ingest
from pennyweight.data.overlap import Overlap, find_overlap
from pennyweight.errors import DataError
from pennyweight.files import replacing

__all__ = ["Reading", "Splits", "fingerprint_of", "make_splits", "read_rows"]


@dataclass(frozen=True, slots=True)
class Reading:
    """How rows are read, the same for every set of a run.

    Attributes:
        labels: the classes' names.
        clean: names of cleaning steps.
        on_bad_row: "stop", or "set-aside" in a file in `bad_rows`.
        cache: folder for the memory-mapped tables.
        bad_rows: folder for the rows set aside.
    """

    labels: tuple[str, ...]
    clean: tuple[str, ...]
    on_bad_row: OnBadRow
    cache: Path
    bad_rows: Path | None = None


@dataclass(frozen=True, slots=True)
class Splits:
    """The sets of a run, memory-mapped, and what was found out about them.

    Attributes:
        train: rows to train on, overlaps removed.
        validation: rows that choose.
        held_out: the evaluation sets by name; labels are for the end.
        removed: training rows removed because they stand in a held-out set.
        overlaps: what the sets share.
        facts: sources, counts and fingerprints, for the record.
        target: unlabelled rows from where the model will be used, where they are named.
    """

    train: datasets.Dataset
    validation: datasets.Dataset
    held_out: Mapping[str, datasets.Dataset]
    removed: int
    overlaps: tuple[Overlap, ...]
    facts: Mapping[str, Mapping[str, object]]
    target: datasets.Dataset | None = None

    @property
    def labelled(self) -> dict[str, datasets.Dataset]:
        """What is measured: validation and the held-out sets."""
        return {"validation": self.validation, **self.held_out}

    @property
    def leaks(self) -> tuple[str, ...]:
        """In words, what makes the held-out sets no fair test: rows chosen or trained on."""
        return tuple(
            f"{found.exact} rows of {found.one} stand in {found.other}, so accuracy on "
            f"{found.other} is no fair measure"
            for found in self.overlaps
            if found.exact
            and found.other in self.held_out
            and (found.one == "validation" or (found.one == "train" and not self.removed))
        )


def read_rows(name: str, source: Source, reading: Reading, *, labelled: bool = True) -> Rows:
    """Read one source as `reading` says; rows set aside go to `bad_rows/NAME.jsonl`.

    Raises:
        DataError: it cannot be read, or has a bad row.
    """
    aside = reading.bad_rows / f"{name}.jsonl" if reading.bad_rows else None
    return ingest(
        source,
        labels=reading.labels,
        cache=reading.cache,
        clean=cleaner(reading.clean) if reading.clean else None,
        clean_key="+".join(reading.clean),
        labelled=labelled,
        on_bad_row=reading.on_bad_row,
        bad_rows_file=aside if reading.on_bad_row == "set-aside" else None,
    )


def make_splits(
    train: Source,
    *,
    validation: Source | None,
    held_out: Mapping[str, Source],
    reading: Reading,
    validation_fraction: float,
    train_rows: int | None,
    overlap: Literal["remove", "keep", "refuse"],
    similarity: float,
    seed: int,
    target: Source | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Splits:
    """Read all sets, split validation off, and look for rows that leak.

    Of the target no label is read, even where its file has some.

    Raises:
        DataError: a set cannot be read, a class is too small to split, or rows overlap and
            the recipe refuses that.
    """
    labelled = {"train": train, "validation": validation, **held_out}
    read = {name: read_rows(name, source, reading) for name, source in labelled.items() if source}
    if target is not None:
        read["target"] = read_rows("target", target, reading, labelled=False)
    tables = {name: rows.table for name, rows in read.items()}
    if validation is None:
        tables["train"], tables["validation"] = _split(
            tables["train"], fraction=validation_fraction, seed=seed, labels=reading.labels
        )
    say("looking for rows that stand in two sets")
    fingerprints = {name: fingerprint_of(table) for name, table in tables.items()}
    look = partial(
        _overlaps, tables, fingerprints, similarity=similarity, cache=reading.cache / "overlaps"
    )
    overlaps = look("train", ["validation", *held_out]) + look("validation", list(held_out))
    if target is not None:
        # Told, and no leak: no label comes with these texts.
        overlaps += look("target", list(held_out))
    left, removed = _without_overlap(tables["train"], overlaps, rule=overlap)
    if train_rows is not None and train_rows < len(left):
        chosen = np.random.default_rng((seed, 1)).permutation(len(left))[:train_rows]
        left = left.select(np.sort(chosen))
    if left is not tables["train"]:
        tables["train"], fingerprints["train"] = left, fingerprint_of(left)
    return Splits(
        train=tables["train"],
        validation=tables["validation"],
        held_out={name: tables[name] for name in held_out},
        removed=removed,
        overlaps=tuple(overlaps),
        facts={
            name: _facts(table, fingerprints[name], read.get(name, read["train"]))
            for name, table in tables.items()
        },
        target=tables.get("target"),
    )


def _overlaps(
    tables: Mapping[str, datasets.Dataset],
    fingerprints: Mapping[str, str],
    one: str,
    others: Sequence[str],
    *,
    similarity: float,
    cache: Path,
) -> list[Overlap]:
    """`find_overlap`, once for the same rows: a study asks again for every one of its runs."""
    told = [one, similarity, fingerprints[one], *([name, fingerprints[name]] for name in others)]
    path = cache / f"{hashlib.sha256(json.dumps(told).encode()).hexdigest()[:32]}.json"
    if path.is_file():
        kept = json.loads(path.read_text(encoding="utf-8"))
        return [
            Overlap(**entry | {"exact_rows": np.array(entry["exact_rows"], dtype=np.int64)})
            for entry in kept
        ]
    among = {name: tables[name] for name in others}
    found = find_overlap(one, tables[one], among, similarity=similarity)
    entries = [{**asdict(entry), "exact_rows": entry.exact_rows.tolist()} for entry in found]
    cache.mkdir(parents=True, exist_ok=True)
    with replacing(path) as part:
        part.write_text(json.dumps(entries), encoding="utf-8")
    return found


def fingerprint_of(table: datasets.Dataset) -> str:
    """SHA-256 over texts and labels in order, hex; says which rows a set holds."""
    digest = hashlib.sha256()
    for batch in table.select_columns(["text", "label"]).iter(batch_size=1000):
        for text, label in zip(batch["text"], batch["label"], strict=True):
            data = text.encode()
            digest.update(
                label.to_bytes(8, "little", signed=True) + len(data).to_bytes(8, "little")
            )
            digest.update(data)
    return digest.hexdigest()


def _split(
    rows: datasets.Dataset, *, fraction: float, seed: int, labels: tuple[str, ...]
) -> tuple[datasets.Dataset, datasets.Dataset]:
    classes = np.asarray(rows.with_format("numpy")["label"][:])
    counts = np.bincount(classes, minlength=len(labels))
    for label, count in zip(labels, counts, strict=True):
        if count < 2:
            raise DataError(
                f'data.train: class "{label}" has {count} rows; at least 2 are needed to split '
                "validation off (or name data.validation)"
            )
    held = max(len(labels), round(fraction * len(rows)))
    if len(rows) - held < len(labels):
        raise DataError(
            f"data.validation_fraction: given {fraction}; of {len(rows)} rows that leaves fewer "
            f"than one per class to train on"
        )
    train, validation = train_test_split(
        np.arange(len(rows)), test_size=held, stratify=classes, random_state=seed
    )
    return rows.select(np.sort(train)), rows.select(np.sort(validation))


def _without_overlap(
    rows: datasets.Dataset, overlaps: list[Overlap], *, rule: Literal["remove", "keep", "refuse"]
) -> tuple[datasets.Dataset, int]:
    leaking = [overlap for overlap in overlaps if overlap.one == "train" and overlap.exact]
    if rule == "refuse" and leaking:
        found = ", ".join(f"{overlap.exact} in {overlap.other}" for overlap in leaking)
        raise DataError(
            f"data.overlap: training rows also stand in held-out sets: {found}; data.overlap = "
            '"remove" takes them out of training'
        )
    if rule != "remove" or not leaking:
        return rows, 0
    leaked = np.unique(np.concatenate([overlap.exact_rows for overlap in leaking]))
    kept = np.setdiff1d(np.arange(len(rows)), leaked)
    if len(kept) == 0:
        raise DataError("data.train: every row also stands in a held-out set; nothing is left")
    return rows.select(kept), len(leaked)


def _facts(table: datasets.Dataset, fingerprint: str, rows: Rows) -> dict[str, object]:
    return {
        "source": rows.source,
        "format": rows.format,
        "rows": len(table),
        "rows_set_aside": rows.bad,
        "bad_rows_file": str(rows.bad_rows_file) if rows.bad_rows_file and rows.bad else None,
        "fingerprint": fingerprint,
    }
