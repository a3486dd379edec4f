"""A run's results as every output shows them: the order of the sets, and the baselines."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from pennyweight.evaluation.metrics import Headline, headline_in
from pennyweight.runs.record import RunRecord

__all__ = ["BASELINES", "BaselineName", "baseline_headlines", "in_order", "ordered_sets"]


@dataclass(frozen=True, slots=True)
class BaselineName:
    """Names of a baseline.

    Attributes:
        short: where it is clear that it is a baseline.
        full: in a sentence.
    """

    short: str
    full: str


BASELINES: Mapping[str, BaselineName] = MappingProxyType(
    {
        "embedding": BaselineName(
            "embeddings", "logistic regression on the frozen encoder's embeddings"
        ),
        "tf-idf": BaselineName("TF-IDF", "logistic regression on TF-IDF"),
    }
)


def ordered_sets(record: RunRecord) -> tuple[str, ...]:
    """Return the names of the evaluated sets: the test first, validation last."""
    return in_order(record.metrics)


def in_order(sets: Iterable[str]) -> tuple[str, ...]:
    """Return the names of sets: the test first, validation last."""
    order = {"test": 0, "validation": 2}
    return tuple(sorted(sets, key=lambda name: order.get(name, 1)))


def baseline_headlines(
    record: RunRecord, name: str, *, metric: str | None = None
) -> dict[str, Headline]:
    """Return what each baseline reaches on a set, by the baseline's name in `BASELINES`.

    Args:
        record: of a run; its baselines may be missing.
        name: of an evaluated set.
        metric: "accuracy" or "macro_f1"; None for the one that the run itself is judged by.
    """
    metric = metric or record.metrics[name].headline.metric
    return {
        baseline: headline_in(record.baselines[baseline].metrics[name], metric)
        for baseline in BASELINES
        if baseline in record.baselines and name in record.baselines[baseline].metrics
    }
