"""Logits and metrics of whole sets while a run is under way, rows shared out over processes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from accelerate import Accelerator
from accelerate.utils import gather_object

from pennyweight.budget.layout import layout_of
from pennyweight.engine.batch import Tokens
from pennyweight.engine.device import Compute
from pennyweight.engine.feed import Feed
from pennyweight.engine.predict import predict_both, predict_logits
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
        classes = len(self.recipe.data.labels)

        def mine(part: Tokens) -> np.ndarray:
            return predict_logits(self.model, part, classes=classes, **self._how())

        return self._finite(self._shared_out(tokens, mine, width=classes), where=where)

    def both(self, tokens: Tokens, *, where: str) -> tuple[np.ndarray, np.ndarray]:
        """Logits, and the features that go into the output layer, `[rows, hidden]`."""
        classes = len(self.recipe.data.labels)
        output = layout_of(self.model, labels=classes).head_output

        def mine(part: Tokens) -> np.ndarray:
            pair = predict_both(self.model, part, output_layer=output.name, **self._how())
            return np.concatenate(pair, axis=1)

        found = self._shared_out(tokens, mine, width=classes + output.columns)
        return self._finite(found[:, :classes], where=where), found[:, classes:]

    def _how(self) -> dict[str, Any]:
        size = self.recipe.train.evaluation_batch_rows
        return {"feed": self.feed, "compute": self.compute, "batch_rows": size}

    def _shared_out(
        self, tokens: Tokens, mine: Callable[[Tokens], np.ndarray], *, width: int
    ) -> np.ndarray:
        """What `mine` gives for every row, each process having worked on its share."""
        world, rank = self.accelerator.num_processes, self.accelerator.process_index
        if world == 1:
            return mine(tokens)
        own = mine(tokens.take(np.arange(rank, len(tokens), world)))
        together = np.empty((len(tokens), width), dtype=np.float32)
        for offset, found in enumerate(gather_object([own])):
            together[offset::world] = found
        return together

    def _finite(self, logits: np.ndarray, *, where: str) -> np.ndarray:
        if not np.isfinite(logits).all():
            raise NonFiniteLossError(
                f"{where}: the model's logits are NaN or infinite for "
                f"{int((~np.isfinite(logits)).any(axis=1).sum())} of {len(logits)} rows"
            )
        return logits

    def metrics(self, tokens: Tokens, *, where: str) -> Metrics:
        """Metrics on labelled rows; the arguments are those of `logits`."""
        return self.metrics_of(self.logits(tokens, where=where), tokens)

    def metrics_of(self, logits: np.ndarray, tokens: Tokens) -> Metrics:
        """Metrics on labelled rows whose logits are known."""
        return measure(
            logits,
            tokens.labels,
            names=self.recipe.data.labels,
            bins=self.recipe.evaluate.calibration_bins,
        )


def predicted_shares(logits: np.ndarray, labels: tuple[str, ...]) -> Mapping[str, float]:
    """Which share of the rows each class is given."""
    shares = np.bincount(logits.argmax(axis=1), minlength=len(labels)) / len(logits)
    return dict(zip(labels, shares.tolist(), strict=True))
