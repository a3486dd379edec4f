"""Scikit-learn's regressions run in one thread, and what follows has all threads again."""

from __future__ import annotations

import threadpoolctl

from pennyweight.threads import one_blas_thread


def _blas_threads() -> set[int]:
    return {
        library["num_threads"]
        for library in threadpoolctl.threadpool_info()
        if library["user_api"] == "blas"
    }


def test_blas_has_one_thread_inside_and_as_many_as_before_outside() -> None:
    @one_blas_thread()
    def fit() -> set[int]:
        return _blas_threads()

    with threadpoolctl.threadpool_limits(2, "blas"):
        for _ in range(2):
            assert fit() == {1}
            assert _blas_threads() == {2}
