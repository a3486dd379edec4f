"""The `[train.loss]` section: one model for each loss of labelled rows."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat

from pennyweight.section import Section

__all__ = ["CrossEntropy", "Focal", "LogitAdjusted", "Loss"]


class CrossEntropy(Section):
    """Cross-entropy: with a softmax or, in a multi-label task, with a sigmoid for each class."""

    method: Literal["cross-entropy"] = "cross-entropy"


class Focal(Section):
    """Focal loss: rows that are classified well count less (Lin et al. 2017, arXiv:1708.02002)."""

    method: Literal["focal"] = "focal"
    gamma: PositiveFloat = Field(
        2.0, description="the exponent of one minus the probability of the label"
    )


class LogitAdjusted(Section):
    """Cross-entropy of logits with the classes' log shares added (Menon et al. 2021).

    arXiv:2007.07314. It trains the classifier to have a low balanced error, in which every class
    counts the same. Predictions are made without the addition.
    """

    method: Literal["logit-adjusted"] = "logit-adjusted"
    tau: PositiveFloat = Field(1.0, description="the factor of the log shares")


Loss = Annotated[CrossEntropy | Focal | LogitAdjusted, Field(discriminator="method")]
