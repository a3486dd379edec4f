"""Facts about a classifier that is one of many in a bank."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from pennyweight.data.label import Task
from pennyweight.evaluation.decisions import given_classes
from pennyweight.inference.processing import Processing
from pennyweight.runs.record import RunRecord

__all__ = ["LoadedClassifier", "describe"]


@dataclass(frozen=True, slots=True)
class LoadedClassifier:
    """A classifier in a bank.

    Attributes:
        name: its name in the bank.
        run: the run's directory.
        base: the name of the base.
        labels: the classes' names in the order of their probabilities.
        task: whether a text has exactly one label, or any number of them.
        thresholds: of a multi-label run, the probability of each class from which a text is given
            it, float64 `[classes]`; None for a single-label run.
        pair_columns: the columns with the two texts of a pair; None if a row is a single text.
        max_tokens: length to which texts are truncated.
        trainable_parameters: number of parameters that were trained.
        bytes: memory of the adapter and its head.
        version: SHA-256 of all files of the saved classifier.
    """

    name: str
    run: Path
    base: str
    labels: tuple[str, ...]
    task: Task
    thresholds: np.ndarray | None = field(compare=False)
    pair_columns: tuple[str, str] | None
    max_tokens: int
    trainable_parameters: int
    bytes: int
    version: str

    def labels_of(self, probabilities: np.ndarray) -> str | list[str]:
        """Return the label of a text, or its labels of a multi-label run, the most probable first.

        Args:
            probabilities: float `[classes]`, of one text.
        """
        (given,) = given_classes(probabilities[None], self.thresholds)
        names = [self.labels[index] for index in given]
        return names[0] if self.task == "single-label" else names


def _version(record: RunRecord) -> str:
    files = record.artifact.files if record.artifact else {}
    return hashlib.sha256(json.dumps(sorted(files.items())).encode()).hexdigest()


def describe(
    name: str, run: Path, record: RunRecord, processing: Processing, *, size: int
) -> LoadedClassifier:
    """Return the facts about a run that a bank has loaded.

    Args:
        name: its name in the bank.
        run: the run's directory.
        record: of the run.
        processing: what happens to its texts and logits.
        size: bytes of the adapter and its head.
    """
    trained = record.parameters.model if record.parameters else record.plan.trainable_parameters
    return LoadedClassifier(
        name=name,
        run=run,
        base=record.recipe.base.name,
        labels=processing.labels,
        task=processing.task,
        thresholds=processing.thresholds,
        pair_columns=processing.pair_columns,
        max_tokens=processing.max_tokens,
        trainable_parameters=trained,
        bytes=size,
        version=_version(record),
    )
