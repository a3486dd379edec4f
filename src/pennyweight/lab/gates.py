"""Quality gates for generated texts: they reject copies, off-class texts and near duplicates."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from pennyweight.data.overlap import folded
from pennyweight.lab.filters import near_duplicates
from pennyweight.lab.text_models import tfidf_pipeline
from pennyweight.threads import one_blas_thread

__all__ = ["GateOptions", "copied", "counts_by_class", "pass_gates", "tfidf_judge"]

# From texts to class probabilities, `[texts, classes]`.
Judge = Callable[[Sequence[str]], np.ndarray]


@dataclass(frozen=True, slots=True)
class GateOptions:
    """Thresholds of the gates.

    Attributes:
        confidence: lowest probability that the judge may give the intended class, in 0..1.
        similarity: Jaccard similarity from which a text is a near duplicate, in 0..1.
        copied_words: number of consecutive words shared with a protected text that is a copy.
    """

    confidence: float
    similarity: float
    copied_words: int


@one_blas_thread()
def tfidf_judge(texts: Sequence[str], labels: np.ndarray, *, classes: int) -> Judge:
    """Fit TF-IDF on one and two words with logistic regression, and return its probabilities.

    Args:
        texts: training texts.
        labels: int64 `[texts]`.
        classes: number of classes; those without a text have a probability of 0.
    """
    # Imported here, because every command that reads a recipe imports this module.
    from sklearn.linear_model import LogisticRegression

    model = tfidf_pipeline(LogisticRegression(max_iter=1000, C=10.0)).fit(list(texts), labels)

    def judge(generated: Sequence[str]) -> np.ndarray:
        probabilities = np.zeros((len(generated), classes))
        probabilities[:, model.classes_] = model.predict_proba(list(generated))
        return probabilities

    return judge


def copied(texts: Sequence[str], protected: Iterable[str], *, words: int) -> np.ndarray:
    """Return which texts share a run of words with a protected text, bool `[texts]`.

    A text that equals a whole protected text counts even if it is shorter than the run.

    Args:
        texts: texts to check.
        protected: texts that must not be copied.
        words: length of the run.
    """
    runs: set[bytes] = set()
    whole: set[bytes] = set()
    for text in protected:
        tokens = _words(text)
        runs.update(_runs(tokens, words))
        whole.add(_digest(tokens))

    def is_copied(text: str) -> bool:
        tokens = _words(text)
        return _digest(tokens) in whole or any(run in runs for run in _runs(tokens, words))

    return np.array([is_copied(text) for text in texts], dtype=bool)


def pass_gates(
    texts: Sequence[str],
    labels: np.ndarray,
    options: GateOptions,
    *,
    judge: Judge | None,
    parents: Iterable[str],
    protected: Iterable[str],
) -> tuple[np.ndarray, dict[str, int]]:
    """Return which generated texts pass all gates, and how many each gate rejects.

    Args:
        texts: generated texts.
        labels: the classes that they were generated for, int64 `[texts]`.
        options: the gates' thresholds.
        judge: an independent classifier; None skips its gate.
        parents: training texts; near duplicates of them are rejected.
        protected: texts that must not leak into training, such as those of the evaluation sets;
            copies and near duplicates of them are rejected.

    Returns:
        The accepted texts, bool `[texts]`, and the numbers of texts rejected by "copied",
        "off-class" and "near-duplicate". A text is counted at the first gate that rejects it.
    """
    protected = list(protected)
    accepted = np.ones(len(texts), dtype=bool)
    rejected: dict[str, int] = {}

    def reject(gate: str, fails: np.ndarray) -> None:
        rejected[gate] = int((accepted & fails).sum())
        accepted[fails] = False

    reject("copied", copied(texts, protected, words=options.copied_words))
    if judge is not None:
        intended = judge(texts)[np.arange(len(texts)), labels]
        reject("off-class", intended < options.confidence)
    remaining = np.flatnonzero(accepted)
    near = np.zeros(len(texts), dtype=bool)
    near[remaining] = near_duplicates(
        [texts[row] for row in remaining.tolist()],
        similarity=options.similarity,
        others=chain(parents, protected),
    )
    reject("near-duplicate", near)
    return accepted, rejected


def counts_by_class(labels: np.ndarray, names: Sequence[str]) -> Mapping[str, int]:
    """Return the number of rows of each class, by its name."""
    counts = np.bincount(labels, minlength=len(names))
    return dict(zip(names, counts.tolist(), strict=True))


def _words(text: str) -> list[str]:
    return ["".join(letter for letter in word if letter.isalnum()) for word in folded(text).split()]


def _runs(tokens: Sequence[str], words: int) -> Iterable[bytes]:
    return (_digest(tokens[start : start + words]) for start in range(len(tokens) - words + 1))


def _digest(tokens: Sequence[str]) -> bytes:
    return hashlib.blake2b(" ".join(tokens).encode(), digest_size=12).digest()
