"""The processing of texts before the model, and of logits after it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pennyweight.budget.facts import ArtifactFacts
from pennyweight.data.clean import cleaner
from pennyweight.data.label import Task
from pennyweight.engine.batches.truncation import Truncation
from pennyweight.engine.predictor import Predictions
from pennyweight.evaluation.thresholds import DEFAULT_THRESHOLD, probabilities_of
from pennyweight.inference.correction import Correction, load_correction
from pennyweight.inference.texts import checked_pairs, checked_texts, whole_texts
from pennyweight.model.artifact import read_artifact_facts
from pennyweight.runs.record import RunRecord
from pennyweight.settings.values import Settings

__all__ = ["Processing", "processing_of"]


@dataclass(frozen=True, slots=True)
class Processing:
    """A finished run without its model and its record.

    Attributes:
        labels: the classes' names in the order of their indices.
        task: whether a text has exactly one label, or any number of them.
        thresholds: of a multi-label run, the probability of each class from which a text is given
            it, float64 `[classes]`; None for a single-label run.
        pair_columns: the columns with the two texts of a pair; None if a row is a single text.
        max_tokens: length to which texts are truncated.
        truncation: which tokens of a longer text are kept.
        clean: cleans a text as in training.
        temperature: that logits are divided by, so that probabilities are calibrated; 1 if none was
            fitted, and where the correction has one of its own.
        correction: for the class shares of a target; None without one.
    """

    labels: tuple[str, ...]
    task: Task
    thresholds: np.ndarray | None
    pair_columns: tuple[str, str] | None
    max_tokens: int
    truncation: Truncation
    clean: Callable[[str], str]
    temperature: float
    correction: Correction | None

    @property
    def needs_features(self) -> bool:
        """Whether the correction needs the input of the output layer."""
        return self.correction is not None and self.correction.needs_features

    def cleaned(self, texts: Iterable[Any], *, first: int = 0) -> list[str] | list[tuple[str, str]]:
        """Return raw texts, or pairs of texts, cleaned.

        Args:
            texts: any iterable of texts, or of tuples of two texts for a run on pairs.
            first: the number of the first of them, for messages.

        Raises:
            DataError: an element is not a text, or not a pair of texts where one is expected.
        """
        if self.pair_columns is None:
            return [self.clean(text) for text in checked_texts(texts, first=first)]
        pairs = checked_pairs(texts, self.pair_columns, first=first)
        return [(self.clean(one), self.clean(other)) for one, other in pairs]

    def corrected(
        self, predictions: Predictions, texts: Sequence[str] | Sequence[tuple[str, str]]
    ) -> Predictions:
        """Return predictions with calibrated and corrected logits.

        Args:
            predictions: with features where `needs_features` says so.
            texts: the cleaned texts or pairs of texts.
        """
        if self.correction is None:
            return predictions.divided_by(self.temperature)
        return self.correction.apply(predictions, whole_texts(texts))

    def probabilities(
        self, predictions: Predictions, texts: Sequence[str] | Sequence[tuple[str, str]]
    ) -> np.ndarray:
        """Return the class probabilities, float64 `[texts, classes]`; see `corrected`."""
        return probabilities_of(self.corrected(predictions, texts).logits, task=self.task)


def processing_of(record: RunRecord, settings: Settings, artifact: Path) -> Processing:
    """Return what a run does around its model.

    Args:
        record: of the run.
        settings: the run's recipe as plain values.
        artifact: the directory with the adapter, or with a whole model.

    Raises:
        RunError: a file of the artifact cannot be read.
    """
    facts, correction = read_artifact_facts(artifact), load_correction(artifact)
    thresholds = None
    if settings.task == "multi-label":
        thresholds = np.full(len(settings.labels), DEFAULT_THRESHOLD)
        if facts is not None and facts.thresholds is not None:
            thresholds = np.array(facts.thresholds)
    return Processing(
        labels=settings.labels,
        task=settings.task,
        thresholds=thresholds,
        pair_columns=record.pair_columns,
        max_tokens=settings.inference.max_tokens,
        truncation=settings.inference.truncation,
        clean=cleaner(settings.data.read.clean),
        temperature=_temperature(facts, correction),
        correction=correction,
    )


def _temperature(facts: ArtifactFacts | None, correction: Correction | None) -> float:
    if correction is not None or facts is None or facts.temperature is None:
        return 1.0
    return facts.temperature
