"""What unlabelled target text adds to training: rows taken over, rows to agree on, weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from scipy.special import softmax
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline

from pennyweight.errors import DataError, RecipeError
from pennyweight.recipe import Recipe
from pennyweight.runs.classifier import Classifier
from pennyweight.runs.reading import labelled_rows

__all__ = ["consistency_rows", "density_weights", "self_training_rows"]


def self_training_rows(
    recipe: Recipe,
    target: datasets.Dataset,
    *,
    facts: list[dict[str, Any]],
    say: Callable[[str], None],
) -> datasets.Dataset:
    """Target rows with the labels that a finished run is sure of.

    Raises:
        RecipeError: the teacher is no run, or knows other classes.
        DataError: it is sure of none.
    """
    assert recipe.transduction is not None  # noqa: S101 - asked for only then
    how = recipe.transduction.self_training
    assert how is not None  # noqa: S101 - as above
    if not (Path(how.teacher) / "record.json").is_file():
        raise RecipeError(
            f"transduction.self_training.teacher: {how.teacher}: no run; train one first"
        )
    teacher = Classifier.load(how.teacher)
    names = recipe.data.labels
    if teacher.labels != names:
        raise RecipeError(
            f"transduction.self_training.teacher: {how.teacher}: knows the classes "
            f"{', '.join(teacher.labels)}, and data.labels are {', '.join(names)}"
        )
    probabilities = softmax(teacher.logits(target).astype(np.float64), axis=1)
    answers, sure = probabilities.argmax(axis=1), probabilities.max(axis=1)
    chosen = []
    for index, name in enumerate(names):
        rows = np.flatnonzero((answers == index) & (sure >= how.by_class.get(name, how.confidence)))
        chosen.append(rows[np.argsort(-sure[rows], kind="stable")][: how.most_per_class])
    taken = np.sort(np.concatenate(chosen))
    if len(taken) == 0:
        raise DataError(
            f"transduction.self_training: {how.teacher} is sure of no target row "
            f"at a confidence of {how.confidence}; lower it"
        )
    counts = dict(zip(names, map(len, chosen), strict=True))
    told = ", ".join(f"{name} {count:,}" for name, count in counts.items())
    say(f"self-training: {len(taken):,} of {len(target):,} target rows taken over ({told})")
    if missing := [name for name, count in counts.items() if not count]:
        say(
            f"self-training: of no row of {', '.join(missing)} is the teacher sure at its confidence: "
            "the rows added tilt the classes; lower transduction.self_training.by_class for them"
        )
    facts.append({"step": "self-training", "added": len(taken), "by_class": counts})
    return labelled_rows(target.select(taken)["text"][:], answers[taken])


def consistency_rows(recipe: Recipe, target: datasets.Dataset) -> datasets.Dataset:
    """Target rows, drawn by the seed, without labels."""
    assert recipe.transduction is not None  # noqa: S101 - asked for only then
    most = recipe.transduction.consistency_rows or len(target)
    drawn = np.random.default_rng((recipe.seed, 4)).permutation(len(target))[:most]
    return labelled_rows(target.select(np.sort(drawn))["text"][:], np.full(len(drawn), -1))


def density_weights(
    recipe: Recipe,
    rows: datasets.Dataset,
    target: datasets.Dataset,
    *,
    facts: list[dict[str, Any]],
    say: Callable[[str], None],
) -> np.ndarray:
    """How much each training row counts, float32 `[rows]`, 1 on average over labelled ones.

    A discriminator of training and target text (TF-IDF, logistic regression) judges every row from
    folds that it was not in; odds are ratios of densities (Bickel et al. 2009, JMLR 10).
    """
    assert recipe.transduction is not None  # noqa: S101 - asked for only then
    how = recipe.transduction.density_ratio
    assert how is not None  # noqa: S101 - as above
    labels = np.asarray(rows["label"][:])
    labelled = np.flatnonzero(labels >= 0)
    texts = [*rows.select(labelled)["text"], *target["text"]]
    domain = np.r_[np.zeros(len(labelled), dtype=int), np.ones(len(target), dtype=int)]
    model = make_pipeline(
        TfidfVectorizer(sublinear_tf=True, min_df=2), LogisticRegression(max_iter=1000)
    )
    splits = StratifiedKFold(5, shuffle=True, random_state=recipe.seed)
    found = cross_val_predict(model, texts, domain, cv=splits, method="predict_proba")
    share = np.clip(found[: len(labelled), 1], 1e-6, 1.0 - 1e-6)
    ratio = share / (1.0 - share) * (len(labelled) / len(target))
    capped = np.minimum(ratio**how.power, how.largest)
    weights = np.ones(len(rows), dtype=np.float32)
    weights[labelled] = capped / capped.mean()
    effective = float(weights[labelled].sum() ** 2 / (weights[labelled] ** 2).sum())
    say(f"density ratio: weights {capped.min():.2f} to {capped.max():.2f}, "
        f"worth {effective:,.0f} of {len(labelled):,} rows")  # fmt: skip
    facts.append({"step": "density ratio", "effective_rows": effective})
    return weights
