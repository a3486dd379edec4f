"""The difference between two systems, each of one or more runs, on the same rows.

A result depends on the rows that happen to be in the set and on the seeds that happen to be
trained with, and both have to be taken into account (Bouthillier et al. 2021, "Accounting for
Variance in Machine Learning Benchmarks", arXiv:2103.03098). Runs and rows are crossed: every run
answers every row. The crossed bootstrap, which resamples both with replacement, underestimates the
spread of a few seeds, and counts the noise of single answers three times (Owen 2007,
"The Pigeonhole Bootstrap", doi:10.1214/07-AOAS122): it finds too many differences where seeds
matter, and too few where they do not (`benchmarks/compare_calibration.py`). So the rows are
resampled, for all runs at once, and the spread over seeds is added as in studies in which several
readers judge the same cases (Obuchowski and Rockette 1995, doi:10.1080/03610919508813243; Hillis
2007, doi:10.1002/sim.2532):

    variance = covariance over rows between runs + variance between runs / number of runs

The first part is what the choice of rows does to all runs alike. The second holds the seeds and the
noise of single answers. Few seeds are paid for by the degrees of freedom of Student's t. With two
seeds, this variance is sometimes far too small by chance; an interval is therefore never narrower
than that of the rows alone, and p is never smaller.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from scipy import stats

from pennyweight.evaluation.answers import AnsweredRows
from pennyweight.evaluation.paired_tests import mcnemar, randomization_p
from pennyweight.evaluation.statistics import detectable_difference

__all__ = ["Difference", "TestName", "compare_answers"]

TestName = Literal["mcnemar", "randomization", "rows-and-seeds"]

_RESAMPLES = 4000
_SWAPS = 9999


@dataclass(frozen=True, slots=True)
class Difference:
    """The difference between a system and a reference, in the metric's own unit (0..1).

    Attributes:
        value: mean metric of the system's runs, less that of the reference's.
        interval: 95% interval of the difference; not adjusted for further comparisons.
        p: two-sided p-value that there is no difference; not adjusted.
        test: what gives p: McNemar's test or the randomization test for two single runs, which
            treat the runs as given, or the t-test over rows and seeds.
        standard_error: of the difference.
        degrees_of_freedom: of the t-test; None for two single runs.
        detectable: smallest true difference that such a comparison finds in 4 of 5 repetitions;
            None if it cannot be estimated, because no row tells the systems apart.
        rows: number of rows.
        only_reference: of two single runs, rows that only the reference answers correctly.
        only_system: of two single runs, rows that only the system answers correctly.
    """

    value: float
    interval: tuple[float, float]
    p: float
    test: TestName
    standard_error: float
    degrees_of_freedom: float | None
    detectable: float | None
    rows: int
    only_reference: int | None = None
    only_system: int | None = None

    def among(self, comparisons: int) -> Difference:
        """Return the difference with what is detectable among several comparisons.

        Args:
            comparisons: number of comparisons that are corrected together.
        """
        degrees = np.inf if self.degrees_of_freedom is None else self.degrees_of_freedom
        smallest = detectable_difference(
            self.standard_error,
            degrees_of_freedom=degrees,
            comparisons=comparisons,
            rows=self.rows if self.test == "mcnemar" else None,
        )
        return replace(self, detectable=smallest if smallest > 0.0 else None)


def compare_answers(
    answers: AnsweredRows,
    *,
    reference_seeds: Sequence[int],
    seeds: Sequence[int],
    resamples: int = _RESAMPLES,
    swaps: int = _SWAPS,
) -> Difference:
    """Return the difference between two systems; the same answers give the same result.

    With the same seeds in both systems, runs of equal seeds are paired, since they share their
    split and the order of their batches.

    Args:
        answers: of the reference's runs, followed by those of the system.
        reference_seeds: seed of each of the reference's runs.
        seeds: seed of each of the system's runs.
        resamples: number of bootstrap resamples of the rows.
        swaps: number of swaps of the randomization test.

    Raises:
        ValueError: the number of runs and of seeds differ.
    """
    if len(answers.runs) != len(reference_seeds) + len(seeds):
        raise ValueError(
            f"{len(answers.runs)} runs, but {len(reference_seeds)} + {len(seeds)} seeds"
        )
    generator = np.random.default_rng(0)
    scores, resampled = (
        answers.scores(),
        answers.resampled_scores(resamples, generator=generator),
    )
    if len(answers.runs) == 2:
        return _between_runs(answers, scores, resampled, swaps=swaps, generator=generator)
    return _between_systems(answers.rows, scores, resampled, (reference_seeds, seeds))


def _between_runs(
    answers: AnsweredRows,
    scores: np.ndarray,
    resampled: np.ndarray,
    *,
    swaps: int,
    generator: np.random.Generator,
) -> Difference:
    """Return the difference of two single runs, by the percentile interval over rows."""
    reference, system = (np.repeat(run.right > 0.0, answers.counts) for run in answers.runs)
    counts = mcnemar(reference, system)
    is_accuracy = answers.metric == "accuracy"
    differences = resampled[:, 1] - resampled[:, 0]
    low, high = np.quantile(differences, (0.025, 0.975))
    value = float(scores[1] - scores[0])
    return Difference(
        value=value,
        # The quantiles of a skewed distribution may leave out the estimate itself.
        interval=(min(float(low), value), max(float(high), value)),
        p=counts.p
        if is_accuracy
        else randomization_p(answers, resamples=swaps, generator=generator),
        test="mcnemar" if is_accuracy else "randomization",
        standard_error=float(differences.std(ddof=1)),
        degrees_of_freedom=None,
        detectable=None,
        rows=answers.rows,
        only_reference=counts.only_one,
        only_system=counts.only_other,
    ).among(1)


@dataclass(frozen=True, slots=True)
class _Error:
    """The standard error of a difference, with its degrees of freedom."""

    value: float
    degrees_of_freedom: float

    @property
    def margin(self) -> float:
        """Half of the width of the 95% interval."""
        return float(stats.t.ppf(0.975, self.degrees_of_freedom)) * self.value

    def p(self, difference: float) -> float:
        """Return the two-sided p-value that the true difference is 0."""
        if self.value == 0.0:
            return 1.0 if difference == 0.0 else 0.0
        return float(2.0 * stats.t.sf(abs(difference) / self.value, self.degrees_of_freedom))


@dataclass(frozen=True, slots=True)
class _Between:
    """The variance between the runs of a system, or between pairs of runs.

    Attributes:
        observed: variance of a run's result, over seeds and the noise of single answers.
        noise: the part of it that is due to single answers, from the resampled rows.
        weight: by which it enters the variance of the difference: 1 / number of runs.
        degrees_of_freedom: of the observed variance.
    """

    observed: float
    noise: float
    weight: float
    degrees_of_freedom: int


def _between_systems(
    rows: int,
    scores: np.ndarray,
    resampled: np.ndarray,
    seeds: tuple[Sequence[int], Sequence[int]],
) -> Difference:
    """Return the difference of two systems of which at least one has several runs."""
    first = len(seeds[0])
    value = float(scores[first:].mean() - scores[:first].mean())
    differences = resampled[:, first:].mean(axis=1) - resampled[:, :first].mean(axis=1)
    over_rows = float(differences.var(ddof=1))
    errors = (
        _Error(float(np.sqrt(over_rows)), max(rows - 1, 1)),
        _error(rows, over_rows, _between(scores, resampled, seeds)),
    )
    wider = max(errors, key=lambda error: error.margin)
    return Difference(
        value=value,
        interval=(value - wider.margin, value + wider.margin),
        p=max(error.p(value) for error in errors),
        test="rows-and-seeds",
        standard_error=wider.value,
        degrees_of_freedom=float(wider.degrees_of_freedom),
        detectable=None,
        rows=rows,
    ).among(1)


def _error(rows: int, over_rows: float, parts: Sequence[_Between]) -> _Error:
    """Return the standard error over rows and seeds, with Satterthwaite's degrees of freedom."""
    shared = max(0.0, over_rows - sum(part.noise * part.weight for part in parts))
    variance = shared + sum(part.observed * part.weight for part in parts)
    spread = shared**2 / max(rows - 1, 1) + sum(
        (part.observed * part.weight) ** 2 / part.degrees_of_freedom for part in parts
    )
    return _Error(float(np.sqrt(variance)), variance**2 / spread if spread > 0.0 else 1.0)


def _between(
    scores: np.ndarray, resampled: np.ndarray, seeds: tuple[Sequence[int], Sequence[int]]
) -> list[_Between]:
    """Return the variance between runs: of pairs if the seeds are the same, or of each system.

    A system with a single run shows no variance, so that of the other system is used for it.
    """
    first = len(seeds[0])
    if sorted(seeds[0]) == sorted(seeds[1]) and len(set(seeds[0])) == first:
        one, other = np.argsort(seeds[0]), first + np.argsort(seeds[1])
        return [_variance(scores[other] - scores[one], resampled[:, other] - resampled[:, one])]
    groups = [(scores[:first], resampled[:, :first]), (scores[first:], resampled[:, first:])]
    parts = [_variance(*group) for group in groups if len(group[0]) > 1]
    if len(parts) == 2:
        return parts
    return [replace(parts[0], weight=parts[0].weight + 1.0)]


def _variance(values: np.ndarray, resampled: np.ndarray) -> _Between:
    """Return the variance of one value per run, with its resamples over rows `[resamples, runs]`.

    Between resamples, the noise of single answers is what runs do not have in common.
    """
    runs = len(values)
    covariance = np.cov(resampled, rowvar=False)
    own = float(np.trace(covariance)) / runs
    common = (float(covariance.sum()) - own * runs) / (runs * (runs - 1))
    return _Between(
        observed=float(np.var(values, ddof=1)),
        noise=max(0.0, own - common),
        weight=1.0 / runs,
        degrees_of_freedom=runs - 1,
    )
