"""Measure TF-IDF with logistic regression, the baseline that a trained encoder must beat.

    python benchmarks/baseline_tfidf.py
    python benchmarks/baseline_tfidf.py --train TRAIN --test TEST
    python benchmarks/baseline_tfidf.py --study STUDY --set KEY=VALUE ...

The features are TF-IDF weights of single words and pairs of words. The output is JSON: the accuracy
on every test set with its 95% interval. With a study, the baseline is trained and measured once
for every seed of the study's first row, on the rows that a run with this seed would use; the output
then has the accuracies, their mean and its interval, and the mean predicted class shares of the
study's target.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from pennyweight.data.ingest import ReadOptions, read_rows
from pennyweight.data.source import Source
from pennyweight.data.splits import make_splits
from pennyweight.environment import cache_directory
from pennyweight.evaluation.intervals import wilson_interval
from pennyweight.evaluation.statistics import mean_interval
from pennyweight.recipe.study import load_study
from pennyweight.settings.assemble import settings_of

LABELS = ("World", "Sports", "Business", "Sci/Tech")


def load_rows(location: str) -> tuple[list[str], np.ndarray]:
    """Return the texts and labels of a source, without cleaning."""
    options = ReadOptions(LABELS, (), "stop", cache_directory() / "rows")
    table = read_rows("rows", Source(location), options).table
    return list(table["text"]), np.asarray(table["label"][:])


def fit(texts: list[str], labels: np.ndarray) -> Any:
    """Return the trained baseline."""
    model = make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True),
        LogisticRegression(max_iter=1000, C=10.0),
    )
    return model.fit(texts, labels)


def measure_study(name: str, overrides: list[str]) -> dict[str, Any]:
    """Return the accuracies on each set, one per seed, and the predicted shares of the target."""
    accuracies: dict[str, list[float]] = {}
    shares = []
    for recipe in load_study(name, overrides=overrides).variations[0].recipes:
        data = settings_of(recipe).data
        splits = make_splits(data.sources, read=data.read, split=data.split, overlap=data.overlap)
        model = fit(list(splits.train["text"]), np.asarray(splits.train["label"][:]))
        for key, rows in splits.labelled.items():
            correct = model.predict(list(rows["text"])) == np.asarray(rows["label"][:])
            accuracies.setdefault(key, []).append(float(correct.mean()))
        if splits.target is not None:
            predicted = model.predict(list(splits.target["text"]))
            shares.append(np.bincount(predicted, minlength=len(data.read.labels)) / len(predicted))
    result: dict[str, Any] = {
        "accuracies": accuracies,
        "mean": {key: float(np.mean(values)) for key, values in accuracies.items()},
        "interval": {key: mean_interval(values) for key, values in accuracies.items()},
    }
    if shares:
        means = np.mean(shares, axis=0).tolist()
        result["predicted_shares"] = dict(zip(data.read.labels, means, strict=True))
    return result


def measure_files(train: str, tests: list[str]) -> dict[str, Any]:
    """Train on one source, and return the accuracy on the others."""
    texts, labels = load_rows(train)
    model = fit(texts, labels)
    result: dict[str, Any] = {"train": train, "train_rows": len(texts)}
    for location in tests:
        texts, labels = load_rows(location)
        hits = int((model.predict(texts) == labels).sum())
        name = location if location.startswith("sample:") else Path(location).name
        result[name] = {
            "rows": len(labels),
            "accuracy": hits / len(labels),
            "interval": list(wilson_interval(hits, len(labels))),
        }
    return result


def main() -> None:
    """Parse the command line, measure, and print the result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--train", default="sample:train", help="Labelled rows to train on.")
    parser.add_argument(
        "--test",
        nargs="+",
        default=["sample:test", "sample:shifted"],
        help="Labelled rows to measure.",
    )
    parser.add_argument("--study", help="A shipped study or a TOML file.")
    parser.add_argument(
        "--set", action="append", default=[], help="With --study: KEY=VALUE in its recipes."
    )
    arguments = parser.parse_args()
    if arguments.study:
        result = measure_study(arguments.study, arguments.set)
    else:
        result = measure_files(arguments.train, arguments.test)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
