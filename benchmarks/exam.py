"""Train the systems of the competition, write their submissions, and compare them without labels.

    python benchmarks/exam.py DATA --out runs/exam [--seeds 1 2 3] [--set KEY=VALUE]

DATA is a directory with `ag_news/train.parquet`, `ag_news/test.csv` and
`competition/test_unlabelled.pkl`; `shifted/bbc_2005.csv`, labelled news of another outlet, is
evaluated too if it is there. The study `exam` is trained, or continued. OUT gets a run for each
system and seed, `submissions/NAME-seed-N.csv`, and `exam.json`: accuracies, and for the target,
whose labels nobody has here, the class shares of each system in each population and the share of
rows on which two systems agree. The populations are news, which are rows of the official test by
their text, and other text. They are looked up for this table only.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from pennyweight.data.ingest import ReadOptions, read_rows
from pennyweight.data.source import Source
from pennyweight.environment import cache_directory
from pennyweight.inference.submit import submit
from pennyweight.recipe.study import Study, load_study
from pennyweight.search.studies import run_study
from pennyweight.training.watcher import Watcher

LABELS = ("World", "Sports", "Business", "Sci/Tech")


def overrides_of(data: Path, given: Sequence[str]) -> list[str]:
    """Return what names the files of the competition in every recipe."""
    also = {"shifted": "sample:shifted"}
    if (data / "shifted/bbc_2005.csv").is_file():
        also["bbc"] = str(data / "shifted/bbc_2005.csv")
    sets = ", ".join(f"{name}={json.dumps(path)}" for name, path in also.items())
    return [
        f"data.train={data / 'ag_news/train.parquet'}",
        f"evaluate.test={data / 'ag_news/test.csv'}",
        f"data.target={data / 'competition/test_unlabelled.pkl'}",
        f"evaluate.also={{{sets}}}",
        *given,
    ]


def with_seeds(study: Study, seeds: Sequence[int]) -> Study:
    """Return the study with a part of its seeds."""
    if missing := set(seeds) - set(study.seeds):
        raise SystemExit(f"--seeds: the study has {study.seeds}; given {sorted(missing)}")
    chosen = [study.seeds.index(seed) for seed in seeds]
    variations = tuple(
        replace(each, recipes=tuple(each.recipes[index] for index in chosen))
        for each in study.variations
    )
    return replace(study, seeds=tuple(seeds), variations=variations)


def texts_of(path: Path, *, labelled: bool) -> list[str]:
    """Return the texts of a file, with nothing but letters and digits, to look rows up."""
    options = ReadOptions(LABELS, (), "stop", cache_directory() / "rows")
    rows = read_rows(path.stem, Source(str(path)), options, labelled=labelled)
    return [re.sub(r"\W+", "", text).lower() for text in rows.table["text"][:]]


def read_labels(path: Path) -> np.ndarray:
    """Return the labels of a submission, int64 `[rows]`."""
    with path.open(newline="") as file:
        return np.array([int(row["Label"]) for row in csv.DictReader(file)])


def describe_target(submissions: dict[str, np.ndarray], is_news: np.ndarray) -> dict[str, Any]:
    """Return each system's class shares in each population, and how often two systems agree."""
    populations = {"all": np.ones_like(is_news), "news": is_news, "other": ~is_news}
    return {
        "target_rows": {name: int(rows.sum()) for name, rows in populations.items()},
        "shares": {
            system: {
                name: (np.bincount(labels[rows], minlength=4) / rows.sum()).round(4).tolist()
                for name, rows in populations.items()
            }
            for system, labels in submissions.items()
        },
        "agreement": {
            one: {
                other: round(float((labels == others).mean()), 4)
                for other, others in submissions.items()
            }
            for one, labels in submissions.items()
        },
    }


def main() -> None:
    """Train, submit and describe."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs/exam"))
    parser.add_argument("--study", default="exam")
    parser.add_argument("--seeds", type=int, nargs="+", default=None)
    parser.add_argument("--set", dest="given", action="append", default=[])
    options = parser.parse_args()
    study = load_study(options.study, overrides=overrides_of(options.data, options.given))
    study = with_seeds(study, options.seeds or study.seeds)
    rows = run_study(study, out=options.out, log=print, watcher=Watcher(log=print))
    target = options.data / "competition/test_unlabelled.pkl"
    known = set(texts_of(options.data / "ag_news/test.csv", labelled=True))
    is_news = np.array([text in known for text in texts_of(target, labelled=False)])
    folder = options.out / "submissions"
    folder.mkdir(exist_ok=True)
    submissions = {}
    for number, row in enumerate(rows, start=1):
        for seed in row.seeds:
            (run,) = options.out.glob(f"{number:02d}-*/seed-{seed}")
            path = folder / f"{row.name}-seed-{seed}.csv"
            submit(run, str(target), out=path)
            submissions[path.stem] = read_labels(path)
    result = {"rows": [asdict(row) for row in rows], **describe_target(submissions, is_news)}
    (options.out / "exam.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result["shares"], indent=1))


if __name__ == "__main__":
    main()
