"""A correction of a finished classifier for the target's class shares, saved beside its weights.

The target may consist of several populations with different class shares. So a linear
discriminator on the classifier's own features separates texts that resemble the training texts from
those that do not, and each group has a prior of its own.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from pennyweight.engine.predictor import Predictions
from pennyweight.errors import RunError
from pennyweight.evaluation.shift import (
    Estimate,
    correct_logits,
    estimate_prior,
    match_shares,
    temperature_of,
)
from pennyweight.runs.record import CorrectionRecord, GroupRecord, ShareEstimate, write_text
from pennyweight.settings.values import PriorSettings

__all__ = ["Correction", "ShiftEvidence", "estimate_correction", "load_correction"]

_FILE = "correction.json"
# Below this area under the ROC curve, training and target texts are treated as one population.
_SMALLEST_AREA = 0.6
# With fewer rows, a group's shares cannot be estimated.
_FEWEST_ROWS = 100


@dataclass(frozen=True, slots=True)
class Correction:
    """Turns a classifier's logits into logits for the target.

    Attributes:
        temperature: calibrates the logits on validation.
        source: share of each class in the training rows.
        priors: of each group, `[groups, classes]`; where shares were stated, the priors with which
            the mean probabilities equal them.
        direction: `[hidden + 1]`, the discriminator's weights on the features and its intercept;
            rows above 0 belong to the second group. None for one group.
    """

    temperature: float
    source: np.ndarray
    priors: np.ndarray
    direction: np.ndarray | None = None

    def apply(self, logits: np.ndarray, features: np.ndarray | None) -> np.ndarray:
        """Return corrected logits, float32 `[rows, classes]`; two groups need features."""
        calibrated = logits.astype(np.float64) / self.temperature
        groups = np.zeros(len(logits), dtype=np.int64)
        if self.direction is not None:
            assert features is not None  # noqa: S101 - callers with two groups pass features
            groups = self.groups_of(features)
        corrected = correct_logits(calibrated, source=self.source, prior=self.priors[groups])
        return corrected.astype(np.float32)

    def fold_into(self, layer: nn.Linear) -> None:
        """Make an output layer return corrected logits; possible with one group only."""
        shift = correct_logits(np.zeros_like(self.source), source=self.source, prior=self.priors[0])
        with torch.no_grad():
            layer.weight.div_(self.temperature)
            layer.bias.div_(self.temperature).add_(torch.from_numpy(shift).to(layer.bias))

    def groups_of(self, features: np.ndarray) -> np.ndarray:
        """Return 0 for each row that resembles the training texts and 1 for the others."""
        assert self.direction is not None  # noqa: S101 - called with two groups only
        is_second: np.ndarray = features @ self.direction[:-1] + self.direction[-1] > 0.0
        return is_second.astype(np.int64)

    def save(self, artifact: Path) -> None:
        """Write the correction into an artifact's directory."""
        values = {
            "temperature": self.temperature,
            "source": self.source.tolist(),
            "priors": self.priors.tolist(),
            "direction": None if self.direction is None else self.direction.tolist(),
        }
        write_text(artifact / _FILE, json.dumps(values) + "\n")


def load_correction(artifact: Path) -> Correction | None:
    """Read the correction in an artifact's directory, if it has one.

    Raises:
        RunError: it cannot be read.
    """
    path = artifact / _FILE
    if not path.is_file():
        return None
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        direction = values["direction"]
        return Correction(
            temperature=float(values["temperature"]),
            source=np.array(values["source"]),
            priors=np.array(values["priors"]),
            direction=None if direction is None else np.array(direction),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{path}: cannot be read: {error}") from None


@dataclass(frozen=True, slots=True)
class ShiftEvidence:
    """What a correction is estimated from; no label of the target is among it.

    Attributes:
        names: of the classes.
        source: share of each class in the training rows, float64 `[classes]`.
        validation: predictions of validation rows, with features.
        labels: of the validation rows, int64 `[rows]`.
        target: predictions of target rows, with features.
    """

    names: Sequence[str]
    source: np.ndarray
    validation: Predictions
    labels: np.ndarray
    target: Predictions


@dataclass(frozen=True, slots=True)
class _Group:
    """Some of the target's rows, their shares, and the prior that leads to these shares."""

    name: str
    rows: np.ndarray
    estimate: Estimate
    prior: np.ndarray


def estimate_correction(
    evidence: ShiftEvidence, settings: PriorSettings, *, seed: int
) -> tuple[Correction, CorrectionRecord]:
    """Estimate the correction for a target, and what a report says about it.

    Args:
        evidence: predictions on validation and target.
        settings: the method, the groups, and shares that are known.
        seed: of the bootstrap and of the discriminator's folds.
    """
    temperature = temperature_of(evidence.validation.logits, evidence.labels)
    direction, area = None, None
    members = np.zeros(len(evidence.target), dtype=np.int64)
    if settings.groups == "discriminated":
        direction, members, area = _discriminate(evidence, seed=seed)
    names = ("target",) if direction is None else ("like training", "unlike training")
    groups = [
        _group(name, np.flatnonzero(members == number), evidence, settings, temperature, seed)
        for number, name in enumerate(names)
    ]
    correction = Correction(
        temperature, evidence.source, np.stack([group.prior for group in groups]), direction
    )
    return correction, CorrectionRecord(
        method=settings.method,
        temperature=temperature,
        area_under_curve=area,
        groups=tuple(_record(group, evidence.names) for group in groups),
    )


def _group(
    name: str,
    rows: np.ndarray,
    evidence: ShiftEvidence,
    settings: PriorSettings,
    temperature: float,
    seed: int,
) -> _Group:
    source, target = evidence.source, evidence.target.logits[rows] / temperature
    if settings.method == "stated":
        shares = np.array([settings.stated[label] for label in evidence.names])
        weights = source * np.exp(match_shares(target, shares)) if len(rows) else source
        return _Group(name, rows, Estimate(shares, shares, shares), weights / weights.sum())
    if len(rows) < _FEWEST_ROWS:
        reason = f"it has {len(rows)} rows; at least {_FEWEST_ROWS} are needed"
        estimate = Estimate(source, source, source, reason)
    else:
        estimate = estimate_prior(
            settings.method,
            validation=evidence.validation.logits / temperature,
            labels=evidence.labels,
            target=target,
            source=source,
            seed=seed,
        )
    return _Group(name, rows, estimate, estimate.prior)


def _record(group: _Group, names: Sequence[str]) -> GroupRecord:
    estimate = group.estimate
    columns: Any = zip(names, estimate.prior, estimate.low, estimate.high, strict=True)
    return GroupRecord(
        name=group.name,
        rows=len(group.rows),
        refused=estimate.refused,
        prior={
            name: ShareEstimate(share=float(share), interval=(float(low), float(high)))
            for name, share, low, high in columns
        },
    )


def _discriminate(
    evidence: ShiftEvidence, *, seed: int
) -> tuple[np.ndarray | None, np.ndarray, float]:
    """Return a direction in feature space, the target rows' groups, and the area under the ROC."""
    source, target = evidence.validation.features, evidence.target.features
    assert source is not None  # noqa: S101 - the evidence holds features
    assert target is not None  # noqa: S101 - as above
    features = np.concatenate([source, target]).astype(np.float64)
    domain = np.r_[np.zeros(len(source), dtype=int), np.ones(len(target), dtype=int)]
    model = make_pipeline(
        StandardScaler(), LogisticRegression(max_iter=1000, C=0.1, class_weight="balanced")
    )
    splits = StratifiedKFold(5, shuffle=True, random_state=seed)
    scores = cross_val_predict(model, features, domain, cv=splits, method="decision_function")
    area = float(roc_auc_score(domain, scores))
    if area < _SMALLEST_AREA:
        return None, np.zeros(len(target), dtype=np.int64), area
    model.fit(features, domain)
    scaler, linear = model[0], model[1]
    weights = linear.coef_[0] / scaler.scale_
    intercept = float(linear.intercept_[0] - weights @ scaler.mean_)
    return np.r_[weights, intercept], (scores[len(source) :] > 0.0).astype(np.int64), area
