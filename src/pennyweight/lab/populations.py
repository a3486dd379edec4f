"""Tell texts that are written like the training texts from those that are not.

A linear discriminator reads the character n-grams of a text, which show how it is written rather
than what it is about. A target that is a mixture of both kinds is positive-unlabelled data (Elkan &
Noto 2008, doi:10.1145/1401890.1401920): the discriminator is fitted on training rows against target
rows, and again after the target rows that look like training rows have changed sides.

N-grams are hashed, so a fitted discriminator is two arrays of numbers and needs no vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from scipy.sparse import csr_matrix, diags

from pennyweight.errors import RunError
from pennyweight.lab.text_models import out_of_fold, tfidf_pipeline
from pennyweight.threads import one_blas_thread

__all__ = ["Separation", "TextDiscriminator", "density_ratios", "refuse_area", "separate"]

# scikit-learn is imported where it is used: every command that predicts imports this module.
_BUCKETS = 1 << 16
_NGRAMS = (2, 4)
# More training rows than this are sampled.
_MOST_TRAINING_ROWS = 24_000
_FEWEST_ROWS = 20
_STRENGTH, _ITERATIONS, _TOLERANCE = 3.0, 500, 1e-4
_FOLDS = 5
# How often the discriminator is fitted again after target rows have changed sides.
_REFITS = 1
# A text is unlike training if it scores higher than this share of the training texts.
_TYPICAL_SHARE = 0.97
# Below this area under the ROC curve, training and target texts are one population, and so they are
# if hardly more target rows than training rows are unlike training.
_SMALLEST_AREA, _SMALLEST_SHARE = 0.6, 0.08


@dataclass(frozen=True, slots=True)
class TextDiscriminator:
    """Scores texts by their character n-grams; a text with a score above 0 is unlike training.

    Attributes:
        weight: float32 `[buckets]`, of the TF-IDF weights of hashed n-grams.
        idf: float32 `[buckets]`, inverse document frequencies.
        intercept: added to every score.
    """

    weight: np.ndarray
    idf: np.ndarray
    intercept: float

    def scores(self, texts: Sequence[str]) -> np.ndarray:
        """Return a score for each text, float64 `[texts]`."""
        if not len(texts):
            return np.zeros(0)
        scores: np.ndarray = _tfidf(_counts(texts), self.idf) @ self.weight.astype(np.float64)
        return scores + self.intercept

    def save(self, path: Path) -> None:
        """Write the discriminator as safetensors."""
        tensors = {"weight": self.weight, "idf": self.idf}
        save_file(tensors | {"intercept": np.array([self.intercept])}, path)

    @classmethod
    def load(cls, path: Path) -> TextDiscriminator:
        """Read a discriminator.

        Raises:
            RunError: the file is missing or is no discriminator.
        """
        try:
            tensors = load_file(path)
            weight, idf, intercept = (tensors[name] for name in ("weight", "idf", "intercept"))
            if not weight.shape == idf.shape == (_BUCKETS,):
                raise ValueError(f"expected {_BUCKETS:,} weights, found {weight.shape}")
            return cls(weight, idf, float(intercept[0]))
        except (OSError, SafetensorError, KeyError, ValueError, IndexError) as error:
            raise RunError(f"{path}: cannot be read: {error}") from None


@dataclass(frozen=True, slots=True)
class Separation:
    """How far training and target texts can be told apart.

    Attributes:
        area: area under the ROC curve of training against target rows, cross-validated;
            None if there are too few rows to measure it.
        discriminator: tells the two kinds apart; None if the target is one population.
        refused: why the target is treated as one population; None if it is not.
    """

    area: float | None
    discriminator: TextDiscriminator | None
    refused: str | None = None


@one_blas_thread()
def separate(training: Sequence[str], target: Sequence[str], *, seed: int) -> Separation:
    """Fit a discriminator of training and target texts.

    Its threshold follows from training rows in folds that it was not fitted on: 3% of them score
    above it.

    Args:
        training: texts that the classifier is trained on.
        target: unlabelled texts.
        seed: of the sample of training texts and of the folds.
    """
    from sklearn.metrics import roc_auc_score

    if min(len(training), len(target)) < _FEWEST_ROWS:
        return Separation(None, None, f"fewer than {_FEWEST_ROWS} training or target rows")
    generator = np.random.default_rng((seed, 5))
    sample = np.sort(generator.permutation(len(training))[:_MOST_TRAINING_ROWS])
    counts = _counts([*(training[int(row)] for row in sample), *target])
    idf = _inverse_document_frequencies(counts)
    features = _tfidf(counts, idf)
    is_target = np.arange(counts.shape[0]) >= len(sample)
    labels, area, threshold = is_target, 0.5, 0.0
    for fit in range(1 + _REFITS):
        scores = out_of_fold(
            _regression(),
            features,
            labels,
            folds=_FOLDS,
            seed=seed + fit,
            method="decision_function",
        )
        if fit == 0:
            area = float(roc_auc_score(is_target, scores))
        threshold = float(np.quantile(scores[~is_target], _TYPICAL_SHARE))
        labels = is_target & (scores > threshold)
        if refused := _refusal(area, float(labels[is_target].mean())):
            return Separation(area, None, refused)
    model = _regression().fit(features, labels)
    return Separation(
        area,
        TextDiscriminator(
            model.coef_[0].astype(np.float32),
            idf.astype(np.float32),
            float(model.intercept_[0]) - threshold,
        ),
    )


def refuse_area(area: float) -> str | None:
    """Return why texts with this area under the ROC curve are one population; None otherwise."""
    if area < _SMALLEST_AREA:
        return f"they cannot be told apart (area under the ROC curve {area:.2f})"
    return None


def density_ratios(training: Sequence[str], target: Sequence[str], *, seed: int) -> np.ndarray:
    """Return how much denser the target is than training at each training text, float64 `[texts]`.

    A ratio is the odds of a discriminator that was not fitted on the text (Bickel et al. 2009, JMLR
    10). Unlike that of `separate`, it reads words: what a text is about counts, and there are not
    two kinds of target texts.

    Args:
        training: texts that the classifier is trained on.
        target: unlabelled texts.
        seed: of the folds.
    """
    from sklearn.linear_model import LogisticRegression

    is_target = np.arange(len(training) + len(target)) >= len(training)
    model = tfidf_pipeline(LogisticRegression(max_iter=1000), words=1, fewest_texts=2)
    scores = out_of_fold(model, [*training, *target], is_target, folds=_FOLDS, seed=seed)
    share = np.clip(scores[: len(training), 1], 1e-6, 1.0 - 1e-6)
    return share / (1.0 - share) * (len(training) / len(target))


def _refusal(area: float, share: float) -> str | None:
    if refused := refuse_area(area):
        return refused
    if share < _SMALLEST_SHARE:
        return (
            f"only {share:.1%} of the target rows are unlike the training rows, and "
            f"{1 - _TYPICAL_SHARE:.0%} of the training rows are"
        )
    return None


def _counts(texts: Sequence[str]) -> csr_matrix:
    """Return how often each hashed n-gram occurs, `[texts, buckets]`."""
    from sklearn.feature_extraction.text import HashingVectorizer

    vectorizer = HashingVectorizer(
        analyzer="char",
        ngram_range=_NGRAMS,
        n_features=_BUCKETS,
        alternate_sign=False,
        norm=None,
    )
    return vectorizer.transform(texts)


def _inverse_document_frequencies(counts: csr_matrix) -> np.ndarray:
    documents = np.bincount(counts.indices, minlength=_BUCKETS)
    frequencies: np.ndarray = np.log((1 + counts.shape[0]) / (1 + documents)) + 1.0
    return frequencies


def _tfidf(counts: csr_matrix, idf: np.ndarray) -> Any:
    """Return TF-IDF weights with logarithmic frequencies; every row has a length of 1."""
    from sklearn.preprocessing import normalize

    weights = counts.astype(np.float64)
    weights.data = np.log(weights.data) + 1.0
    return normalize(weights @ diags(idf.astype(np.float64)))


def _regression() -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(
        C=_STRENGTH, class_weight="balanced", max_iter=_ITERATIONS, tol=_TOLERANCE
    )
