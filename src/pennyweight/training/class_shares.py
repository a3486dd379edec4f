"""The class shares that a run's probabilities reflect, from which a correction starts."""

from __future__ import annotations

import datasets
import numpy as np

from pennyweight.data.stratify import label_lists
from pennyweight.engine.train.balance import learned_shares
from pennyweight.runs.record import RunRecord
from pennyweight.settings.values import Settings

__all__ = ["learned_class_shares"]


def learned_class_shares(
    settings: Settings, rows: datasets.Dataset, *, record: RunRecord
) -> np.ndarray:
    """Return the class shares that a run of a single-label task learns, float64 `[classes]`.

    Args:
        settings: of the run, which may correct for uneven classes in training.
        rows: the training rows, with the column label.
        record: of the run, which says whether its head was fitted again.
    """
    labels, _ = label_lists(rows)
    fit, classes = settings.fit, len(settings.labels)
    is_refit = record.keeps_refit
    if is_refit is None:
        is_refit = fit.refits_head and not record.skips_refit
    if is_refit:
        # The last fit of the head has no correction.
        return learned_shares(labels, classes=classes)
    return learned_shares(
        labels,
        classes=classes,
        is_balanced=fit.options.sampling == "balanced",
        is_weighted=fit.objective.balance,
        tau=fit.objective.logit_adjustment,
    )
