"""Scikit-learn's classifiers on the TF-IDF weights of texts, and their answers out of fold.

Scikit-learn is imported where it is used: every command that reads a recipe imports this package.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from pennyweight.threads import one_blas_thread

__all__ = ["out_of_fold", "tfidf_pipeline"]


def tfidf_pipeline(model: Any, *, words: int = 2, fewest_texts: int = 1) -> Any:
    """Return a pipeline, not fitted, of TF-IDF with logarithmic frequencies and a classifier.

    Args:
        model: the classifier.
        words: number of adjacent words in a term, at most.
        fewest_texts: number of texts that a term occurs in, at least.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import make_pipeline

    vectorizer = TfidfVectorizer(ngram_range=(1, words), sublinear_tf=True, min_df=fewest_texts)
    return make_pipeline(vectorizer, model)


@one_blas_thread()
def out_of_fold(
    model: Any,
    inputs: Any,
    labels: np.ndarray,
    *,
    folds: int,
    seed: int,
    method: Literal["predict_proba", "decision_function"] = "predict_proba",
) -> np.ndarray:
    """Return each row's answer of a model that was not fitted on the row.

    Args:
        model: a classifier of scikit-learn, which is fitted anew for each fold.
        inputs: its inputs, `[rows, ...]`.
        labels: `[rows]`; every fold has a like share of each class.
        folds: number of folds.
        seed: of the folds.
        method: of the classifier: its probabilities, `[rows, classes]`, or for two classes its
            scores, `[rows]`.
    """
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    splits = StratifiedKFold(folds, shuffle=True, random_state=seed)
    return np.asarray(cross_val_predict(model, inputs, labels, cv=splits, method=method))
