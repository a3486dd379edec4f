"""scikit-learn's estimator interface over training."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import check_consistent_length, check_is_fitted, column_or_1d

from pennyweight.environment import cache_directory
from pennyweight.errors import DataError, RunError
from pennyweight.evaluation.thresholds import decide
from pennyweight.files import replacing
from pennyweight.inference.classifier import Classifier
from pennyweight.inference.texts import Text, checked_pairs, checked_texts, refuse_tables
from pennyweight.recipe import Recipe
from pennyweight.recipe.load import as_recipe, change_recipe
from pennyweight.training.train import train

__all__ = ["PennyweightClassifier"]

_PAIR = ("text", "text_pair")


class PennyweightClassifier(ClassifierMixin, BaseEstimator):
    """A text classifier that is trained under a parameter budget, as a scikit-learn estimator.

    `fit` does what `pennyweight train --data` does with the rows. A parameter that is None leaves
    the recipe as it is. Texts are strings, or tuples of two strings for pairs of texts.

    Args:
        budget: maximum number of trainable parameters.
        base: "embedded", a local directory, or a hub id.
        seed: of everything that is random.
        recipe: name of a shipped recipe, a TOML file, a run directory, or a `Recipe`.
        overrides: other values of recipe keys by their dotted names, such as
            `{"train.minutes": 5, "adapter.rank": 8}`.
        out: the run's directory, which must be missing or empty; None for a temporary one, which
            is removed together with the estimator.

    Attributes:
        classes_: the labels in sorted order, `[classes]`; for an indicator matrix, the numbers of
            its columns.
        run_: the directory of the finished run.
        record_: its `RunRecord`.
    """

    def __init__(
        self,
        *,
        budget: int | None = None,
        base: str | None = None,
        seed: int | None = None,
        recipe: str | Path | Recipe = "quickstart",
        overrides: Mapping[str, Any] | None = None,
        out: str | Path | None = None,
    ) -> None:
        self.budget = budget
        self.base = base
        self.seed = seed
        self.recipe = recipe
        self.overrides = overrides
        self.out = out

    def fit(self, X: Iterable[Text], y: Any) -> Self:  # noqa: N803 - scikit-learn's name
        """Train on texts and their labels.

        Args:
            X: list, array or pandas Series of texts, or of tuples of two texts.
            y: a label for each text: strings, integers, booleans or anything else that can be
                sorted; or an indicator matrix of 0 and 1 for several labels per text.

        Raises:
            ValueError: `X` and `y` differ in length, or `y` is missing or does not name at least
                two classes.
            PennyweightError: the rows, or a parameter, cannot be used; see `pennyweight.train`.
        """
        texts, are_pairs = _checked(X)
        is_multi_label, classes, codes = _encoded(texts, y)
        names = [str(label) for label in classes.tolist()]
        rows = _write_rows(texts, codes, names)
        values: dict[str, Any] = {
            "budget.trainable_parameters": self.budget,
            "base.name": self.base,
            "seed": self.seed,
        }
        values = {key: _plain(value) for key, value in values.items() if value is not None}
        source = {"location": str(rows), "format": "jsonl", "label_column": "label"}
        columns = {"pair_columns": list(_PAIR)} if are_pairs else {"text_columns": ["text"]}
        values |= {key: _plain(value) for key, value in (self.overrides or {}).items()}
        values |= {
            "data.train": source | columns,
            "data.labels": names,
            "data.task": "multi-label" if is_multi_label else "single-label",
        }
        recipe = change_recipe(as_recipe(self.recipe), values, origin="PennyweightClassifier")
        run, remove = self._new_directory()
        try:
            record = train(recipe, out=run)
            loaded = Classifier.load(run)
        except BaseException:
            # An estimator that was fitted before stays as it was.
            if remove is not None:
                remove()
            raise
        self._forget_directory()
        if remove is not None:
            self._remove = remove
        self.classes_, self.record_, self.run_ = classes, record, run
        self._loaded: Classifier | None = loaded
        return self

    def predict(self, X: Iterable[Text]) -> np.ndarray:  # noqa: N803 - scikit-learn's name
        """Return the label of each text, `[texts]`, or an indicator matrix `[texts, classes]`.

        Raises:
            NotFittedError: `fit` was not called.
            DataError: an element is not a text.
        """
        classifier = self._classifier()
        probabilities = classifier.predict_proba(_checked(X)[0])
        if classifier.task == "multi-label":
            return decide(probabilities, classifier.thresholds).astype(np.int64)
        labels: np.ndarray = self.classes_[probabilities.argmax(axis=1)]
        return labels

    def predict_proba(self, X: Iterable[Text]) -> np.ndarray:  # noqa: N803 - scikit-learn's name
        """Return the calibrated probability of each class, float64 `[texts, classes]`.

        Raises:
            NotFittedError: `fit` was not called.
            DataError: an element is not a text.
        """
        return self._classifier().predict_proba(_checked(X)[0])

    def _classifier(self) -> Classifier:
        check_is_fitted(self, "run_")
        if self._loaded is None:
            self._loaded = Classifier.load(self.run_)
        return self._loaded

    def _new_directory(self) -> tuple[Path, Callable[[], object] | None]:
        """Return the directory to train in, and what removes it if it is a temporary one."""
        if self.out is not None:
            out = Path(self.out)
            if out.exists() and (not out.is_dir() or any(out.iterdir())):
                raise RunError(
                    f"{out}: not an empty directory; name a new one with out, or remove it"
                )
            return out, None
        folder = tempfile.mkdtemp(prefix="pennyweight-")
        remove = weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        return Path(folder) / "run", remove

    def _forget_directory(self) -> None:
        """Remove the temporary directory of an earlier fit."""
        if hasattr(self, "_remove"):
            self._remove()
            del self._remove

    def __getstate__(self) -> dict[str, Any]:
        if hasattr(self, "_remove"):
            raise RunError(
                "PennyweightClassifier: the run is in a temporary directory, which another process "
                "cannot rely on; to pickle or copy the fitted estimator, set out to a directory"
            )
        state: dict[str, Any] = super().__getstate__()
        # Loaded again from the run's directory.
        return {**state, "_loaded": None} if "_loaded" in state else state

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.two_d_array = False
        tags.classifier_tags.multi_label = True
        tags.no_validation = True
        return tags


def _plain(value: Any) -> Any:
    """Return a number of numpy, which a search over parameters may give, as one of Python."""
    return value.item() if isinstance(value, np.generic) else value


def _checked(texts: Iterable[Any]) -> tuple[list[str] | list[tuple[str, str]], bool]:
    """Return texts or pairs of texts as a list, and whether they are pairs.

    Raises:
        DataError: an element is neither.
    """
    if isinstance(texts, str):
        return checked_texts(texts), False
    refuse_tables(texts)
    rows = [row.tolist() if isinstance(row, np.ndarray) else row for row in texts]
    if rows and isinstance(rows[0], tuple | list):
        return checked_pairs(rows, _PAIR), True
    return checked_texts(rows), False


def _encoded(
    texts: list[str] | list[tuple[str, str]], y: Any
) -> tuple[bool, np.ndarray, np.ndarray]:
    """Return whether the task is multi-label, the classes, and their codes.

    The codes are int64 `[rows]`, or 0 and 1 as `[rows, classes]`.

    Raises:
        ValueError: there are no labels, or not as many as texts, or fewer than two classes.
        DataError: the labels cannot be sorted.
    """
    if y is None:
        raise ValueError("PennyweightClassifier requires y to be passed, but the target y is None")
    check_consistent_length(texts, y)
    if any(map(_is_nan, y)):
        raise ValueError("y: contains NaN; give every text a label")
    try:
        check_classification_targets(y)
        if type_of_target(y, input_name="y") == "multilabel-indicator":
            matrix = np.asarray(y.toarray() if hasattr(y, "toarray") else y).astype(np.int64)
            return True, np.arange(matrix.shape[1]), matrix
        classes, codes = np.unique(column_or_1d(y, warn=True), return_inverse=True)
    except TypeError as error:
        raise DataError(
            f"y: the labels cannot be sorted ({error}); give labels of one type, without missing "
            "ones"
        ) from None
    if len(classes) < 2:
        raise ValueError(f"y: {len(classes)} class is too few; at least 2 are needed")
    return False, classes, codes


def _write_rows(
    texts: list[str] | list[tuple[str, str]], codes: np.ndarray, names: list[str]
) -> Path:
    """Write rows into the cache as JSON Lines, once for equal rows, and return the file.

    Training reads rows from a file. A file that stays the same is read and tokenized once,
    whatever the number of fits, as in a grid search.
    """
    lines = []
    for text, code in zip(texts, codes.tolist(), strict=True):
        is_list = isinstance(code, list)
        label = [name for name, one in zip(names, code, strict=True) if one] if is_list else None
        row = dict(zip(_PAIR, text, strict=True)) if isinstance(text, tuple) else {"text": text}
        lines.append(json.dumps({**row, "label": label if is_list else names[code]}) + "\n")
    content = "".join(lines)
    folder = cache_directory() / "estimator"
    path = folder / f"{hashlib.sha256(content.encode()).hexdigest()[:24]}.jsonl"
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(path) as part:
            part.write_text(content, encoding="utf-8")
    return path


def _is_nan(label: object) -> bool:
    return isinstance(label, float) and math.isnan(label)
