"""Logits and metrics of whole sets while a run is under way, rows shared out over processes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from accelerate import Accelerator
from accelerate.utils import gather_object

from pennyweight.engine.batch import Tokens
from pennyweight.engine.device import Compute
from pennyweight.engine.feed import Feed
from pennyweight.engine.predict import predict_logits
from pennyweight.errors import NonFiniteLossError
from pennyweight.evaluation import Metrics, measure
from pennyweight.recipe import Recipe

__all__ = ["Measuring", "predicted_shares"]


@dataclass(frozen=True, slots=True)
class Measuring:
    """A model that can be measured.

    Attributes:
        model: ready to run.
        feed: how it is fed.
        compute: device and precision.
        accelerator: knows the processes.
        recipe: for labels, batch size and bins.
    """

    model: Any
    feed: Feed
    compute: Compute
    accelerator: Accelerator
    recipe: Recipe

    def logits(self, tokens: Tokens, *, where: str) -> np.ndarray:
        """Logits of all rows, float32 `[rows, classes]`, in every process.

        Args:
            tokens: the rows.
            where: names the set in an error.

        Raises:
            NonFiniteLossError: a logit is NaN or infinite.
        """
        world, rank = self.accelerator.num_processes, self.accelerator.process_index
        classes = len(self.recipe.data.labels)
        logits = predict_logits(
            self.model,
            tokens.take(np.arange(rank, len(tokens), world)),
            feed=self.feed,
            compute=self.compute,
            batch_rows=self.recipe.train.evaluation_batch_rows,
            classes=classes,
        )
        if world > 1:
            together = np.empty((len(tokens), classes), dtype=np.float32)
            for offset, found in enumerate(gather_object([logits])):
                together[offset::world] = found
            logits = together
        if not np.isfinite(logits).all():
            raise NonFiniteLossError(
                f"{where}: the model's logits are NaN or infinite for "
                f"{int((~np.isfinite(logits)).any(axis=1).sum())} of {len(tokens)} rows"
            )
        return logits

    def metrics(self, tokens: Tokens, *, where: str) -> Metrics:
        """Metrics on labelled rows; the arguments are those of `logits`."""
        return measure(
            self.logits(tokens, where=where),
            tokens.labels,
            names=self.recipe.data.labels,
            bins=self.recipe.evaluate.calibration_bins,
        )


def predicted_shares(logits: np.ndarray, labels: tuple[str, ...]) -> Mapping[str, float]:
    """Which share of the rows each class is given."""
    shares = np.bincount(logits.argmax(axis=1), minlength=len(labels)) / len(logits)
    return dict(zip(labels, shares.tolist(), strict=True))
