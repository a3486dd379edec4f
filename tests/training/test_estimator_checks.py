"""scikit-learn's whole suite, on an estimator that turns the suite's matrices into texts."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import numpy as np
import pytest
from sklearn.utils.estimator_checks import check_estimator
from sklearn.utils.validation import check_is_fitted, validate_data

from pennyweight.training.estimator import PennyweightClassifier
from tiny import QUICK, words_of

# Checks that cannot hold, with the reason.
_EXPECTED_FAILURES = {
    "check_estimators_pickle": "the run is in a temporary directory; with out, it can be pickled",
    "check_methods_sample_order_invariance": "rounding depends on which texts share a batch",
    "check_classifiers_train": "a tiny untrained encoder does not reach the accuracy",
}


class _OnNumbers(PennyweightClassifier):
    """Writes a word for each number, which depends on its column and its value.

    The rows are checked as those of any estimator on numbers, because the suite asks for it.
    """

    def __init__(
        self,
        *,
        budget: int = 20_000,
        base: str = "",
        seed: int = 3,
        overrides: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(budget=budget, base=base, seed=seed, overrides=overrides)

    def fit(self, X: Any, y: Any = None) -> Self:  # noqa: N803
        return super().fit(words_of(validate_data(self, X)), y)

    def predict(self, X: Any) -> np.ndarray:  # noqa: N803
        return super().predict(self._texts(X))

    def predict_proba(self, X: Any) -> np.ndarray:  # noqa: N803
        return super().predict_proba(self._texts(X))

    def _texts(self, X: Any) -> list[str]:  # noqa: N803
        check_is_fitted(self)
        return words_of(validate_data(self, X, reset=False))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string, tags.input_tags.two_d_array = False, True
        tags.no_validation = False
        return tags


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_the_suite_of_scikit_learn_passes_on_texts_made_of_numbers(bert: Path) -> None:
    estimator = _OnNumbers(base=str(bert), overrides=QUICK)
    results = check_estimator(
        estimator, expected_failed_checks=_EXPECTED_FAILURES, on_skip=None, on_fail=None
    )
    failed = {
        result["check_name"]: result["exception"]
        for result in results
        if result["status"] == "failed"
    }
    assert not failed
    passed = [result for result in results if result["status"] == "passed"]
    assert len(passed) > 40
