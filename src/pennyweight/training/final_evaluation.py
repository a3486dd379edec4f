"""The evaluation that ends a run: of the saved classifier, on validation and the held-out sets.

This is the only place where labels of a held-out set are read, once everything has been chosen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import datasets
import numpy as np
from scipy.special import softmax

from pennyweight.budget.facts import read_artifact_facts, write_artifact_facts
from pennyweight.engine.batches.rows import TokenizedRows
from pennyweight.engine.predictor import Predictions, Predictor
from pennyweight.evaluation.calibration import FEWEST_MISTAKES, fit_temperature
from pennyweight.evaluation.decisions import answers_of, class_shares
from pennyweight.evaluation.metrics import AnyMetrics, Metrics, measure
from pennyweight.evaluation.thresholds import (
    DEFAULT_THRESHOLD,
    FEWEST_POSITIVES,
    fit_thresholds,
    sigmoid,
)
from pennyweight.files import replacing
from pennyweight.inference.correction import ShiftEvidence, estimate_correction, find_groups
from pennyweight.inference.load import SavedModel
from pennyweight.inference.texts import texts_of
from pennyweight.runs.record import (
    CalibrationRecord,
    CorrectionRecord,
    Mistake,
    ShareEstimate,
    TargetRecord,
)
from pennyweight.settings.values import PriorSettings
from pennyweight.training.active_run import ActiveRun, tokenized
from pennyweight.training.diagnosis import describe_collapse
from pennyweight.training.stages import Built

__all__ = ["evaluate_finally"]

_MISTAKES = 20


@dataclass(frozen=True, slots=True)
class _Sets:
    """The tokenized sets: labelled ones with rows by name, and the target where there is one."""

    labelled: Mapping[str, TokenizedRows]
    target: TokenizedRows | None


@dataclass(frozen=True, slots=True)
class _Answers:
    """Predictions for every set, as users will get them.

    Attributes:
        labelled: by the name of the set.
        target: for the unlabelled target, if there is one.
        calibration: of the probabilities, if a temperature was fitted.
        correction: of the class shares, if there is one.
        thresholds: of a multi-label task, float64 `[classes]`.
    """

    labelled: Mapping[str, Predictions]
    target: Predictions | None
    calibration: CalibrationRecord | None = None
    correction: CorrectionRecord | None = None
    thresholds: np.ndarray | None = None


def evaluate_finally(run: ActiveRun, built: Built, class_shares: np.ndarray | None) -> None:
    """Measure the saved classifier, loaded as `pennyweight evaluate` loads it, and record it.

    A set without rows is not measured, and held-out sets only where the job uses them. A
    temperature, or in a multi-label task the thresholds of the classes, are fitted on validation
    and saved into the artifact.

    Where the recipe corrects for the target's class shares, the correction is estimated from
    validation and target and saved into the artifact; the metrics are of corrected predictions, and
    the record also says what they were without the correction.

    Args:
        run: the run, trained and verified.
        built: its tokenizer and how its base was loaded.
        class_shares: of the training rows, float64 `[classes]`; required where the recipe corrects
            for the target's class shares.
    """
    job = run.job
    artifact = run.directory.artifact(job.plan.method.artifact)
    saved = SavedModel(job.base, artifact, job.plan.method, built.options, job.settings.inference)
    predictor = saved.load_predictor(
        job.compute.for_inference(), tokenizer=built.tokenizer, accelerator=job.accelerator
    )
    sets = _tokenized(run, built)
    prior = job.settings.prior
    if prior is None or sets.target is None or class_shares is None:
        answers = _predict(predictor, sets, features=False)
        if job.settings.task == "single-label":
            answers = _calibrated(run, answers, sets)
    else:
        needs_features = prior.groups != "one" and prior.discriminator == "hidden-states"
        answers = _predict(predictor, sets, features=needs_features)
        answers = _corrected(run, answers, sets, prior, class_shares)
    if job.settings.task == "multi-label":
        answers = _with_thresholds(run, answers, sets)
    _record(run, answers, sets)


def _tokenized(run: ActiveRun, built: Built) -> _Sets:
    splits, facts = run.splits, run.splits.sets
    labelled = {
        name: tokenized(run, table, facts[name].fingerprint, tokenizer=built.tokenizer)
        for name, table in run.evaluated.items()
    }
    target = None
    if splits.target is not None:
        fingerprint = facts["target"].fingerprint
        target = tokenized(run, splits.target, fingerprint, tokenizer=built.tokenizer)
    return _Sets(labelled, target)


def _predict(predictor: Predictor, sets: _Sets, *, features: bool) -> _Answers:
    labelled = {
        name: predictor.rows(rows, features=features, name=name)
        for name, rows in sets.labelled.items()
    }
    target = None
    if sets.target is not None:
        target = predictor.rows(sets.target, features=features, name="target")
    return _Answers(labelled, target)


def _calibrated(run: ActiveRun, answers: _Answers, sets: _Sets) -> _Answers:
    """Fit the temperature on validation, save it, and return calibrated predictions."""
    if "validation" not in sets.labelled:
        return answers
    labels = sets.labelled["validation"].labels
    temperature = fit_temperature(answers.labelled["validation"].logits, labels)
    if temperature is None:
        run.log(
            "temperature: not fitted, probabilities stay as they are: fewer than "
            f"{FEWEST_MISTAKES} validation rows are classified wrongly"
        )
        return answers
    run.log(f"temperature: {temperature:.3f}, fitted on {len(labels):,} validation rows")
    _save_facts(run, temperature=temperature)
    without = {name: _measured(run, answers, sets, name) for name in answers.labelled}
    scores = {name: one.scalars() for name, one in without.items() if isinstance(one, Metrics)}
    target = answers.target
    return replace(
        answers,
        labelled={name: one.divided_by(temperature) for name, one in answers.labelled.items()},
        target=None if target is None else target.divided_by(temperature),
        calibration=CalibrationRecord(
            temperature=temperature,
            rows=len(labels),
            ece_without={name: each["ece"] for name, each in scores.items()},
            nll_without={name: each["nll"] for name, each in scores.items()},
        ),
    )


def _corrected(
    run: ActiveRun,
    answers: _Answers,
    sets: _Sets,
    settings: PriorSettings,
    class_shares: np.ndarray,
) -> _Answers:
    """Estimate the correction, save it, and return the corrected predictions."""
    names, splits = run.job.settings.labels, run.splits
    target = answers.target
    assert target is not None  # noqa: S101 - a recipe with a prior names a target
    assert splits.target is not None  # noqa: S101 - as above
    target_texts = texts_of(splits.target)
    evidence = ShiftEvidence(
        names=names,
        source=class_shares,
        validation=answers.labelled["validation"],
        labels=sets.labelled["validation"].labels,
        target=target,
        texts=(texts_of(splits.train), target_texts),
    )
    seed = run.job.settings.seed
    groups = find_groups(evidence, settings, seed=seed)
    correction, record = estimate_correction(evidence, settings, groups=groups, seed=seed)
    for line in _describe(record):
        run.log(line)
    if run.job.accelerator.is_main_process:
        correction.save(run.directory.artifact(run.job.plan.method.artifact))
    accuracy_without = {
        name: float(np.mean(one.logits.argmax(axis=1) == sets.labelled[name].labels))
        for name, one in answers.labelled.items()
    }

    labelled = {
        name: correction.apply(predictions, texts_of(splits.labelled[name]))
        for name, predictions in answers.labelled.items()
    }
    return _Answers(
        labelled,
        correction.apply(target, target_texts),
        correction=record.model_copy(
            update={
                "accuracy_without": accuracy_without,
                "predicted_shares_without": _predicted_shares(target, names),
            }
        ),
    )


def _with_thresholds(run: ActiveRun, answers: _Answers, sets: _Sets) -> _Answers:
    """Fit each class's threshold on validation, save all of them, and return them as well."""
    names = run.job.settings.labels
    if "validation" in sets.labelled:
        labels = sets.labelled["validation"].labels
        thresholds = fit_thresholds(sigmoid(answers.labelled["validation"].logits), labels)
        rare = [
            name
            for name, positives in zip(names, labels.sum(axis=0), strict=True)
            if positives < FEWEST_POSITIVES
        ]
        run.log("thresholds: fitted on the validation rows, one for each class")
        if rare:
            run.log(
                f"thresholds: {', '.join(rare)}: fewer than {FEWEST_POSITIVES} validation rows, so "
                "the threshold fitted for all classes together is used"
            )
    else:
        thresholds = np.full(len(names), DEFAULT_THRESHOLD)
        run.log(f"thresholds: {DEFAULT_THRESHOLD} for each class, as there are no validation rows")
    _save_facts(run, thresholds=tuple(thresholds.tolist()))
    return replace(answers, thresholds=thresholds)


def _save_facts(run: ActiveRun, **changes: Any) -> None:
    """Change some of the facts that are saved with the weights."""
    artifact = run.directory.artifact(run.job.plan.method.artifact)
    facts = read_artifact_facts(artifact)
    assert facts is not None  # noqa: S101 - saved with the weights
    if run.job.accelerator.is_main_process:
        write_artifact_facts(artifact, replace(facts, **changes))


def _measured(run: ActiveRun, answers: _Answers, sets: _Sets, name: str) -> AnyMetrics:
    """Return the metrics of a labelled set."""
    return measure(
        answers.labelled[name].logits,
        sets.labelled[name].labels,
        names=run.job.settings.labels,
        bins=run.job.settings.inference.calibration_bins,
        thresholds=answers.thresholds,
    )


def _record(run: ActiveRun, answers: _Answers, sets: _Sets) -> None:
    names = run.job.settings.labels
    logits = {name: predictions.logits for name, predictions in answers.labelled.items()}
    labels = {name: rows.labels for name, rows in sets.labelled.items()}
    metrics = {name: _measured(run, answers, sets, name) for name in logits}
    predicted = {name: answers_of(values, answers.thresholds) for name, values in logits.items()}
    tables = run.splits.labelled
    if run.job.accelerator.is_main_process:
        arrays: dict[str, Any] = {**predicted}
        arrays |= {f"{name}.labels": values for name, values in labels.items()}
        with replacing(run.directory.predictions) as part, part.open("wb") as file:
            np.savez_compressed(file, **arrays)
    target = None
    if answers.target is not None:
        shares = _predicted_shares(answers.target, names, thresholds=answers.thresholds)
        target = TargetRecord(rows=len(answers.target), predicted_shares=shares)
    run.writer.update(
        metrics=metrics,
        mistakes={
            name: _most_confident_mistakes(
                logits[name], labels[name], predicted[name], tables[name], names=names
            )
            for name in logits
        },
        target=target,
        calibration=answers.calibration,
        correction=answers.correction,
    )
    if "validation" in predicted:
        warning = describe_collapse(predicted["validation"], labels["validation"], names=names)
        if warning is not None:
            run.log(warning)


def _predicted_shares(
    target: Predictions, names: Sequence[str], *, thresholds: np.ndarray | None = None
) -> dict[str, float]:
    """Return the share of the rows that each class is predicted for."""
    shares = class_shares(answers_of(target.logits, thresholds), len(names))
    return dict(zip(names, shares.tolist(), strict=True))


def _most_confident_mistakes(
    logits: np.ndarray,
    labels: np.ndarray,
    predicted: np.ndarray,
    rows: datasets.Dataset,
    *,
    names: Sequence[str],
) -> tuple[Mistake, ...]:
    """Return the rows with a wrong answer whose confidence is highest.

    In a multi-label task, the confidence is that of the most confident wrong decision of a row.
    """
    if labels.ndim == 2:
        positive = sigmoid(logits)
        certainty = np.where(predicted == 1, positive, 1.0 - positive)
        confidence = np.where(predicted != labels, certainty, 0.0).max(axis=1)
        wrong = np.flatnonzero((predicted != labels).any(axis=1))
    else:
        confidence = softmax(logits.astype(np.float64), axis=1).max(axis=1)
        wrong = np.flatnonzero(predicted != labels)
    order = wrong[np.argsort(-confidence[wrong], kind="stable")][:_MISTAKES]
    texts = [rows[int(row)] for row in order]
    return tuple(
        Mistake(
            text=text["text"],
            label=_in_words(labels[row], names),
            predicted=_in_words(predicted[row], names),
            confidence=float(confidence[row]),
            text_pair=text.get("text_pair"),
        )
        for row, text in zip(order, texts, strict=True)
    )


def _in_words(answer: np.ndarray, names: Sequence[str]) -> str:
    """Return the name of a class, or the names of all classes of a multi-label row."""
    if answer.ndim == 0:
        return names[int(answer)]
    return ", ".join(names[index] for index in np.flatnonzero(answer).tolist()) or "(no label)"


def _describe(record: CorrectionRecord) -> list[str]:
    lines = []
    if record.one_group_because is not None:
        lines.append(
            "prior: training and target texts are treated as one population: "
            f"{record.one_group_because}"
        )
    elif record.area_under_curve is not None:
        lines.append(
            "prior: training and target texts are told apart with an area under the ROC curve of "
            f"{record.area_under_curve:.2f}"
        )
    for group in record.groups:
        if group.refused:
            lines.append(f"prior of {group.name}: not corrected: {group.refused}")
            continue
        shares = ", ".join(f"{name} {_in_percent(prior)}" for name, prior in group.prior.items())
        known = " (as stated)" if record.method == "stated" else ""
        lines.append(f"prior of {group.name}, {group.rows:,} rows{known}: {shares}")
    return lines


def _in_percent(prior: ShareEstimate) -> str:
    low, high = prior.interval
    interval = "" if low == high else f" ({low:.1%} to {high:.1%})"
    return f"{prior.share:.1%}{interval}"
