"""TF-IDF (1-2-grams) and logistic regression: the baseline that a trained encoder must beat.

    python benchmarks/baseline_tfidf.py
    python benchmarks/baseline_tfidf.py --train TRAIN --test TEST
    python benchmarks/baseline_tfidf.py --study STUDY --set KEY=VALUE ...

Prints JSON: accuracy with its 95 % interval on every test named; with a study, on the very rows
that each seed of its first row trains and is measured on, and the shares of the classes that it
predicts for the study's target.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from pennyweight.data.ingest import Source
from pennyweight.data.splits import Reading, read_rows
from pennyweight.environment import cache_directory
from pennyweight.evaluation.compare import mean_interval
from pennyweight.evaluation.metrics import wilson_interval
from pennyweight.recipe.study import load_study
from pennyweight.runs.reading import read_splits

LABELS = ("World", "Sports", "Business", "Sci/Tech")


def rows_of(location: str) -> tuple[list[str], list[int]]:
    """Texts and labels of a source, as they stand."""
    reading = Reading(LABELS, (), "stop", cache_directory() / "rows")
    table = read_rows("rows", Source(location), reading).table
    return list(table["text"]), list(table["label"])


def fitted(texts: list[str], labels: list[int]) -> Any:
    """The baseline, trained."""
    model = make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True),
        LogisticRegression(max_iter=1000, C=10.0),
    )
    return model.fit(texts, labels)


def on_a_study(name: str, overrides: list[str]) -> dict[str, Any]:
    """Accuracies by set, one per seed, and mean predicted shares of the target."""
    accuracies: dict[str, list[float]] = {}
    shares = []
    for recipe in load_study(name, overrides=overrides).variations[0].recipes:
        with tempfile.TemporaryDirectory() as folder:
            splits = read_splits(recipe, bad_rows=Path(folder), say=lambda _: None)
        model = fitted(list(splits.train["text"]), list(splits.train["label"]))
        for key, rows in splits.labelled.items():
            right = model.predict(list(rows["text"])) == np.asarray(rows["label"][:])
            accuracies.setdefault(key, []).append(float(right.mean()))
        if splits.target is not None:
            found = model.predict(list(splits.target["text"]))
            shares.append(np.bincount(found, minlength=len(LABELS)) / len(found))
    mean = {key: float(np.mean(values)) for key, values in accuracies.items()}
    told = {"accuracies": accuracies, "mean": mean}
    told["interval"] = {key: mean_interval(values) for key, values in accuracies.items()}
    if shares:
        told["predicted_shares"] = dict(zip(LABELS, np.mean(shares, axis=0).tolist(), strict=True))
    return told


def main() -> None:
    """Train on the training rows, and score every test."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--train", default="sample:train")
    parser.add_argument("--test", nargs="+", default=["sample:test", "sample:shifted"])
    parser.add_argument("--study")
    parser.add_argument("--set", action="append", default=[])
    arguments = parser.parse_args()
    if arguments.study:
        print(json.dumps(on_a_study(arguments.study, arguments.set), indent=1))
        return
    texts, labels = rows_of(arguments.train)
    model = fitted(texts, labels)
    result: dict[str, object] = {"train": arguments.train, "train_rows": len(texts)}
    for location in arguments.test:
        texts, labels = rows_of(location)
        hits = int((model.predict(texts) == labels).sum())
        low, high = wilson_interval(hits, len(labels))
        name = location if location.startswith("sample:") else Path(location).name
        result[name] = {
            "rows": len(labels),
            "accuracy": hits / len(labels),
            "interval": [low, high],
        }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
