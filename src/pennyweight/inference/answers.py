"""Turn the probabilities of rows into the columns that a prediction writes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from pennyweight.evaluation.decisions import given_classes, ranked

__all__ = ["Answers"]

_DECIMALS = 6


@dataclass(frozen=True, slots=True)
class Answers:
    """Columns of the output about the labels of rows.

    Attributes:
        labels: names of the classes.
        top_k: number of the best classes to write; None for all probabilities.
        thresholds: of a multi-label run, whose answer is a list of labels, float64 `[classes]`;
            None otherwise.
        separator: joins several labels in one cell.
        abstain_below: confidence below which a row has no label; None to give one always.
    """

    labels: tuple[str, ...]
    top_k: int | None
    thresholds: np.ndarray | None = None
    separator: str = "|"
    abstain_below: float | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of a row in CSV and Parquet."""
        given = () if self.thresholds is None else ("labels",)
        if self.top_k is None:
            best = ("label", "confidence") if self.thresholds is None else ()
            return (*given, *best, *(f"probability of {name}" for name in self.labels))
        more = (
            name
            for rank in range(2, self.top_k + 1)
            for name in (f"label {rank}", f"confidence {rank}")
        )
        return (*given, "label", "confidence", *more)

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys of a row in JSON Lines."""
        answer = ("label", "confidence") if self.thresholds is None else ("labels",)
        return (*answer, "probabilities" if self.top_k is None else "top")

    def abstained(self, probabilities: np.ndarray) -> int:
        """Return how many rows get no label because of their confidence."""
        if self.abstain_below is None or self.thresholds is not None:
            return 0
        return int((probabilities.max(axis=1, initial=0.0) < self.abstain_below).sum())

    def cells(self, probabilities: np.ndarray) -> list[Sequence[object]]:
        """Return the values of each of `columns`, with probabilities as text of six decimals.

        Args:
            probabilities: float `[rows, classes]`.
        """
        columns = self._values(probabilities)
        return [_texts(each) if isinstance(each, np.ndarray) else each for each in columns]

    def arrays(self, probabilities: np.ndarray) -> list[pa.Array]:
        """Return an Arrow array for each of `columns`, with probabilities of six decimals.

        Args:
            probabilities: float `[rows, classes]`.
        """
        return [
            pa.array(each.round(_DECIMALS), pa.float64())
            if isinstance(each, np.ndarray)
            else pa.array(each, pa.string())
            for each in self._values(probabilities)
        ]

    def nested(self, probabilities: np.ndarray) -> list[dict[str, object]]:
        """Return a row's answer, and either all probabilities or the best labels, for each row.

        The answer is a label and its confidence, or the list of labels of a multi-label run.

        Args:
            probabilities: float `[rows, classes]`.
        """
        rows = probabilities.tolist()
        if self.thresholds is None:
            label, confidence = self._values(probabilities, answer_only=True)
            answers: list[dict[str, object]] = [
                {"label": name, "confidence": round(p, _DECIMALS)}
                for name, p in zip(label, confidence.tolist(), strict=True)
            ]
        else:
            answers = [{"labels": names} for names in self._given(probabilities)]
        if self.top_k is None:
            for answer, row in zip(answers, rows, strict=True):
                pairs = zip(self.labels, row, strict=True)
                answer["probabilities"] = {name: round(p, _DECIMALS) for name, p in pairs}
            return answers
        best = ranked(probabilities)[:, : self.top_k].tolist()
        for answer, row, order in zip(answers, rows, best, strict=True):
            answer["top"] = [
                {"label": self.labels[i], "probability": round(row[i], _DECIMALS)} for i in order
            ]
        return answers

    def _values(self, probabilities: np.ndarray, *, answer_only: bool = False) -> list[Any]:
        """Return a list of texts, or an array of probabilities, for each of `columns`."""
        columns: list[list[str | None] | np.ndarray] = []
        if self.thresholds is not None:
            columns.append([self.separator.join(names) for names in self._given(probabilities)])
        if self.top_k is not None or self.thresholds is None:
            order = ranked(probabilities)[:, : self.top_k or 1]
            for rank in range(1 if answer_only else order.shape[1]):
                best = order[:, rank]
                values = np.take_along_axis(probabilities, best[:, None], axis=1)[:, 0]
                names: list[str | None] = [self.labels[index] for index in best.tolist()]
                if rank == 0 and self.thresholds is None and self.abstain_below is not None:
                    low = (values < self.abstain_below).tolist()
                    names = [None if no else name for no, name in zip(low, names, strict=True)]
                columns += [names, values]
        if self.top_k is None and not answer_only:
            columns += list(probabilities.T)
        return columns

    def _given(self, probabilities: np.ndarray) -> list[list[str]]:
        """Return the labels of each row of a multi-label run, the most probable first."""
        given = given_classes(probabilities, self.thresholds)
        return [[self.labels[index] for index in row] for row in given]


def _texts(probabilities: np.ndarray) -> list[str]:
    return [f"{value:.6f}" for value in probabilities.tolist()]
