"""Quality gates for generated texts: what is unlike its class, said before, or copied, dies."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from pennyweight.data.overlap import folded
from pennyweight.lab.filters import near_duplicates

__all__ = ["copied", "counts_by_class", "pass_gates", "tfidf_judge"]

# From texts to class probabilities `[texts, classes]`.
Judge = Callable[[Sequence[str]], np.ndarray]


def tfidf_judge(texts: Sequence[str], labels: np.ndarray) -> Judge:
    """An independent classifier: TF-IDF of one and two words with logistic regression."""
    model = make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=1),
        LogisticRegression(max_iter=1000, C=10.0),
    )
    model.fit(list(texts), labels)

    def judge(asked: Sequence[str]) -> np.ndarray:
        found: np.ndarray = model.predict_proba(list(asked))
        return found

    return judge


def copied(texts: Sequence[str], protected: Iterable[str], *, words: int) -> np.ndarray:
    """Which texts share a run of so many words with a protected text; bool `[texts]`.

    Texts of fewer words count where they stand in a protected text whole.
    """
    known: set[bytes] = set()
    whole: set[bytes] = set()
    for text in protected:
        tokens = _words(text)
        known.update(_runs(tokens, words))
        whole.add(_digest(tokens))
    found = np.zeros(len(texts), dtype=bool)
    for at, text in enumerate(texts):
        tokens = _words(text)
        found[at] = _digest(tokens) in whole or any(run in known for run in _runs(tokens, words))
    return found


def pass_gates(
    texts: Sequence[str],
    labels: np.ndarray,
    *,
    judge: Judge | None,
    confidence: float,
    similarity: float,
    parents: Sequence[str],
    protected: Iterable[str],
    words: int,
) -> tuple[np.ndarray, dict[str, int]]:
    """Which generated texts live, bool `[texts]`, and how many died at each gate, in order.

    Args:
        texts: generated.
        labels: the classes they are meant for, int64 `[texts]`.
        judge: an independent classifier; None to let every text pass.
        confidence: probability of the intended class that it must give at least.
        similarity: from which a text is a near duplicate of another one, of a training text, or of
            a protected one.
        parents: training texts.
        protected: evaluation texts and others that none may copy.
        words: length of a run that counts as copied.
    """
    known = list(protected)
    alive = np.ones(len(texts), dtype=bool)
    died: dict[str, int] = {}

    def close(gate: str, fails: np.ndarray) -> None:
        died[gate] = int((alive & fails).sum())
        alive[fails] = False

    close("copied", copied(texts, known, words=words))
    if judge is not None:
        given = judge(texts)[np.arange(len(texts)), labels]
        close("another class", given < confidence)
    living = np.flatnonzero(alive)
    near = near_duplicates(
        [texts[at] for at in living.tolist()], similarity=similarity, others=[*parents, *known]
    )
    fails = np.zeros(len(texts), dtype=bool)
    fails[living] = near
    close("near duplicate", fails)
    return alive, died


def counts_by_class(labels: np.ndarray, names: Sequence[str]) -> Mapping[str, int]:
    """How many rows each class has."""
    counts = np.bincount(labels, minlength=len(names))
    return dict(zip(names, counts.tolist(), strict=True))


def _words(text: str) -> list[str]:
    return ["".join(letter for letter in word if letter.isalnum()) for word in folded(text).split()]


def _runs(tokens: Sequence[str], words: int) -> Iterable[bytes]:
    return (_digest(tokens[at : at + words]) for at in range(len(tokens) - words + 1))


def _digest(tokens: Sequence[str]) -> bytes:
    return hashlib.blake2b(" ".join(tokens).encode(), digest_size=12).digest()
