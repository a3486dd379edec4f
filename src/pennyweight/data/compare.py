"""Compare the sets of a run: shared texts, texts under different labels, and missing classes.

Results are remembered in a folder for the same rows.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import datasets
import numpy as np

from pennyweight.data.overlap import Overlap, TextIndex, count_matches, folded_texts
from pennyweight.data.shown import listed, shortened
from pennyweight.data.stratify import label_counts
from pennyweight.data.subset import Subset
from pennyweight.documents import DocumentError, parse_json, read_text
from pennyweight.files import replacing

__all__ = ["Conflicts", "find_conflicts", "find_overlaps", "missing_labels", "remembered_conflicts"]


@dataclass(frozen=True, slots=True)
class Conflicts:
    """Texts that occur more than once, under different labels.

    Attributes:
        texts: number of such texts.
        rows: numbers of two rows in their source that have the same text and different labels; ()
            if there are none.
    """

    texts: int
    rows: tuple[int, ...] = ()

    def describe(self, source: str) -> str:
        """Return one sentence about the rows of a source; "" without conflicts."""
        if not self.texts:
            return ""
        text = "text occurs" if self.texts == 1 else "texts occur"
        return (
            f"train: {self.texts:,} {text} under different labels, for example in the rows "
            f"{self.rows[0]} and {self.rows[1]} of {source}"
        )


def find_overlaps(
    sets: Mapping[str, Subset], held_out: Sequence[str], similarity: float, folder: Path
) -> list[Overlap]:
    """Count the rows that are in two sets, indexing each set at most once.

    Args:
        sets: the sets by name; "train" and "validation" are among them, and "target" may be.
        held_out: names of the evaluation sets.
        similarity: see `overlap.find_overlap`.
        folder: where results are remembered.
    """
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

        def count(one: str = one, others: Sequence[str] = others) -> list[dict[str, Any]]:
            counted = count_matches(one, sets[one].table, [index_of(name) for name in others])
            return [asdict(each) | {"exact_rows": each.exact_rows.tolist()} for each in counted]

        facts = [one, similarity, sets[one].key(), [[name, sets[name].key()] for name in others]]
        for entry in _remembered(folder / "overlaps", facts, count):
            exact_rows = np.array(entry["exact_rows"], dtype=np.int64)
            overlaps.append(Overlap(**entry | {"exact_rows": exact_rows}))
    return overlaps


def remembered_conflicts(rows: Subset, folder: Path) -> Conflicts:
    """Return `find_conflicts` of some rows, remembered in a folder."""

    def find() -> list[int]:
        conflicts = find_conflicts(rows.table)
        return [conflicts.texts, *conflicts.rows]

    texts, *numbers = _remembered(folder / "conflicts", [rows.key()], find)
    return Conflicts(texts, tuple(numbers))


def find_conflicts(rows: datasets.Dataset) -> Conflicts:
    """Count the texts that occur under different labels, compared as `overlap` compares them.

    Args:
        rows: has the columns of a table of rows; 16 bytes of memory are used for each of them.
    """
    digests = bytearray()
    for text in folded_texts(rows):
        digests += hashlib.blake2b(text.encode(), digest_size=8).digest()
    texts = np.frombuffer(bytes(digests), dtype=np.uint64)
    labels = _label_codes(rows)
    order = np.lexsort((labels, texts))
    texts, labels = texts[order], labels[order]
    clashes = np.flatnonzero((texts[1:] == texts[:-1]) & (labels[1:] != labels[:-1]))
    if not len(clashes):
        return Conflicts(0)
    first = clashes[np.argmin(order[clashes])]
    pair = sorted((int(order[first]), int(order[first + 1])))
    numbers = rows.select(pair)["row"][:]
    return Conflicts(len(np.unique(texts[clashes])), tuple(numbers))


def _label_codes(rows: datasets.Dataset) -> np.ndarray:
    """Return a number for each row, which is equal for equal labels."""
    codes: dict[object, int] = {}
    numbers = []
    for batch in rows.select_columns(["label"]).iter(batch_size=1000):
        for label in batch["label"]:
            key = tuple(label) if isinstance(label, list) else label
            numbers.append(codes.setdefault(key, len(codes)))
    return np.array(numbers, dtype=np.int64)


def missing_labels(name: str, rows: datasets.Dataset, labels: Sequence[str]) -> str:
    """Return one sentence about the labels that no row of a set has; "" if all are there."""
    counts = label_counts(rows, len(labels))
    missing = [label for label, count in zip(labels, counts, strict=True) if not count]
    if not missing or not len(rows):
        return ""
    if len(missing) == 1:
        return f'{name}: no row has the label "{shortened(missing[0])}"'
    return f"{name}: no row has any of these {len(missing):,} labels: {listed(missing)}"


def _remembered(folder: Path, facts: object, compute: Callable[[], Any]) -> Any:
    """Return the JSON that an earlier call has stored for the same facts, or compute it."""
    key = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]
    path = folder / f"{key}.json"
    try:
        return parse_json(read_text(path))
    except (OSError, DocumentError):  # there is none, or it is damaged
        pass
    result = compute()
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial:
        partial.write_text(json.dumps(result), encoding="utf-8")
    return result
