"""Measure how often equal systems are told apart by the ways to compare runs of several seeds.

    python benchmarks/compare_calibration.py
    python benchmarks/compare_calibration.py --repetitions 200

Both systems are the same, so a way that keeps its promise finds a difference in 5% of the
repetitions. Rows differ in how hard they are, and seeds in how good their run is, both on the logit
scale. The ways are the bootstrap over rows alone, the crossed bootstrap of rows and seeds, the
t-test over seeds, and that of `pennyweight compare`.
"""

from __future__ import annotations

import argparse

import numpy as np
from scipy.special import expit

from pennyweight.evaluation.answers import answered_rows
from pennyweight.evaluation.differences import compare_answers
from pennyweight.evaluation.statistics import paired_p

RESAMPLES = 400
WAYS = ("rows alone", "crossed bootstrap", "seeds alone", "pennyweight compare")


def main() -> None:
    """Print the share of repetitions in which each way finds a difference."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=500)
    parser.add_argument("--rows", type=int, default=500)
    arguments = parser.parse_args()
    print(f"| seeds | spread of seeds | {' | '.join(WAYS)} |")
    print(f"|{'---|' * (len(WAYS) + 2)}")
    draw = np.random.default_rng(0)
    for seeds in (2, 3, 5):
        for spread in (0.0, 0.1, 0.3):
            found = np.mean(
                [
                    found_in(draw, rows=arguments.rows, seeds=seeds, spread=spread)
                    for _ in range(arguments.repetitions)
                ],
                axis=0,
            )
            print(f"| {seeds} | {spread} | {' | '.join(f'{share:.1%}' for share in found)} |")


def found_in(draw: np.random.Generator, *, rows: int, seeds: int, spread: float) -> list[bool]:
    """Return which of the ways find a difference between two equal systems."""
    hardness = draw.normal(1.5, 1.5, size=rows)
    chances = expit(hardness + draw.normal(0.0, spread, size=(2 * seeds, 1)))
    right = (draw.random(chances.shape) < chances).astype(int)
    weights = draw.multinomial(rows, np.full(rows, 1.0 / rows), size=RESAMPLES)
    accuracies = weights @ right.T / rows
    pairs = accuracies[:, seeds:] - accuracies[:, :seeds]
    drawn = draw.multinomial(seeds, np.full(seeds, 1.0 / seeds), size=RESAMPLES) / seeds
    means = right.mean(axis=1)
    over_seeds = paired_p(means[seeds:].tolist(), means[:seeds].tolist())
    answers = answered_rows(np.ones(rows, int), list(right), classes=2, metric="accuracy")
    ours = compare_answers(
        answers, reference_seeds=range(seeds), seeds=range(seeds), resamples=RESAMPLES
    )
    return [
        excludes_zero(pairs.mean(axis=1)),
        excludes_zero((pairs * drawn).sum(axis=1)),
        over_seeds is not None and over_seeds < 0.05,
        ours.p < 0.05,
    ]


def excludes_zero(differences: np.ndarray) -> bool:
    """Return whether the 95% percentile interval leaves out 0."""
    low, high = np.quantile(differences, (0.025, 0.975))
    return bool(low > 0.0 or high < 0.0)


if __name__ == "__main__":
    main()
