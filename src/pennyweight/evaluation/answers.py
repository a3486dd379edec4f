"""The answers of several runs on the same labelled rows, and their metrics over resampled rows.

Rows on which the labels and all answers are equal are exchangeable, so each such *pattern* is held
once, with the number of its rows. Drawing rows with replacement is then a draw of these numbers
from a multinomial distribution, and the metric of all resamples is computed at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_matrix

from pennyweight.evaluation.f1 import f1_of_counts, macro_f1_of

__all__ = ["AnsweredRows", "answered_rows", "right_rows"]

# Resamples are drawn in blocks of at most this many numbers, so that memory stays small.
_NUMBERS_PER_BLOCK = 4_000_000


def right_rows(predicted: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return which rows have the right class or, in a multi-label task, the right classes.

    Args:
        predicted: int `[rows]`, or `[rows, classes]` of 0 and 1.
        labels: of the same shape.

    Returns:
        bool `[rows]`.
    """
    equal: np.ndarray = np.equal(predicted, labels)
    return np.asarray(equal.reshape(len(equal), -1).all(axis=1))


@dataclass(frozen=True, slots=True)
class _Answers:
    """The answers of one run.

    Attributes:
        right: float64 `[patterns]`, whether the pattern is answered right.
        given: 0 and 1, sparse `[patterns, classes]`: the classes that are answered.
        hits: 0 and 1, sparse `[patterns, classes]`: those of them that are right.
    """

    right: np.ndarray
    given: csr_matrix
    hits: csr_matrix


@dataclass(frozen=True, slots=True)
class AnsweredRows:
    """Labelled rows with the answers of one or more runs.

    Attributes:
        metric: "accuracy", which is subset accuracy in a multi-label task, or "macro_f1".
        counts: int64 `[patterns]`, number of rows of each pattern.
        labels: 0 and 1, sparse `[patterns, classes]`.
        runs: answers of each run.
    """

    metric: str
    counts: np.ndarray
    labels: csr_matrix
    runs: tuple[_Answers, ...]

    @property
    def rows(self) -> int:
        """The number of rows."""
        return int(self.counts.sum())

    def scores(self) -> np.ndarray:
        """Return the metric of each run on the rows, float64 `[runs]`."""
        weights = self.counts[None, :].astype(np.float64)
        return np.array([self._score([(run, weights)])[0] for run in self.runs])

    def resampled_scores(self, resamples: int, *, generator: np.random.Generator) -> np.ndarray:
        """Return the metric of each run on rows drawn with replacement (Efron 1979).

        Each resample has as many rows as the set, and all runs are measured on the same ones.

        Returns:
            float64 `[resamples, runs]`.
        """
        shares = self.counts / self.rows
        blocks = []
        for size in self._blocks(resamples):
            weights = generator.multinomial(self.rows, shares, size=size).astype(np.float64)
            blocks.append(np.stack([self._score([(run, weights)]) for run in self.runs], axis=1))
        return np.concatenate(blocks)

    def swapped_differences(self, resamples: int, *, generator: np.random.Generator) -> np.ndarray:
        """Return the difference between the runs when their answers are swapped at random.

        Each row's two answers change places with probability 1/2, as they could if both runs were
        equally good.

        Returns:
            float64 `[resamples]`: the metric of the second run less that of the first.
        """
        first, second = self.runs
        is_different = np.asarray(abs(first.given - second.given).sum(axis=1)).ravel() > 0
        counts = self.counts[is_different]
        differences = []
        for size in self._blocks(resamples):
            swapped = np.zeros((size, len(self.counts)))
            swapped[:, is_different] = generator.binomial(counts, 0.5, size=(size, len(counts)))
            kept = self.counts - swapped
            differences.append(
                self._score([(second, kept), (first, swapped)])
                - self._score([(first, kept), (second, swapped)])
            )
        return np.concatenate(differences)

    def _blocks(self, resamples: int) -> Iterator[int]:
        """Yield the sizes of blocks that make up a number of resamples."""
        block = max(1, _NUMBERS_PER_BLOCK // len(self.counts))
        for start in range(0, resamples, block):
            yield min(block, resamples - start)

    def _score(self, parts: Sequence[tuple[_Answers, np.ndarray]]) -> np.ndarray:
        """Return the metric of answers that are taken from runs with weights, `[resamples]`.

        Args:
            parts: answers, each with float64 weights `[resamples, patterns]`.
        """
        if self.metric == "accuracy":
            return np.asarray(sum(weights @ run.right for run, weights in parts) / self.rows)
        total = sum(weights for _, weights in parts)
        hits = sum(weights @ run.hits for run, weights in parts)
        given = sum(weights @ run.given for run, weights in parts)
        f1 = f1_of_counts(hits, given, total @ self.labels)
        return macro_f1_of(f1)


def answered_rows(
    labels: np.ndarray, answers: Sequence[np.ndarray], *, classes: int, metric: str
) -> AnsweredRows:
    """Gather the answers of runs on the same rows.

    Args:
        labels: int `[rows]`, or `[rows, classes]` of 0 and 1 in a multi-label task.
        answers: of each run, shaped like the labels.
        classes: number of classes.
        metric: "accuracy" or "macro_f1".

    Raises:
        ValueError: there are no rows, or answers are not shaped like the labels.
    """
    if len(labels) == 0 or any(each.shape != labels.shape for each in answers):
        raise ValueError("answers are compared on at least one row, and each needs one per row")
    is_multi_label = labels.ndim == 2
    columns = np.stack([labels, *answers], axis=1).reshape(len(labels), -1).astype(np.int32)
    patterns, first, counts = np.unique(columns, axis=0, return_index=True, return_counts=True)
    # In the order of the rows, so that the draws do not depend on the order of the runs.
    order = np.argsort(first)
    patterns, counts = patterns[order], counts[order]
    table = patterns.reshape(len(patterns), len(answers) + 1, *labels.shape[1:])

    def marked(column: int) -> csr_matrix:
        values = table[:, column]
        if is_multi_label:
            return csr_matrix(values, dtype=np.float64)
        ones, places = np.ones(len(values)), np.arange(len(values) + 1)
        return csr_matrix((ones, values, places), shape=(len(values), classes))

    true = marked(0)
    runs = []
    for column in range(1, len(answers) + 1):
        given = marked(column)
        right = right_rows(table[:, column], table[:, 0]).astype(np.float64)
        runs.append(_Answers(right, given, given.multiply(true).tocsr()))
    return AnsweredRows(metric, counts, true, tuple(runs))
