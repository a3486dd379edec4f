"""Engines that compute the parts of a prediction. They return when all parts are done."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Protocol

from pennyweight.inference.parts.manifest import DonePart
from pennyweight.inference.parts.plan import Part, PredictJob
from pennyweight.inference.parts.predictor import PartPredictor
from pennyweight.inference.parts.ray_engine import predict_on_ray

__all__ = ["ENGINES", "Done", "Engine"]

# Is called with each part that is done, in any order.
Done = Callable[[DonePart], None]


class Engine(Protocol):
    """Predicts parts with one or more `PartPredictor`s."""

    def __call__(
        self,
        job: PredictJob,
        parts: Iterator[Part],
        *,
        done: Done,
        workers: int | None,
        log: Callable[[str], None],
    ) -> None:
        """Predict all parts.

        Args:
            job: of which the parts are.
            parts: are taken one after the other, as workers become free.
            done: is called in this process with each part that is done.
            workers: how many models there are; None to decide by the machines.
            log: gets a line about what the engine does.

        Raises:
            PennyweightError: a part cannot be predicted.
        """


def _local(
    job: PredictJob,
    parts: Iterator[Part],
    *,
    done: Done,
    workers: int | None,
    log: Callable[[str], None],
) -> None:
    """Predict in this process, which uses all cores or the GPU."""
    del workers, log
    predictor = None
    for part in parts:
        predictor = predictor or PartPredictor(job)
        done(predictor(part))


ENGINES: Mapping[str, Engine] = MappingProxyType({"local": _local, "ray": predict_on_ray})
