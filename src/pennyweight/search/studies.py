"""Run a study: every variation with every seed, each in its own run directory, and one table."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from pennyweight.defaults import is_completion, plan
from pennyweight.errors import BudgetError, DataError, PennyweightError, RecipeError, RunError
from pennyweight.evaluation.metrics import headline_in
from pennyweight.evaluation.statistics import holm, mean_interval, paired_p
from pennyweight.recipe import Recipe, change_recipe
from pennyweight.recipe.study import Study, Variation
from pennyweight.runs.record import RunRecord, load_record, write_text
from pennyweight.runs.results import baseline_headlines, ordered_sets
from pennyweight.search.choosing import Choice, choice_job, chosen, finished_choice
from pennyweight.search.engines import Engine, engine_of
from pennyweight.search.job import SearchJob
from pennyweight.search.sources import keep_sources, source_digests
from pennyweight.search.study_directory import CHOICE, STUDY_FILE, row_directory, row_title
from pennyweight.search.study_ranks import rank_rows
from pennyweight.search.study_training import StudyRun
from pennyweight.training.watcher import Watcher

__all__ = ["StudyRow", "run_study"]


@dataclass(frozen=True, slots=True)
class StudyRow:
    """One row of a study's table, over its seeds; on one data set, if the study has several.

    Attributes:
        name: of the variation.
        seeds: of the runs that are complete.
        metric: what is compared, "accuracy" or "macro_f1": what the first run leads with.
        values: of the metric, for each of those runs, by set.
        mean: mean of the values by set.
        deviation: standard deviation by set; None for one seed.
        interval: 95% interval of the mean by set, over seeds; None for fewer than three seeds.
        p: of the paired t-test against the first row by set, over the seeds that both have; None
            where the test cannot be computed. It is not adjusted for the number of rows.
            Rows are compared on the same data set only.
        predicted_shares: mean share of each class in the unlabelled target; empty without a target.
        parameters: number of trained parameters.
        seconds: mean duration of a run.
        peak_memory_bytes: largest of the runs.
        leaks: warnings of the runs about rows that are in two sets.
        transductive: uses that the runs made of the target's text.
        failures: why runs failed, by seed.
        baselines: mean value of each baseline by set, over the seeds that have it.
        adjusted_p: the p-values by set, adjusted by Holm's method for the number of rows.
        dataset: name of the data set; "" in a study without `[datasets]`.
        budget: largest number of trainable parameters allowed.
        choice: values that were chosen on validation; None if the study chooses none.
    """

    name: str
    seeds: list[int]
    metric: str
    values: dict[str, list[float]]
    mean: dict[str, float]
    deviation: dict[str, float | None]
    interval: dict[str, tuple[float, float] | None]
    p: dict[str, float | None]
    predicted_shares: dict[str, float]
    parameters: int
    seconds: float
    peak_memory_bytes: int
    leaks: list[str]
    transductive: list[str]
    failures: dict[str, str]
    baselines: dict[str, dict[str, float]] = field(default_factory=dict)
    adjusted_p: dict[str, float | None] = field(default_factory=dict)
    dataset: str = ""
    budget: int = 0
    choice: Choice | None = None

    @property
    def title(self) -> str:
        """The name, with that of the data set if the study has several."""
        return row_title(self.name, self.dataset)


def run_study(
    study: Study,
    *,
    out: str | Path,
    engine: str | Engine = "local",
    log: Callable[[str], None] = lambda _: None,
    watcher: Watcher | None = None,
) -> list[StudyRow]:
    """Train what is not trained yet, and summarize it; `out/study.json` holds the same rows.

    A study that was interrupted continues where it stopped: complete runs are read, unfinished ones
    resumed. Every row is planned before anything is trained. Values to choose are chosen on
    validation before the runs of a row begin. A run that fails later is recorded, and the study
    goes on with the next one.

    Raises:
        RecipeError, BudgetError: rows of the study cannot be planned, or are over budget.
        DataError: the training rows of a recipe that leaves keys open cannot be read.
        BaseModelError: a base model cannot be found.
        RunError: a run directory in `out` belongs to another recipe, the rows have changed since
            the study began, or `out` cannot be created; or the study chooses values, and Optuna is
            missing.
    """
    out, engine = Path(out), engine_of(engine)
    _check_plans(study, out)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"--out {out}: cannot be created: {error.strerror}") from None
    keep_sources(out, source_digests(recipe for row in study.variations for recipe in row.recipes))
    rows: list[StudyRow] = []
    # The runs of the first row that has any, by data set.
    first: dict[str, dict[int, RunRecord]] = {}
    variations = list(study.variations)
    parts = [variations] if engine.trains_rows_together else [[one] for one in variations]
    for part in parts:
        runs = [_runs(variation, study, out) for variation in part]
        for variation, result in zip(
            part, _train_rows(part, runs, out, engine, log, watcher), strict=True
        ):
            records = result.records
            first[variation.dataset] = first.get(variation.dataset) or records
            rows.append(_summarize(variation, result, first[variation.dataset]))
            rows = _with_adjusted_p(rows)
        _save(out, study, rows)
    return rows


@dataclass(slots=True)
class _RowResult:
    """The outcome of a row: values chosen, complete runs by seed, and reasons for failures."""

    choice: Choice | None = None
    records: dict[int, RunRecord] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)


def _runs(variation: Variation, study: Study, out: Path) -> dict[int, Path]:
    """Return the run directories of a row, by seed."""
    directory = row_directory(out, variation.number, variation.name, variation.dataset)
    return {seed: directory / f"seed-{seed}" for seed in study.seeds}


def _train_rows(
    variations: Sequence[Variation],
    runs: Sequence[Mapping[int, Path]],
    out: Path,
    engine: Engine,
    log: Callable[[str], None],
    watcher: Watcher | None,
) -> list[_RowResult]:
    """Choose the values of some rows, and then train their runs."""
    results = [_RowResult() for _ in variations]
    jobs: dict[int, SearchJob] = {}
    for number, variation in enumerate(variations):
        with _failing(results[number], runs[number], log):
            results[number].choice, job = _choice(variation, runs[number], log)
            jobs |= {} if job is None else {number: job}
    engine.search(list(jobs.values()), log=log)
    for number, job in jobs.items():
        with _failing(results[number], runs[number], log):
            results[number].choice = chosen(job)
    orders: list[tuple[_RowResult, int, StudyRun]] = []
    for variation, directories, result in zip(variations, runs, results, strict=True):
        if result.failures:
            continue
        title = row_title(variation.name, variation.dataset)
        for (seed, run), recipe in zip(directories.items(), variation.recipes, strict=True):
            with _failing(result, [seed], log):
                choice = result.choice
                own = recipe if choice is None else change_recipe(recipe, choice.values)
                orders.append((result, seed, StudyRun(title, own, run)))
    trained = engine.train([order for _, _, order in orders], out=out, log=log, watcher=watcher)
    for (result, seed, _), record in zip(orders, trained, strict=True):
        if isinstance(record, PennyweightError):
            result.failures[str(seed)] = str(record)
        else:
            result.records[seed] = record
    return results


@contextmanager
def _failing(
    result: _RowResult, seeds: Iterable[int], log: Callable[[str], None]
) -> Iterator[None]:
    """Record that the block fails for some seeds.

    Raises:
        RunError: from the block; the study cannot go on.
    """
    try:
        yield
    except RunError:
        raise
    except PennyweightError as error:
        result.failures.update({str(seed): str(error) for seed in seeds})
        log(f"failed: {error}")


def _choice(
    variation: Variation, runs: Mapping[int, Path], log: Callable[[str], None]
) -> tuple[Choice | None, SearchJob | None]:
    """Return the values that were chosen for a row, and the search that chooses them, if any."""
    if variation.choose is None:
        return None, None
    out = next(iter(runs.values())).parent / CHOICE
    choice = finished_choice(variation.choose, out=out)
    if choice is not None and all(map(_is_complete, runs.values())):
        return choice, None
    name = row_title(variation.name, variation.dataset)
    log(f"{name}: choosing {', '.join(variation.choose.ranges)}: {out}")
    return None, choice_job(variation.recipes[0], variation.choose, out=out)


def _check_plans(study: Study, out: Path) -> None:
    """Plan every row that has runs to train.

    Raises:
        RunError: a run was trained with another recipe.
        RecipeError, BudgetError, DataError: rows cannot be planned; the message names each of
            them.
        BaseModelError: a base model cannot be found.
    """
    problems: list[PennyweightError] = []
    for variation in study.variations:
        # What seeds change does not change the plan.
        runs = _runs(variation, study, out)
        _refuse_other_recipes(variation, runs)
        if all(map(_is_complete, runs.values())):
            continue
        try:
            plan(variation.recipes[0])
        except (RecipeError, BudgetError, DataError) as error:
            name = row_title(variation.name, variation.dataset)
            problems.append(type(error)(f'row "{name}": {error}'))
    if problems:
        reasons = "; ".join(map(str, problems))
        raise type(problems[0])(f"study {study.name}: nothing was trained: {reasons}")


def _refuse_other_recipes(variation: Variation, runs: Mapping[int, Path]) -> None:
    """Refuse runs that were trained with other recipes than those of a row.

    Raises:
        RunError: one was.
    """
    choice = None
    if variation.choose is not None:
        choice = finished_choice(variation.choose, out=next(iter(runs.values())).parent / CHOICE)
        if choice is None:
            return
    for run, recipe in zip(runs.values(), variation.recipes, strict=True):
        own = recipe if choice is None else change_recipe(recipe, choice.values)
        _refuse_another_recipe(own, run)


def _is_complete(run: Path) -> bool:
    try:
        return load_record(run).status == "complete"
    except RunError:
        return False


def _refuse_another_recipe(recipe: Recipe, run: Path) -> None:
    """Refuse a run of another recipe; a record that cannot be read is one that fails later.

    Raises:
        RunError: the run in the directory was trained with another recipe.
    """
    try:
        record = load_record(run)
    except RunError:
        return
    allocated = None if record.allocation is None else record.allocation.adapter
    if not is_completion(record.recipe, recipe, allocated=allocated):
        raise RunError(
            f"{run}: trained with another recipe; name a new --out, or delete the directory"
        )


def _summarize(
    variation: Variation, result: _RowResult, first: Mapping[int, RunRecord]
) -> StudyRow:
    records = result.records
    runs = list(records.values())
    # Seeds of a row can differ in their sets, where a set's source names the seed.
    sets = [of for of in runs[0].metrics if all(of in run.metrics for run in runs)] if runs else []
    metric = _compared_metric([*first.values(), *runs])
    values = {of: [_value(record, of, metric) for record in runs] for of in sets}
    return StudyRow(
        name=variation.name,
        seeds=list(records),
        metric=metric,
        values=values,
        mean={of: float(np.mean(each)) for of, each in values.items()},
        deviation={
            of: float(np.std(each, ddof=1)) if len(each) > 1 else None
            for of, each in values.items()
        },
        interval={of: mean_interval(each) for of, each in values.items()},
        p={of: _p(records, first, of, metric) for of in sets},
        predicted_shares=_mean_shares(runs),
        parameters=max((r.parameters.model for r in runs if r.parameters), default=0),
        seconds=float(np.mean([r.seconds for r in runs])) if runs else 0.0,
        peak_memory_bytes=max((r.peak_memory_bytes for r in runs), default=0),
        leaks=sorted({leak for record in runs for leak in record.leaks}),
        transductive=sorted({use for record in runs for use in record.transductive}),
        failures=result.failures,
        baselines={of: means for of in sets if (means := _baselines(runs, of, metric))},
        dataset=variation.dataset,
        budget=variation.recipes[0].budget.trainable_parameters,
        choice=result.choice,
    )


def _compared_metric(runs: Sequence[RunRecord]) -> str:
    """Return the metric that the first run leads with on the first of its sets."""
    evaluated = next((record for record in runs if record.metrics), None)
    if evaluated is None:
        return "accuracy"
    return evaluated.metrics[ordered_sets(evaluated)[0]].headline.metric


def _value(record: RunRecord, of: str, metric: str) -> float:
    return headline_in(record.metrics[of], metric).value


def _baselines(runs: Sequence[RunRecord], of: str, metric: str) -> dict[str, float]:
    """Return the mean value of each baseline on a set."""
    values: dict[str, list[float]] = {}
    for record in runs:
        for name, headline in baseline_headlines(record, of, metric=metric).items():
            values.setdefault(name, []).append(headline.value)
    return {name: float(np.mean(each)) for name, each in values.items()}


def _p(
    records: Mapping[int, RunRecord], first: Mapping[int, RunRecord], of: str, metric: str
) -> float | None:
    """Return p against the first row over the seeds for which both rows have the set."""
    shared = [seed for seed in records if seed in first and of in first[seed].metrics]
    if records is first or not shared:
        return None
    own, reference = (
        [_value(table[seed], of, metric) for seed in shared] for table in (records, first)
    )
    return paired_p(own, reference)


def _with_adjusted_p(rows: Sequence[StudyRow]) -> list[StudyRow]:
    """Return the rows with the p-values adjusted for the number of rows so far.

    Those on each set of each data set are adjusted together.
    """
    adjusted: list[dict[str, float | None]] = [dict.fromkeys(row.p) for row in rows]
    for dataset, of in dict.fromkeys((row.dataset, of) for row in rows for of in row.p):
        tested = [
            (index, p)
            for index, row in enumerate(rows)
            if row.dataset == dataset and (p := row.p.get(of)) is not None
        ]
        for (index, _), p in zip(tested, holm([p for _, p in tested]), strict=True):
            adjusted[index][of] = p
    return [replace(row, adjusted_p=p) for row, p in zip(rows, adjusted, strict=True)]


def _mean_shares(records: Sequence[RunRecord]) -> dict[str, float]:
    shares = [record.target.predicted_shares for record in records if record.target]
    if not shares:
        return {}
    return {name: float(np.mean([one[name] for one in shares])) for name in shares[0]}


def _save(out: Path, study: Study, rows: Sequence[StudyRow]) -> None:
    table: dict[str, Any] = {
        "study": study.name,
        "summary": study.summary,
        "seeds": study.seeds,
        "rows": [asdict(row) for row in rows],
        "ranks": [asdict(ranks) for ranks in rank_rows(rows)],
    }
    write_text(out / STUDY_FILE, json.dumps(table, indent=1, ensure_ascii=False) + "\n")
