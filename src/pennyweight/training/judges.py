"""The judge among the gates for generated texts: TF-IDF, or finished runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np

from pennyweight.inference.classifier import Classifier
from pennyweight.lab.gates import Judge, tfidf_judge
from pennyweight.settings.task import task_of
from pennyweight.settings.values import GenerationSettings
from pennyweight.training.finished_run import finished_run, require_task

__all__ = ["check_judges", "judge_of"]

_KEY = "generate.gates.judges"


def check_judges(settings: GenerationSettings, labels: Sequence[str]) -> list[dict[str, Any]]:
    """Refuse a judge that is missing, unfinished, or of other classes, without loading it.

    Returns:
        For each judge, the SHA-256 of the files of its artifact, which identify it.

    Raises:
        RecipeError: a judge is no run, or has other classes or another task.
        RunError: a judge is unfinished.
    """
    identities = []
    for run in settings.judges:
        record = finished_run(_KEY, Path(run), labels)
        require_task(f"{_KEY}: {run}", task_of(record.recipe), "single-label")
        identities.append(dict(record.artifact.files) if record.artifact is not None else {})
    return identities


def judge_of(
    settings: GenerationSettings,
    rows: datasets.Dataset,
    *,
    classes: int,
    log: Callable[[str], None],
) -> Judge | None:
    """Return the function that gives the class probabilities of texts; None for no judge.

    Args:
        settings: which judge.
        rows: training rows, which a TF-IDF classifier is fitted on.
        classes: number of classes.
        log: gets a line for each run that judges.
    """
    if settings.judge == "off":
        return None
    if settings.judge == "tf-idf":
        return tfidf_judge(rows["text"][:], np.asarray(rows["label"][:]), classes=classes)

    def judge(texts: Sequence[str]) -> np.ndarray:
        """Return the mean of the runs' probabilities, float64 `[texts, classes]`."""
        probabilities = []
        for run in settings.judges:
            log(f"judge {run}: classifying {len(texts):,} generated texts")
            probabilities.append(Classifier.load(run).predict_probabilities(texts))
        return np.asarray(np.mean(probabilities, axis=0))

    return judge
