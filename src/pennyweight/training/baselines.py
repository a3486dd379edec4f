"""Two baselines of every run: logistic regression on the frozen encoder's embeddings, and on TF-IDF.

Both are fitted on the rows that the run trains on, before its training. The first one can also start
the head. The texts of held-out sets are predicted here; their labels are read at the end of the run.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import datasets
import numpy as np
import torch

from pennyweight.base.locate import pooled
from pennyweight.engine.batches.rows import TokenizedRows
from pennyweight.engine.features import output_layer_of
from pennyweight.engine.linear import (
    LinearClassifier,
    LinearOptions,
    TfidfClassifier,
    fit_logistic,
    fit_tfidf,
)
from pennyweight.engine.predictor import Predictor
from pennyweight.errors import BaseModelError
from pennyweight.evaluation.metrics import measure
from pennyweight.inference.load import predictor_of
from pennyweight.model.build import load_base
from pennyweight.model.quantize import dequantized
from pennyweight.runs.record import BaselineRecord
from pennyweight.training.active_run import ActiveRun, tokenized
from pennyweight.training.rows import PreparedRows
from pennyweight.training.stages import Built

__all__ = ["Baseline", "Baselines", "evaluate_baselines", "fit_baselines", "start_head"]


@dataclass(frozen=True, slots=True)
class Baseline:
    """A fitted baseline.

    Attributes:
        logits: float32 `[rows, classes]` of each labelled set, by its name.
        seconds: how long it took to fit the baseline and to predict the sets.
    """

    logits: Mapping[str, np.ndarray]
    seconds: float


@dataclass(frozen=True, slots=True)
class Baselines:
    """The baselines of a run.

    Attributes:
        by_name: "embedding" and "tf-idf", as far as the recipe asks for them.
        head: the classifier of embeddings, where it starts the head.
    """

    by_name: Mapping[str, Baseline] = field(default_factory=dict)
    head: LinearClassifier | None = None


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
    head = None
    if "embedding" in settings.baselines or settings.fit.starts_head:
        try:
            fitted["embedding"], head = _embedding(run, built, rows.take(labelled))
        except BaseModelError as error:
            run.log(f"no baseline on embeddings: {error}")
    if "tf-idf" in settings.baselines:
        texts = _texts(prepared.table.select(labelled))
        fitted["tf-idf"] = _tfidf(run, texts, rows.labels[labelled])
    for name, baseline in fitted.items():
        run.log(f"baseline fitted: {name} with logistic regression, {baseline.seconds:.1f} s")
    return Baselines(fitted, head)


def start_head(run: ActiveRun, built: Built, baselines: Baselines) -> None:
    """Give the head the weights of the classifier of embeddings, where the recipe asks for it."""
    if not run.job.settings.fit.starts_head or baselines.head is None:
        return
    layer = output_layer_of(built.model, run.job.plan.output_layer)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(baselines.head.weight))
        layer.bias.copy_(torch.from_numpy(baselines.head.bias))
    run.log(
        "head: starts from the logistic regression on embeddings "
        f"(C = {baselines.head.strength}, chosen by cross-validation)"
    )


def evaluate_baselines(run: ActiveRun, baselines: Baselines) -> None:
    """Measure the baselines on the labelled sets, record them, and log where one is better."""
    settings = run.job.settings
    records = {}
    for name in settings.baselines:
        baseline = baselines.by_name.get(name)
        if baseline is None:
            continue
        metrics = {
            set_name: measure(
                logits,
                np.asarray(run.splits.labelled[set_name]["label"][:]),
                names=settings.labels,
                bins=settings.inference.calibration_bins,
            )
            for set_name, logits in baseline.logits.items()
        }
        records[name] = BaselineRecord(seconds=baseline.seconds, metrics=metrics)
    run.writer.update(baselines=records)


def _embedding(
    run: ActiveRun, built: Built, rows: TokenizedRows
) -> tuple[Baseline, LinearClassifier]:
    started = time.perf_counter()
    predictor = _frozen_predictor(run, built)
    head = fit_logistic(_embeddings(predictor, rows), rows.labels, _options(run))
    logits = {}
    for name, table in run.splits.labelled.items():
        fingerprint = run.splits.sets[name].fingerprint
        tokens = tokenized(run, table, fingerprint, tokenizer=built.tokenizer)
        logits[name] = head.logits(_embeddings(predictor, tokens))
    return Baseline(logits, time.perf_counter() - started), head


def _tfidf(run: ActiveRun, texts: list[str], labels: np.ndarray) -> Baseline:
    started = time.perf_counter()
    classifier: TfidfClassifier = fit_tfidf(texts, labels, _options(run))
    logits = {name: classifier.logits(_texts(table)) for name, table in run.splits.labelled.items()}
    return Baseline(logits, time.perf_counter() - started)


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


def _has_label(labels: np.ndarray) -> np.ndarray:
    mask: np.ndarray = labels >= 0 if labels.ndim == 1 else (labels >= 0).all(axis=1)
    return mask


def _texts(table: datasets.Dataset) -> list[str]:
    """Return the texts of a table; the two texts of a pair are joined."""
    texts: list[str] = table["text"][:]
    if "text_pair" not in table.column_names:
        return texts
    return [f"{one} {other}" for one, other in zip(texts, table["text_pair"][:], strict=True)]
