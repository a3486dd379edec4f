"""Directories of finished runs with predictions, without training."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pennyweight.evaluation.metrics import measure
from pennyweight.runs.record import DataRecord, save_record
from runs.records import LABELS, example_facts, example_recipe, example_record

# Labels and predicted classes of a set, int [rows], or [rows, classes] of 0 and 1.
Answers = tuple[np.ndarray, np.ndarray]


def write_run(
    path: Path,
    sets: Mapping[str, Answers],
    *,
    seed: int = 1,
    recipe: Mapping[str, Any] | None = None,
    fingerprints: Mapping[str, str] | None = None,
    **changes: Any,
) -> Path:
    """Write a run's record and predictions, and return its directory.

    Args:
        path: the directory, which is created.
        sets: answers by the name of the set.
        seed: of the run.
        recipe: keys of the recipe, by section; "name" is the recipe's name.
        fingerprints: of sets whose rows are not those of other runs.
        changes: fields of the record.
    """
    sections = dict(recipe or {})
    name = sections.pop("name", "example")
    resolved = example_recipe(**sections).model_copy(update={"seed": seed, "name": name})
    facts = {each: example_facts(each) for each in sets}
    for each, fingerprint in (fingerprints or {}).items():
        facts[each] = type(facts[each])("x.csv", "delimited", 9, 0, None, fingerprint)
    labels = resolved.data.labels or LABELS
    path.mkdir(parents=True)
    values: dict[str, Any] = {
        "recipe": resolved,
        "data": DataRecord(sets=facts),
        "metrics": {
            each: measure(_logits(predicted, len(labels)), true, names=labels, resamples=0)
            for each, (true, predicted) in sets.items()
        },
        "baselines": {},
        "leaks": (),
        "transductive": (),
    }
    save_record(path, example_record(**{**values, **changes}))
    arrays: dict[str, Any] = {}
    for each, (true, predicted) in sets.items():
        arrays |= {each: predicted, f"{each}.labels": true}
    np.savez(path / "predictions.npz", **arrays)
    return path


def noisy_answers(labels: np.ndarray, accuracy: float, *, seed: int) -> np.ndarray:
    """Return answers of two classes that are right with a probability."""
    is_right = np.random.default_rng(seed).random(len(labels)) < accuracy
    return np.where(is_right, labels, 1 - labels)


def _logits(predicted: np.ndarray, classes: int) -> np.ndarray:
    values = predicted if predicted.ndim == 2 else np.eye(classes)[predicted]
    return np.asarray(4.0 * values - 2.0)
