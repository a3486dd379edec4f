"""TF-IDF (1-2-grams) and logistic regression: the baseline that a trained encoder must beat.

    python benchmarks/baseline_tfidf.py
    python benchmarks/baseline_tfidf.py --train TRAIN --test TEST

Prints JSON: accuracy with its 95 % interval on every test named.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from pennyweight.data.ingest import Source
from pennyweight.data.splits import Reading, read_rows
from pennyweight.environment import cache_directory
from pennyweight.evaluation.metrics import wilson_interval

LABELS = ("World", "Sports", "Business", "Sci/Tech")


def rows_of(location: str) -> tuple[list[str], list[int]]:
    """Texts and labels of a source, as they stand."""
    reading = Reading(LABELS, (), "stop", cache_directory() / "rows")
    table = read_rows("rows", Source(location), reading).table
    return list(table["text"]), list(table["label"])


def main() -> None:
    """Train on the training rows, and score every test."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--train", default="sample:train")
    parser.add_argument("--test", nargs="+", default=["sample:test", "sample:shifted"])
    arguments = parser.parse_args()
    texts, labels = rows_of(arguments.train)
    model = make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True),
        LogisticRegression(max_iter=1000, C=10.0),
    )
    model.fit(texts, labels)
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
