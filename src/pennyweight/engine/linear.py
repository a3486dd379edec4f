"""Logistic regression on fixed features: on embeddings, which also starts a head, and on TF-IDF.

Training a head on the frozen encoder before the adapters keeps more of what the encoder has learned
than starting from a random head does (LP-FT, Kumar et al. 2022, arXiv:2202.10054).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy.sparse import issparse
from scipy.special import log_softmax

from pennyweight.threads import one_blas_thread

__all__ = ["LinearClassifier", "LinearOptions", "TfidfClassifier", "fit_logistic", "fit_tfidf"]

Solver = Literal["lbfgs", "liblinear", "newton-cholesky"]

# Inverse strengths of the regularization that are compared, as scikit-learn defines `C`, for
# features with a mean square of 1.
_STRENGTHS = (0.01, 0.03, 0.1, 0.3, 1.0)
_FOLDS = 5
# With more rows, the strength is chosen on a sample and with a single held-out part.
_MANY_ROWS, _SAMPLE = 2_000, 8_000
# A regression for each of several labels is slow: with more rows, it has one held-out part too.
_FEW_ROWS = 500
_ITERATIONS = 1000
# With more rows than this for each feature, Newton's method is the fastest for two classes.
_TALL = 20
# Terms are words and pairs of adjacent words, the most frequent ones where there are many.
_MOST_TERMS = 200_000
_WORD = r"(?u)\w+|[^\w\s]"
_TFIDF_STRENGTH = 10.0
# The bias of a class without rows.
_IMPROBABLE = -10.0


@dataclass(frozen=True, slots=True)
class LinearOptions:
    """How a linear classifier is fitted.

    Attributes:
        classes: number of classes.
        seed: seed of the folds.
        strength: inverse strength of the regularization; None to choose it by cross-validation.
    """

    classes: int
    seed: int
    strength: float | None = None


@dataclass(frozen=True, slots=True)
class LinearClassifier:
    """A linear classifier of features.

    Attributes:
        weight: float32 `[classes, features]`.
        bias: float32 `[classes]`.
        strength: the inverse strength of the regularization that cross-validation chose.
        seconds: how long the fit with this strength took.
    """

    weight: np.ndarray
    bias: np.ndarray
    strength: float
    seconds: float = 0.0

    def logits(self, features: np.ndarray) -> np.ndarray:
        """Return the logits of features `[rows, features]`, float32 `[rows, classes]`."""
        return np.asarray(features @ self.weight.T + self.bias, dtype=np.float32)


@dataclass(frozen=True, slots=True)
class TfidfClassifier:
    """A linear classifier of texts by the TF-IDF weights of their words and pairs of words.

    Attributes:
        vectorizer: scikit-learn's `TfidfVectorizer`, fitted.
        weight: `[classes, terms]`.
        bias: `[classes]`.
    """

    vectorizer: Any
    weight: np.ndarray
    bias: np.ndarray

    def logits(self, texts: Sequence[str]) -> np.ndarray:
        """Return the logits of texts, float32 `[texts, classes]`."""
        features = self.vectorizer.transform(texts)
        return np.asarray(features @ self.weight.T + self.bias, dtype=np.float32)


@one_blas_thread()
def fit_tfidf(texts: Sequence[str], labels: np.ndarray, options: LinearOptions) -> TfidfClassifier:
    """Fit a logistic regression on the TF-IDF weights of words and pairs of words.

    Args:
        texts: training texts.
        labels: as for `fit_logistic`.
        options: the number of classes and the seed.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    # Any run of characters is a word, so that no text is without words.
    vectorizer = TfidfVectorizer(
        ngram_range=(1, 2),
        sublinear_tf=True,
        max_features=_MOST_TERMS,
        token_pattern=_WORD,
    )
    features = vectorizer.fit_transform(texts)
    weight, bias = _fit(features, labels, _TFIDF_STRENGTH, options.classes)
    return TfidfClassifier(vectorizer, weight, bias)


@one_blas_thread()
def fit_logistic(
    features: np.ndarray, labels: np.ndarray, options: LinearOptions
) -> LinearClassifier:
    """Fit a logistic regression whose L2 regularization is given or chosen by cross-validation.

    In cross-validation, the strength with the smallest mean log loss on held-out rows is used: five
    folds for few rows, one held-out part of a sample for many. A class without rows gets a weight
    of zero and a bias that makes it improbable.

    Args:
        features: float `[rows, features]`.
        labels: int64 `[rows]`, class indices; or `[rows, classes]` of 0 and 1 where a row may have
            several labels, which fits an independent regression for each class.
        options: the number of classes and the seed.
    """
    mean = features.mean(axis=0)
    centred = features - mean
    scale = float(centred.std()) or 1.0
    standardized = (centred / scale).astype(np.float32)
    strength = options.strength or _choose_strength(standardized, labels, options)
    started = time.perf_counter()
    weight, bias = _fit(standardized, labels, strength, options.classes)
    seconds = time.perf_counter() - started
    weight = weight / scale
    bias = bias - weight @ mean
    return LinearClassifier(weight.astype(np.float32), bias.astype(np.float32), strength, seconds)


def _choose_strength(features: np.ndarray, labels: np.ndarray, options: LinearOptions) -> float:
    losses = np.zeros(len(_STRENGTHS))
    for train, held_out in _held_out_parts(len(labels), options.seed, is_slow=labels.ndim == 2):
        for number, strength in enumerate(_STRENGTHS):
            weight, bias = _fit(features[train], labels[train], strength, options.classes)
            losses[number] += _log_loss(features[held_out] @ weight.T + bias, labels[held_out])
    return _STRENGTHS[int(losses.argmin())]


def _held_out_parts(
    rows: int, seed: int, *, is_slow: bool
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield pairs of row indices, to fit on and to measure on; one pair where a fit is slow."""
    order = np.random.default_rng(seed).permutation(rows)
    if rows > _MANY_ROWS or (is_slow and rows > _FEW_ROWS):
        sample = order[:_SAMPLE]
        yield sample[: len(sample) * 4 // 5], sample[len(sample) * 4 // 5 :]
        return
    for part in np.array_split(order, min(_FOLDS, rows)):
        if len(part) < rows:
            yield np.setdiff1d(order, part), part


def _fit(
    features: Any, labels: np.ndarray, strength: float, classes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the weights `[classes, features]` and biases `[classes]`."""
    if labels.ndim == 2:
        columns = [_fit_binary(features, labels[:, number], strength) for number in range(classes)]
        return np.stack([weight for weight, _ in columns]), np.array([bias for _, bias in columns])
    weight = np.zeros((classes, features.shape[1]))
    bias = np.full(classes, _IMPROBABLE)
    present = np.unique(labels)
    if len(present) == 1:
        bias[present] = 0.0
        return weight, bias
    model = _regression(strength).fit(features, labels)
    if len(present) == 2:
        # Scikit-learn has one row for two classes; halves of it give the same probabilities.
        weight[present] = np.concatenate([-model.coef_, model.coef_]) / 2
        bias[present] = np.concatenate([-model.intercept_, model.intercept_]) / 2
    else:
        weight[present], bias[present] = model.coef_, model.intercept_
    return weight, bias


def _fit_binary(features: Any, labels: np.ndarray, strength: float) -> tuple[np.ndarray, float]:
    if len(np.unique(labels)) == 1:
        return np.zeros(features.shape[1]), _IMPROBABLE * (1 if labels[0] == 0 else -1)
    model = _regression(strength, solver=_binary_solver(features)).fit(features, labels)
    return model.coef_[0], float(model.intercept_[0])


def _binary_solver(features: Any) -> Solver:
    """Return the fastest solver for two classes."""
    if issparse(features):
        return "liblinear"
    rows, columns = features.shape
    return "newton-cholesky" if rows > _TALL * columns else "lbfgs"


def _regression(strength: float, *, solver: Solver = "lbfgs") -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=strength, max_iter=_ITERATIONS, solver=solver)


def _log_loss(logits: np.ndarray, labels: np.ndarray) -> float:
    """Return the log loss, summed over rows and over the classes of several labels."""
    if labels.ndim == 1:
        return float(-log_softmax(logits, axis=1)[np.arange(len(labels)), labels].sum())
    return float(np.logaddexp(0.0, np.where(labels == 1, -logits, logits)).sum())
