"""Full fine-tuning: every weight of the base is trained, for a teacher or a baseline."""

from __future__ import annotations

from typing import Literal

from pennyweight.budget.methods.method import Method, Support
from pennyweight.budget.methods.sections import AdapterSection

__all__ = ["METHODS", "FullAdapter"]


class FullAdapter(AdapterSection):
    """`[adapter]`: no adapter; every weight is trained.

    A run may exceed the budget. Its model can be a teacher, but cannot be submitted.
    """

    method: Literal["full"] = "full"


METHODS: tuple[Method, ...] = (
    Method(
        name="full",
        summary="every weight of the base is trained, for a teacher or a baseline",
        formula="rows * columns",
        paper="Devlin et al. 2018, BERT, arXiv:1810.04805",
        section=FullAdapter,
        parameters=lambda matrix, rank, options: matrix.rows * matrix.columns,
        config=None,
        tensors=None,
        dial=None,
        support=Support(quantizations=("none",)),
    ),
)
