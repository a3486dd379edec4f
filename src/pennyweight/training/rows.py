"""From the split's training rows to the rows that are trained on: filtered, augmented, joined.

Only rows that the split has left for training are changed or copied, so nothing derived from them
can contain a held-out text; rows that come from elsewhere are compared with the held-out sets.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa

from pennyweight.data.overlap import find_overlap
from pennyweight.data.shown import listed
from pennyweight.data.splits import Splits, fingerprint_of
from pennyweight.data.stratify import label_lists
from pennyweight.environment import cache_directory
from pennyweight.errors import DataError
from pennyweight.files import replacing
from pennyweight.lab.filters import keep_rows
from pennyweight.lab.gates import counts_by_class
from pennyweight.lab.manifest import DerivedRows, derive_once, read_derived
from pennyweight.lab.words import augment
from pennyweight.runs.record import RowStep, TrainingRows
from pennyweight.settings.values import Augmentation, RowSettings
from pennyweight.training.generation import generate_rows
from pennyweight.training.target import (
    PseudoLabelledRows,
    consistency_rows,
    density_weights,
    labelled_table,
    self_training_rows,
)

__all__ = ["PreparedRows", "RowContext", "prepare_rows"]

# A table of rows, and what is recorded about where they come from.
_Part = tuple[datasets.Dataset, RowStep]


@dataclass(frozen=True, slots=True)
class RowContext:
    """The inputs, besides the rows, of every step that changes rows.

    Attributes:
        labels: the classes' names.
        seed: of everything random.
        removed_rows: directory for the rows that filters remove.
        log: gets a line per step.
    """

    labels: tuple[str, ...]
    seed: int
    removed_rows: Path
    log: Callable[[str], None]


@dataclass(frozen=True, slots=True)
class PreparedRows:
    """The rows to train on.

    Attributes:
        table: columns text and label; the label is -1 for target rows without one.
        fingerprint: of the table.
        weights: float32 `[rows]`; None for equal weights.
        smoothing: label smoothing of each row, float32 `[rows]`; None for the same in all.
        soft_labels: the probabilities that are taught, float32 `[rows, classes]`; None to teach the
            labels.
        steps: what was done, for the record.
        transductive: which uses were made of the target's text.
    """

    table: datasets.Dataset
    fingerprint: str
    weights: np.ndarray | None = None
    smoothing: np.ndarray | None = None
    soft_labels: np.ndarray | None = None
    steps: tuple[RowStep, ...] = ()
    transductive: tuple[str, ...] = ()

    def to_record(self) -> TrainingRows:
        """Return what the run's record says about the rows."""
        return TrainingRows(rows=len(self.table), steps=self.steps)


def prepare_rows(splits: Splits, settings: RowSettings, context: RowContext) -> PreparedRows:
    """Filter the training rows, add augmented, extra and generated rows, then use the target.

    Raises:
        DataError: a step cannot be done.
        RecipeError: a teacher cannot be used.
    """
    extra = {name: read_derived(Path(name)) for name in settings.extra}
    rows, steps = _filtered(_without_numbers(splits.train, settings), settings, context)
    labelled = [
        (rows, None),
        *_augmented(rows, settings.augmentations, context),
        *_extra(extra, splits.labelled, context),
        *_generated(rows, splits, settings, context),
    ]
    pseudo = None
    if settings.self_training is not None and splits.target is not None:
        pseudo = self_training_rows(
            splits, settings.self_training, context.labels, seed=context.seed, log=context.log
        )
    added = [] if pseudo is None else [pseudo.table]
    unlabelled = []
    if settings.consistency_rows != 0 and splits.target is not None:
        unlabelled.append(
            consistency_rows(splits.target, settings.consistency_rows, seed=context.seed)
        )
    tables = [table for table, _ in labelled]
    joined = _joined([*tables, *added, *unlabelled])
    sizes = (sum(map(len, tables)), sum(map(len, unlabelled)))
    weights = None if pseudo is None else _row_weights(pseudo, *sizes)
    steps += [step for _, step in labelled if step is not None]
    steps += [] if pseudo is None else [pseudo.step]
    if settings.density_ratio is not None and splits.target is not None:
        ratios, step = density_weights(
            joined, splits.target, settings.density_ratio, seed=context.seed, log=context.log
        )
        weights = ratios if weights is None else weights * ratios
        steps.append(step)
    is_unchanged = len(tables) + len(added) + len(unlabelled) == 1 and not settings.filters
    return PreparedRows(
        table=joined,
        fingerprint=splits.sets["train"].fingerprint if is_unchanged else fingerprint_of(joined),
        weights=weights,
        smoothing=None if pseudo is None else _smoothing(settings, pseudo, *sizes),
        soft_labels=None if pseudo is None else _soft_labels(joined, pseudo, *sizes),
        steps=tuple(steps),
        transductive=(
            *_transductive(settings, has_target=splits.target is not None),
            *(
                f"rows of {name}, generated by a language model that has read a target"
                for name, derived in extra.items()
                if "target" in derived.manifest.get("parameters", {})
            ),
        ),
    )


def _without_numbers(train: datasets.Dataset, settings: RowSettings) -> datasets.Dataset:
    """Return the columns text, text_pair for pairs, and label.

    Raises:
        DataError: a step is set that works on single texts with one label alone.
    """
    has_pairs = "text_pair" in train.column_names
    steps = {
        "data.filters": settings.filters,
        "data.augmentations": settings.augmentations,
        "data.extra": settings.extra,
        "generate": settings.generation,
        "transduction.self_training": settings.self_training,
        "transduction.density_ratio": settings.density_ratio,
    }
    if has_pairs or isinstance(train.features["label"], datasets.List):
        rows = "pairs of texts" if has_pairs else "rows with several labels"
        if unusable := [key for key, step in steps.items() if step]:
            raise DataError(f"{unusable[0]}: not available for {rows}; leave it out")
    return train.select_columns(["text", *(["text_pair"] if has_pairs else []), "label"])


def _transductive(settings: RowSettings, *, has_target: bool) -> tuple[str, ...]:
    if not has_target:
        return ()
    uses = {
        "rows generated by a language model that has read the target": settings.generation,
        "self-training on the target": settings.self_training,
        "consistency on the target": settings.consistency_rows != 0 or None,
        "training rows weighted towards the target": settings.density_ratio,
    }
    return tuple(use for use, setting in uses.items() if setting is not None)


def _joined(tables: Sequence[datasets.Dataset]) -> datasets.Dataset:
    return datasets.concatenate_datasets(list(tables)) if len(tables) > 1 else tables[0]


def _row_weights(pseudo: PseudoLabelledRows, labelled: int, unlabelled: int) -> np.ndarray | None:
    """Return the weight of each row; None for equal weights."""
    if pseudo.weights is None:
        return None
    ones = (np.ones(count, dtype=np.float32) for count in (labelled, unlabelled))
    return np.concatenate([next(ones), pseudo.weights, next(ones)])


def _smoothing(
    settings: RowSettings, pseudo: PseudoLabelledRows, labelled: int, unlabelled: int
) -> np.ndarray:
    """Return each row's label smoothing; the probabilities of soft labels are left as they are."""
    assert settings.self_training is not None  # noqa: S101 - there are pseudo-labels
    of_added = 0.0 if pseudo.soft_labels is not None else settings.self_training.label_smoothing
    shares = [settings.label_smoothing, of_added, 0.0]
    return np.repeat(shares, [labelled, len(pseudo.table), unlabelled]).astype(np.float32)


def _soft_labels(
    joined: datasets.Dataset, pseudo: PseudoLabelledRows, labelled: int, unlabelled: int
) -> np.ndarray | None:
    """Return the distribution that each row teaches; None to teach the labels."""
    if pseudo.soft_labels is None:
        return None
    classes = pseudo.soft_labels.shape[1]
    labels = np.asarray(joined["label"][:labelled])
    zeros = np.zeros((unlabelled, classes), dtype=np.float32)
    return np.concatenate([np.eye(classes, dtype=np.float32)[labels], pseudo.soft_labels, zeros])


def _filtered(
    rows: datasets.Dataset, settings: RowSettings, context: RowContext
) -> tuple[datasets.Dataset, list[RowStep]]:
    steps = []
    for number, step in enumerate(settings.filters, start=1):
        texts, (labels, _) = rows["text"], label_lists(rows)
        kept = keep_rows(texts, labels, method=step.method, seed=context.seed, options=step.options)
        path = context.removed_rows / f"{number:02d}-{step.method}.jsonl"
        _write_removed(path, rows.select(np.flatnonzero(~kept)), context.labels)
        removed = int((~kept).sum())
        context.log(f"filter {step.method}: {removed:,} of {len(rows):,} rows removed")
        steps.append(RowStep(step=f"filter {step.method}", removed=removed, file=str(path)))
        rows = rows.select(np.flatnonzero(kept))
        missing = set(range(len(context.labels))) - set(label_lists(rows)[0].tolist())
        if missing:
            names = ", ".join(context.labels[index] for index in sorted(missing))
            raise DataError(
                f"data.filters: {step.method} leaves no row of {names}; make it less strict, or "
                "leave it out"
            )
    return rows, steps


def _write_removed(path: Path, rows: datasets.Dataset, names: Sequence[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as part, part.open("w", encoding="utf-8") as file:
        for row in rows:
            value = {"text": row["text"], "label": names[row["label"]]}
            file.write(json.dumps(value, ensure_ascii=False) + "\n")


def _augmented(
    rows: datasets.Dataset, augmentations: Sequence[Augmentation], context: RowContext
) -> list[_Part]:
    if not augmentations:
        return []
    parts = []
    parents = fingerprint_of(rows)
    for step in augmentations:
        parameters = {
            "method": step.method,
            "copies": step.copies,
            "seed": context.seed,
            "options": step.options,
            "parents": parents,
        }
        derived = derive_once(
            cache_directory() / "augmented", parameters, partial(_augment, rows, step, context)
        )
        added = derived.rows.num_rows
        context.log(f"augmentation {step.method}: {added:,} rows added")
        record = RowStep(step=f"augmentation {step.method}", added=added, file=str(derived.path))
        parts.append((_labelled(derived, step.method, context.labels), record))
    return parts


def _augment(
    rows: datasets.Dataset, step: Augmentation, context: RowContext
) -> tuple[pa.Table, dict[str, object]]:
    """Return the changed copies, and what their manifest says besides the parameters."""
    texts, parents = augment(
        rows["text"][:],
        method=step.method,
        copies=step.copies,
        seed=context.seed,
        options=step.options,
    )
    labels = np.asarray(rows["label"][:])[parents]
    table = pa.table({"text": texts, "label": labels, "parent": parents})
    return table, {"labels": list(context.labels)}


def _extra(
    files: Mapping[str, DerivedRows], held_out: Mapping[str, datasets.Dataset], context: RowContext
) -> list[_Part]:
    parts = []
    for name, derived in files.items():
        table = _labelled(derived, name, context.labels)
        table, step = _without_held_out(table, held_out, name=name)
        source = {"file": name, "sha256": derived.manifest["sha256"]}
        gates = _gate_facts(derived.manifest, table, context.labels)
        parts.append((table, step.model_copy(update=source | gates)))
    return parts


def _generated(
    rows: datasets.Dataset, splits: Splits, settings: RowSettings, context: RowContext
) -> list[_Part]:
    if settings.generation is None:
        return []
    derived = generate_rows(settings.generation, rows, splits, context.labels, log=context.log)
    table = _labelled(derived, "generated", context.labels)
    table, step = _without_held_out(table, splits.labelled, name="generated")
    gates = _gate_facts(derived.manifest, table, context.labels)
    return [(table, step.model_copy(update={"file": str(derived.path), **gates}))]


def _gate_facts(
    manifest: Mapping[str, Any], table: datasets.Dataset, labels: Sequence[str]
) -> dict[str, Any]:
    """Return what is recorded about rows that passed gates; nothing for other rows."""
    if "written_by_class" not in manifest:
        return {}
    return {
        "rejected": dict(manifest["rejected"]),
        "written_by_class": dict(manifest["written_by_class"]),
        "by_class": dict(counts_by_class(np.asarray(table["label"][:], dtype=np.int64), labels)),
    }


def _labelled(derived: DerivedRows, name: str, labels: Sequence[str]) -> datasets.Dataset:
    """Return derived rows as a table with the columns text and label.

    Labels are mapped by the names of the classes that the rows were derived with, which may have
    had another order.

    Raises:
        DataError: a column is missing, or a label is none of the classes.
    """
    for column in ("text", "label"):
        if column not in derived.rows.column_names:
            raise DataError(f'data.extra: {name}: no column "{column}"')
    indices = derived.rows.column("label").to_numpy()
    # Files of other programs, and of earlier versions, have no names.
    names = derived.manifest.get("labels", labels)
    if len(indices) and not (indices.min() >= 0 and indices.max() < len(names)):
        raise DataError(
            f"data.extra: {name}: labels must be from 0 to {len(names) - 1}, the indices of its "
            f"classes; given {indices.min()} to {indices.max()}"
        )
    places = {each: index for index, each in enumerate(labels)}
    if unknown := [names[index] for index in np.unique(indices) if names[index] not in places]:
        raise DataError(
            f"data.extra: {name}: its rows have labels that are no classes here: "
            f"{listed(unknown)}; the classes are {listed(labels)}"
        )
    own = np.array([places.get(each, -1) for each in names], dtype=np.int64)
    indices = own[indices]
    return labelled_table(derived.rows.column("text").to_pylist(), indices)


def _without_held_out(
    rows: datasets.Dataset, held_out: Mapping[str, datasets.Dataset], *, name: str
) -> _Part:
    overlaps = find_overlap(name, rows, held_out, similarity=None)
    leaked = np.unique(np.concatenate([o.exact_rows for o in overlaps] or [np.empty(0, int)]))
    step = RowStep(step=f"rows of {name}", added=len(rows) - len(leaked), removed=len(leaked))
    if len(leaked):
        rows = rows.select(np.setdiff1d(np.arange(len(rows)), leaked))
    return rows, step
