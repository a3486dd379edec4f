"""The functions behind the routes: texts in, answers out, within the limits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from pennyweight.errors import DataError, PennyweightError
from pennyweight.evaluation.decisions import given_classes, ranked
from pennyweight.inference.texts import Text
from pennyweight.serve.batching import BatchQueue
from pennyweight.serve.catalog import Bank, Catalog, Served
from pennyweight.serve.metrics import Metrics
from pennyweight.serve.options import Limits, ServeOptions
from pennyweight.serve.refusal import RefusedError

__all__ = ["Answer", "Service"]

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to one text.

    Attributes:
        served: the version of the classifier that answered.
        probabilities: of its classes, float `[classes]`.
    """

    served: Served
    probabilities: np.ndarray

    @property
    def ranked(self) -> list[tuple[str, float]]:
        """The classes with their probabilities, the most probable first."""
        labels = self.served.entry.labels
        return [
            (labels[index], float(self.probabilities[index]))
            for index in ranked(self.probabilities).tolist()
        ]

    @property
    def labels(self) -> list[str]:
        """The labels that the text is given, the most probable first.

        It is one for a single-label classifier.
        """
        entry = self.served.entry
        (given,) = given_classes(self.probabilities[None], entry.thresholds)
        return [entry.labels[index] for index in given]


class Service:
    """Answers texts with the classifiers of a bank.

    Args:
        bank: computes in one thread only, that of the queue.
        options: limits and batching.

    Attributes:
        catalog: the classifiers by name.
        limits: of requests.
        metrics: for Prometheus.
        draining: whether the server has been asked to stop.
    """

    def __init__(self, bank: Bank, options: ServeOptions) -> None:
        self.limits: Limits = options.limits
        self.metrics = Metrics()
        self.draining = False
        self._queue = BatchQueue(
            bank.predict_probabilities,
            batching=options.batching,
            limits=options.limits,
            metrics=self.metrics,
        )
        self.catalog = Catalog(bank, self._queue, metrics=self.metrics)

    async def answer(
        self, texts: Sequence[Text], names: Sequence[str | None], *, deadline: float
    ) -> list[Answer]:
        """Return the answer to each text by the classifier that is named for it.

        Args:
            texts: to classify.
            names: of the classifier of each text; None for the only one.
            deadline: on the event loop's clock, in seconds.

        Raises:
            RefusedError: with status 422, a text or their number is over a limit, or does not fit
                its classifier; 404, there is no such classifier; 429, the queue is full; 503, the
                texts were not computed in time, or the server is shutting down.
            PennyweightError: the classifier cannot answer, which is the server's failure.
        """
        self._check_lengths(texts)
        served, future = self.catalog.submit(texts, names, check=_check_fit)
        try:
            async with asyncio.timeout_at(deadline):
                results = await asyncio.wrap_future(future)
        except TimeoutError:
            raise RefusedError(
                503,
                f"the request was not answered within {self.limits.timeout_seconds:g} s; send it "
                "again later, or fewer texts in one request",
                headers={"Retry-After": "1"},
            ) from None
        except DataError as error:
            raise RefusedError(422, str(error)) from None
        for version in served:
            self.metrics.rows.labels(version.name).inc()
        return [Answer(*pair) for pair in zip(served, results, strict=True)]

    async def change(self, action: Callable[[], _Result]) -> _Result:
        """Run a change of the catalog beside the requests, and return its result.

        Raises:
            RefusedError: with status 422, the run cannot be loaded.
        """
        try:
            return await asyncio.to_thread(action)
        except RefusedError:
            raise
        except PennyweightError as error:
            raise RefusedError(422, str(error)) from None

    def close(self) -> None:
        """Compute what was accepted, and end the queue's thread."""
        self._queue.close()

    def _check_lengths(self, texts: Sequence[Text]) -> None:
        limit = self.limits.request_texts
        if len(texts) > limit:
            raise RefusedError(
                422, f"{len(texts)} texts in one request; send at most {limit}, in several requests"
            )
        for index, text in enumerate(texts):
            length = len(text) if isinstance(text, str) else sum(map(len, text))
            if length > self.limits.text_characters:
                raise RefusedError(
                    422,
                    f"text {index} has {length} characters; shorten it to at most "
                    f"{self.limits.text_characters}",
                )


def _check_fit(text: Text, served: Served) -> None:
    """Refuse a single text where the classifier needs a pair, and the reverse."""
    columns = served.entry.pair_columns
    if columns is None and not isinstance(text, str):
        raise RefusedError(
            422,
            f'the classifier "{served.name}" takes single texts; give a string, not a pair (on '
            '/predict, a list of two strings is a pair, and two texts are [["one"], ["other"]])',
        )
    if columns is not None and isinstance(text, str):
        raise RefusedError(
            422,
            f'the classifier "{served.name}" takes pairs of texts; give a list of two strings, '
            f'its "{columns[0]}" and its "{columns[1]}"',
        )
