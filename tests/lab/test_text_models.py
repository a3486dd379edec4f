"""TF-IDF pipelines, and answers for rows that a model was not fitted on."""

from __future__ import annotations

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

from pennyweight.lab.text_models import out_of_fold, tfidf_pipeline


def test_a_row_is_answered_by_a_model_that_was_not_fitted_on_it() -> None:
    inputs = np.r_[np.arange(0.0, 1.0, 0.1), np.arange(5.0, 6.0, 0.1)][:, None]
    labels = np.repeat([0, 1], 10)
    labels[3] = 1
    # The nearest neighbour of a row that was fitted would be the row itself.
    nearest = KNeighborsClassifier(n_neighbors=1)
    probabilities = out_of_fold(nearest, inputs, labels, folds=5, seed=0)
    assert probabilities.shape == (20, 2)
    assert probabilities[3].tolist() == [1.0, 0.0]


def test_terms_are_words_and_pairs_of_words_that_are_frequent_enough() -> None:
    texts, labels = ["late goal", "late goal wins", "profit"], np.array([0, 0, 1])
    terms = tfidf_pipeline(LogisticRegression()).fit(texts, labels)[0].get_feature_names_out()
    assert {"late goal", "profit"} < set(terms)
    frequent = tfidf_pipeline(LogisticRegression(), words=1, fewest_texts=2).fit(texts, labels)
    assert set(frequent[0].get_feature_names_out()) == {"late", "goal"}
