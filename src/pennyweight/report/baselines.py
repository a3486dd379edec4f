"""The part of a report that compares a run with its baselines."""

from __future__ import annotations

from pennyweight.evaluation.metrics import Headline
from pennyweight.report.content import Block, Table, Text
from pennyweight.report.facts import RunFacts
from pennyweight.report.phrases import join, percent, title
from pennyweight.runs.results import BASELINES, baseline_headlines

__all__ = ["baseline_blocks"]

_SHORT = {"embedding": "LR, embeddings", "tf-idf": "LR, TF-IDF"}


def baseline_blocks(run: RunFacts) -> tuple[Block, ...]:
    """Return a sentence and a table about the run's baselines; nothing if it has none."""
    values = {name: baseline_headlines(run.record, name, metric=run.metric) for name in run.sets}
    names = [each for each in BASELINES if any(each in one for one in values.values())]
    if not names:
        return ()
    rows = [("this run", *(f"{100 * run.headline(name).value:.2f}" for name in run.sets))]
    for each in names:
        cells = (
            f"{100 * values[name][each].value:.2f}" if each in values[name] else ""
            for name in run.sets
        )
        rows.append((_SHORT[each], *cells))
    caption = (
        f"The run and its baselines: {title(run.metric)} in percent. LR is logistic regression."
    )
    text = (
        "[tab:baselines] compares the run with "
        f"{join([BASELINES[each].full for each in names])}, on the same rows."
    )
    text += _sample_sentence(run)
    if differences := _differences(run, values[run.sets[0]]):
        text += f" On {run.sets[0]}, the run is {differences}."
    return Text(text), Table("baselines", caption, ("system", *run.sets), tuple(rows))


def _sample_sentence(run: RunFacts) -> str:
    """Return a sentence on baselines that were fitted on a sample of the training rows."""
    baselines = run.record.baselines
    rows = {name: one.rows for name, one in baselines.items() if one.rows is not None}
    sampled = {name: count for name, count in rows.items() if count < max(rows.values())}
    return "".join(
        f" That on {BASELINES[name].short} was fitted on a random sample of {count:,} of them."
        for name, count in sampled.items()
    )


def _differences(run: RunFacts, baselines: dict[str, Headline]) -> str:
    """Return by how many points the run is better or worse than each baseline."""
    own = run.headline(run.sets[0]).value
    parts = []
    for each, headline in baselines.items():
        gap = round(100 * (own - headline.value), 2)
        name = f"{BASELINES[each].short} ({percent(headline.value)})"
        if gap == 0:
            parts.append(f"as good as {name}")
        else:
            parts.append(f"{abs(gap):.2f} points {'above' if gap > 0 else 'below'} {name}")
    return join(parts) if parts else ""
