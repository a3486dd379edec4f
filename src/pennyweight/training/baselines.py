"""Two baselines of every run: logistic regression on frozen embeddings, and on TF-IDF.

Both are fitted on the rows that the run trains on, before its training. The first one can also
start the head. The texts of held-out sets are predicted here; their labels are read when the run
has been evaluated.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from pennyweight.base.locate import pooled
from pennyweight.engine.batches.rows import TokenizedRows
from pennyweight.engine.features import set_head
from pennyweight.engine.linear import (
    LinearClassifier,
    LinearOptions,
    TfidfClassifier,
    fit_logistic,
    fit_tfidf,
)
from pennyweight.engine.predictor import Predictor
from pennyweight.errors import BaseModelError
from pennyweight.evaluation.metrics import AnyMetrics, measure
from pennyweight.evaluation.thresholds import fit_thresholds, sigmoid
from pennyweight.inference.load import predictor_of
from pennyweight.inference.texts import texts_of
from pennyweight.model.build import load_base
from pennyweight.model.quantize import dequantized
from pennyweight.runs.record import BaselineRecord, RunRecord
from pennyweight.runs.results import BASELINES
from pennyweight.settings.values import Settings
from pennyweight.training.active_run import ActiveRun, tokenized
from pennyweight.training.pace import Measured
from pennyweight.training.rows import PreparedRows
from pennyweight.training.stages import Built

__all__ = [
    "Baseline",
    "Baselines",
    "evaluate_baselines",
    "fit_baselines",
    "refit_head",
    "start_head",
]

# The inverse strength of the regularization of a head that is fitted again. Cross-validation cannot
# choose it, because the encoder has been trained on the same rows.
_REFIT_STRENGTH = 0.1
# Embeddings of more training rows than this would take longer than they are worth.
_MOST_EMBEDDED_ROWS = 20_000
# TF-IDF holds all words and pairs of words of its rows in memory.
_MOST_TFIDF_ROWS = 500_000


@dataclass(frozen=True, slots=True)
class Baseline:
    """A fitted baseline.

    Attributes:
        logits: float32 `[rows, classes]` of each labelled set, by its name.
        seconds: how long it took to fit the baseline and to predict the sets.
        rows: number of training rows that it was fitted on.
    """

    logits: Mapping[str, np.ndarray]
    seconds: float
    rows: int


@dataclass(frozen=True, slots=True)
class Baselines:
    """The baselines of a run.

    Attributes:
        by_name: "embedding" and "tf-idf", as far as the recipe asks for them.
        head: the classifier of embeddings; None where it was not fitted.
        measured: how long predictions and the fit of the head took.
    """

    by_name: Mapping[str, Baseline] = field(default_factory=dict)
    head: LinearClassifier | None = None
    measured: Measured = field(default_factory=Measured)


def fit_baselines(
    run: ActiveRun, built: Built, prepared: PreparedRows, rows: TokenizedRows
) -> Baselines:
    """Fit the baselines that the recipe asks for, and predict every labelled set with them.

    Args:
        run: the run, opened.
        built: lends its tokenizer.
        prepared: the rows to train on, as texts.
        rows: the same rows, tokenized.
    """
    settings = run.job.settings
    labelled = np.flatnonzero(_has_label(rows.labels))
    fitted: dict[str, Baseline] = {}
    head, measured = None, Measured()
    if "embedding" in settings.baselines or settings.fit.starts_head:
        try:
            embedded = rows.take(_sample(labelled, _MOST_EMBEDDED_ROWS, seed=settings.seed))
            fitted["embedding"], head, measured = _embedding(run, built, embedded)
        except BaseModelError as error:
            run.log(f"no baseline on embeddings: {error}")
    if "tf-idf" in settings.baselines:
        sample = _sample(labelled, _MOST_TFIDF_ROWS, seed=settings.seed)
        texts = texts_of(prepared.table.select(sample))
        fitted["tf-idf"] = _tfidf(run, texts, rows.labels[sample])
    for name, baseline in fitted.items():
        part = (
            ""
            if baseline.rows == len(labelled)
            else (f" of {baseline.rows:,} of the {len(labelled):,} training rows")
        )
        run.log(f"baseline: {BASELINES[name].full}{part}, {baseline.seconds:.1f} s")
    return Baselines(fitted, head, measured)


def start_head(run: ActiveRun, built: Built, baselines: Baselines) -> None:
    """Give the head the weights of the classifier of embeddings, where the recipe asks for it."""
    if not run.job.settings.fit.starts_head or baselines.head is None:
        return
    _set_head(run, built, baselines.head)
    run.log(
        "head: starts from the logistic regression on embeddings "
        f"(C = {baselines.head.strength}, chosen by cross-validation)"
    )


def refit_head(run: ActiveRun, built: Built, predictor: Predictor, rows: TokenizedRows) -> None:
    """Fit the head once more, on the embeddings that the trained encoder gives its training rows.

    Args:
        run: the run, trained.
        built: its model, whose head is replaced.
        predictor: of that model.
        rows: the rows that it was trained on.
    """
    labelled = np.flatnonzero(_has_label(rows.labels))
    sample = rows.take(_sample(labelled, _MOST_EMBEDDED_ROWS, seed=run.job.settings.seed))
    options = replace(_options(run), strength=_REFIT_STRENGTH)
    _set_head(run, built, fit_logistic(_embeddings(predictor, sample), sample.labels, options))


def _sample(rows: np.ndarray, most: int, *, seed: int) -> np.ndarray:
    """Return these row indices, ascending, or a random sample of them where there are more."""
    order = np.random.default_rng((seed, 6)).permutation(len(rows))
    return rows[np.sort(order[:most])]


def _set_head(run: ActiveRun, built: Built, head: LinearClassifier) -> None:
    set_head(built.model, run.job.plan.output_layer, head.weight, head.bias)


def evaluate_baselines(run: ActiveRun, built: Built, baselines: Baselines) -> None:
    """Measure the baselines on the labelled sets, record them, and log where one is better."""
    settings = run.job.settings
    labels = {name: rows.labels for name, rows in _tokenized_sets(run, built).items()}
    records = {}
    for name in settings.baselines:
        baseline = baselines.by_name.get(name)
        if baseline is not None:
            metrics = _measure(baseline, labels, settings)
            records[name] = BaselineRecord(
                seconds=baseline.seconds, rows=baseline.rows, metrics=metrics
            )
    run.writer.update(baselines=records)
    for name, record in records.items():
        has_limit = run.job.settings.fit.seconds is not None
        if (line := _describe_defeat(name, record, run.record, has_limit=has_limit)) is not None:
            run.log(line)


def _measure(
    baseline: Baseline, labels: Mapping[str, np.ndarray], settings: Settings
) -> dict[str, AnyMetrics]:
    thresholds = None
    if settings.task == "multi-label" and "validation" in labels:
        thresholds = fit_thresholds(sigmoid(baseline.logits["validation"]), labels["validation"])
    return {
        name: measure(
            logits,
            labels[name],
            names=settings.labels,
            bins=settings.inference.calibration_bins,
            thresholds=thresholds,
        )
        for name, logits in baseline.logits.items()
    }


def _describe_defeat(
    name: str, baseline: BaselineRecord, record: RunRecord, *, has_limit: bool
) -> str | None:
    """Return a warning if the run is worse than a baseline on validation; otherwise None."""
    if "validation" not in record.metrics or "validation" not in baseline.metrics:
        return None
    own = record.metrics["validation"].headline
    other = baseline.metrics["validation"].headline
    if own.value >= other.value:
        return None
    advice = (
        "the time limit may have been too short for more; raise train.minutes"
        if has_limit
        else "try more epochs or another base, and look at the labels: there may be little to "
        "learn beyond single words"
    )
    return (
        f"warning: on validation, {BASELINES[name].full} is better "
        f"({other.metric} {other.value:.2%}) than this run ({own.value:.2%}); {advice}"
    )


def _tokenized_sets(run: ActiveRun, built: Built) -> dict[str, TokenizedRows]:
    """Return the sets that the run is evaluated on, tokenized."""
    return {
        name: tokenized(run, table, run.splits.sets[name].fingerprint, tokenizer=built.tokenizer)
        for name, table in run.evaluated.items()
    }


def _embedding(
    run: ActiveRun, built: Built, rows: TokenizedRows
) -> tuple[Baseline, LinearClassifier, Measured]:
    started = time.perf_counter()
    predictor = _frozen_predictor(run, built)
    sets = {"": rows, **_tokenized_sets(run, built)}
    loaded = time.perf_counter()
    embeddings = {name: _embeddings(predictor, tokens) for name, tokens in sets.items()}
    tokens = sum(int(each.lengths.sum()) for each in sets.values())
    tokens_per_second = tokens / (time.perf_counter() - loaded)
    head = fit_logistic(embeddings.pop(""), rows.labels, _options(run))
    logits = {name: head.logits(values) for name, values in embeddings.items()}
    measured = Measured(tokens_per_second, head.seconds, int(rows.lengths.sum()))
    return Baseline(logits, time.perf_counter() - started, len(rows)), head, measured


def _tfidf(run: ActiveRun, texts: list[str], labels: np.ndarray) -> Baseline:
    started = time.perf_counter()
    classifier: TfidfClassifier = fit_tfidf(texts, labels, _options(run))
    logits = {name: classifier.logits(texts_of(table)) for name, table in run.evaluated.items()}
    return Baseline(logits, time.perf_counter() - started, len(texts))


def _options(run: ActiveRun) -> LinearOptions:
    return LinearOptions(classes=len(run.job.settings.labels), seed=run.job.settings.seed)


def _frozen_predictor(run: ActiveRun, built: Built) -> Predictor:
    """Return a predictor of the base without adapters, whose features are pooled embeddings."""
    job = run.job
    model, _ = load_base(pooled(job.base), built.options)
    return predictor_of(
        dequantized(model),
        job.compute.for_inference(),
        job.settings.inference,
        tokenizer=built.tokenizer,
        accelerator=job.accelerator,
    )


def _embeddings(predictor: Predictor, rows: TokenizedRows) -> np.ndarray:
    features = predictor.rows(rows, features=True).features
    assert features is not None  # noqa: S101 - asked for
    return features


def _has_label(labels: np.ndarray) -> Any:
    return np.asarray(labels.reshape(len(labels), -1) >= 0).all(axis=1)
