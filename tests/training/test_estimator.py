"""The scikit-learn estimator: labels, parameters, tools of scikit-learn, and its own checks."""

from __future__ import annotations

import gc
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
from sklearn.base import clone, is_classifier
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.utils import estimator_checks, get_tags

from pennyweight.errors import DataError, RecipeError, RunError
from pennyweight.inference.classifier import Classifier
from pennyweight.runs.record import load_record
from pennyweight.training.estimator import PennyweightClassifier
from tiny import LABELS, QUICK, news

_ROWS = news(40, seed=1)
_TEXTS = [text for _, text in _ROWS]
_CODES = np.array([label for label, _ in _ROWS])


@pytest.fixture
def tiny_classifier(bert: Path) -> PennyweightClassifier:
    return PennyweightClassifier(base=str(bert), budget=20_000, seed=3, overrides=QUICK)


def test_a_fitted_estimator_answers_as_the_classifier_of_its_run(
    tiny_classifier: PennyweightClassifier, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    estimator = tiny_classifier.set_params(out=out)
    labels = pandas.Series(np.array(LABELS)[_CODES])
    assert estimator.fit(pandas.Series(_TEXTS), labels) is estimator
    assert list(estimator.classes_) == sorted(LABELS)
    run = Classifier.load(out)
    assert list(estimator.predict(np.array(_TEXTS))) == run.predict(_TEXTS)
    assert np.array_equal(estimator.predict_proba(_TEXTS), run.predict_proba(_TEXTS))
    assert estimator.score(_TEXTS, labels) == np.mean(estimator.predict(_TEXTS) == labels)
    record = load_record(out)
    assert (record.recipe.budget.trainable_parameters, record.recipe.seed) == (20_000, 3)
    assert record.recipe.adapter.rank == 2  # type: ignore[union-attr]
    again = pickle.loads(pickle.dumps(estimator))
    assert np.array_equal(again.predict(_TEXTS), estimator.predict(_TEXTS))
    with pytest.raises(RunError, match="not an empty directory; name a new one"):
        estimator.fit(_TEXTS, labels)


@pytest.mark.parametrize("classes", [[False, True], [3, 10], ["no", "yes"]], ids=str)
def test_labels_come_back_as_they_were_given(
    classes: list[Any], tiny_classifier: PennyweightClassifier
) -> None:
    labels = np.array(classes)[_CODES % 2]
    estimator = tiny_classifier.fit(_TEXTS, labels)
    assert estimator.classes_.tolist() == classes
    predicted = estimator.predict(_TEXTS)
    assert predicted.dtype == labels.dtype
    assert set(predicted.tolist()) <= set(classes)
    assert (estimator.run_ / "record.json").is_file()
    with pytest.raises(RunError, match="temporary directory"):
        pickle.dumps(estimator)


def test_a_temporary_run_is_removed_by_the_next_fit_and_with_the_estimator(
    tiny_classifier: PennyweightClassifier,
) -> None:
    estimator = clone(tiny_classifier).fit(_TEXTS, _CODES)
    first = estimator.run_
    second = estimator.fit(_TEXTS, _CODES).run_
    assert not first.exists()
    assert second.exists()
    del estimator
    gc.collect()
    assert not second.exists()


def test_a_fit_that_fails_leaves_the_fitted_estimator_as_it_was(
    tiny_classifier: PennyweightClassifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    estimator = clone(tiny_classifier).fit(_TEXTS, np.array(["no", "yes"])[_CODES % 2])
    before = estimator.predict(_TEXTS).tolist()

    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("pennyweight.training.estimator.train", interrupt)
    with pytest.raises(KeyboardInterrupt):
        estimator.fit(_TEXTS, np.array(["ham", "spam"])[_CODES % 2])
    assert estimator.predict(_TEXTS).tolist() == before
    assert (estimator.run_ / "record.json").is_file()


def test_numbers_of_numpy_are_parameters(tiny_classifier: PennyweightClassifier) -> None:
    estimator = clone(tiny_classifier).set_params(budget=np.int64(30_000), seed=np.int32(4))
    recipe = estimator.fit(_TEXTS, _CODES).record_.recipe
    assert (recipe.budget.trainable_parameters, recipe.seed) == (30_000, 4)


def test_a_table_is_refused_in_place_of_its_column(tiny_classifier: PennyweightClassifier) -> None:
    table = pandas.DataFrame({"text": _TEXTS})
    with pytest.raises(DataError, match="give one of its columns"):
        tiny_classifier.fit(table, _CODES)


def test_an_indicator_matrix_makes_a_multi_label_classifier(
    tiny_classifier: PennyweightClassifier,
) -> None:
    matrix = np.eye(4, dtype=int)[_CODES]
    matrix[:, 0] |= np.array(["after" in text for text in _TEXTS])
    estimator = tiny_classifier.fit(_TEXTS, matrix)
    predicted = estimator.predict(_TEXTS)
    assert predicted.shape == estimator.predict_proba(_TEXTS).shape == matrix.shape
    assert set(np.unique(predicted)) <= {0, 1}
    assert estimator.record_.is_multi_label
    with pytest.raises(ValueError, match="multi-label data representation"):
        estimator.fit(_TEXTS[:2], [["a"], ["a", "b"]])


def test_pairs_of_texts_are_classified(tiny_classifier: PennyweightClassifier) -> None:
    pairs = [(text, _TEXTS[0]) for text in _TEXTS]
    estimator = tiny_classifier.fit(pairs, _CODES)
    expected = estimator.predict_proba(pairs)
    assert estimator.record_.pair_columns == ("text", "text_pair")
    assert np.array_equal(estimator.predict_proba(np.array(pairs)), expected)


def test_cross_validation_and_grid_search_train_clones(
    tiny_classifier: PennyweightClassifier,
) -> None:
    scores = cross_val_score(tiny_classifier, _TEXTS, _CODES, cv=2, scoring="neg_log_loss")
    assert np.isfinite(scores).all()
    grid = {"overrides": [QUICK, {**QUICK, "adapter.rank": 1}], "budget": [15_000]}
    search = GridSearchCV(tiny_classifier, grid, cv=2, error_score="raise")
    search.fit(_TEXTS, _CODES)
    assert search.predict(_TEXTS[:3]).shape == (3,)
    assert search.best_estimator_.record_.plan.budget == 15_000


def test_parameters_are_kept_as_given_and_cloned(
    tiny_classifier: PennyweightClassifier,
) -> None:
    copy = clone(tiny_classifier)
    assert copy.get_params() == tiny_classifier.get_params()
    assert copy.set_params(seed=5).seed == 5
    assert tiny_classifier.seed == 3
    assert is_classifier(copy)
    with pytest.raises(NotFittedError):
        copy.predict(["a goal"])


@pytest.mark.parametrize(
    ("texts", "labels", "kind", "message"),
    [
        (_TEXTS[:3], [0, 1], ValueError, "inconsistent numbers of samples"),
        (_TEXTS[:2], None, ValueError, "target y is None"),
        (_TEXTS[:2], [1, 1], ValueError, "y: 1 class is too few"),
        (_TEXTS[:2], [0.5, 1.5], ValueError, "Unknown label type: continuous"),
        ([3, "a"], [0, 1], DataError, "element 0 is 3 of type int"),
        ("a text", [0], DataError, "put it in a list"),
        (["a", "b"], [0.0, float("nan")], ValueError, "contains NaN"),
    ],
)
def test_rows_that_cannot_be_used_are_refused(
    texts: Any,
    labels: Any,
    kind: type[Exception],
    message: str,
    tiny_classifier: PennyweightClassifier,
) -> None:
    with pytest.raises(kind, match=message):
        tiny_classifier.fit(texts, labels)


def test_an_unknown_key_among_the_overrides_is_refused() -> None:
    estimator = PennyweightClassifier(overrides={"adapter.rnak": 2})
    with pytest.raises(RecipeError, match='did you mean "rank"'):
        estimator.fit(_TEXTS, _CODES)


# scikit-learn skips its whole suite for estimators that do not take a numeric matrix. These checks
# give the estimator no rows; all others fit it to such a matrix.
_CHECKS = (
    "check_estimator_cloneable",
    "check_estimator_repr",
    "check_do_not_raise_errors_in_init_or_set_params",
    "check_estimator_tags_renamed",
    "check_get_params_invariance",
    "check_mixin_order",
    "check_no_attributes_set_in_init",
    "check_parameters_default_constructible",
    "check_set_params",
    "check_valid_tag_types",
)


@pytest.mark.parametrize("name", _CHECKS)
def test_the_checks_of_scikit_learn_that_need_no_matrix_pass(name: str) -> None:
    getattr(estimator_checks, name)("PennyweightClassifier", PennyweightClassifier())


def test_the_tags_say_that_texts_are_expected() -> None:
    tags = get_tags(PennyweightClassifier())
    assert tags.input_tags.string
    assert not tags.input_tags.two_d_array
    assert tags.classifier_tags is not None
    assert tags.classifier_tags.multi_label
