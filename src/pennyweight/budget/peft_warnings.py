"""Warnings of PEFT that are expected and would only worry a user."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["ignore_expected_warnings"]

_EXPECTED = (
    # PEFT asks transformers for an attribute by a deprecated name.
    ".*is_gradient_checkpointing",
    # The adapters are initialized from the training rows later.
    ".*eva initialization used with",
    # AdaLoRA may leave a matrix without any rank.
    ".*have invalid shape",
    ".*rank_pattern keys did not match",
    # LN tuning adapts layers that are not linear.
    ".*Unsupported layer type .*Norm'",
    # SHiRA merges a sparse matrix.
    "Sparse invariant checks are implicitly disabled",
    # BOFT runs without its CUDA extension too, with one butterfly factor, which is what is used.
    "Failed to load the CUDA extension",
    "Setting boft_n_butterfly_factor to 1",
)


@contextmanager
def ignore_expected_warnings() -> Iterator[None]:
    """Silence warnings of PEFT that Pennyweight expects, while an adapted model is made."""
    with warnings.catch_warnings():
        for message in _EXPECTED:
            warnings.filterwarnings("ignore", message=message)
        yield
