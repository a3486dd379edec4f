"""The number of threads that numerical libraries use."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["one_blas_thread"]


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Let NumPy and SciPy compute in one thread; as a context, or as a decorator of a function.

    Scikit-learn's regressions run thousands of small matrix products. Threads that wait for each
    other cost more there than they compute: with two threads, a fit takes 2 to 5 times as long, and
    3 to 14 times as long while other programs use the cores (`benchmarks/blas_threads.py`).
    """
    # Only libraries that are loaded already are limited.
    import sklearn.linear_model  # noqa: F401
    from threadpoolctl import threadpool_limits

    with threadpool_limits(limits=1, user_api="blas"):
        yield
