"""A finished classifier's correction for the target's class shares, kept beside its weights.

The target may be several populations with different shares. So a linear discriminator on the
classifier's own features tells text that looks like training text from text that does not, and
each group has its own prior.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
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

from pennyweight.errors import RunError
from pennyweight.evaluation.shift import (
    Estimate,
    correct_logits,
    estimate_prior,
    match_shares,
    temperature_of,
)

__all__ = ["CORRECTION", "Correction", "estimate_correction", "load_correction"]

CORRECTION = "correction.json"
# Area under the curve below which training and target text are not told apart.
_LEAST_AREA = 0.6
# Fewer rows say too little of a group's shares.
_FEWEST_ROWS = 100


@dataclass(frozen=True, slots=True)
class Correction:
    """What turns a classifier's logits into those for the target.

    Attributes:
        temperature: that calibrates the logits on validation.
        source: share of each class in the training rows.
        priors: of each group, `[groups, classes]`; of shares that were stated, those that bring
            the answers there.
        direction: `[hidden + 1]`, the discriminator's weights on features and its intercept;
            rows above 0 are of the second group. None for one group.
    """

    temperature: float
    source: np.ndarray
    priors: np.ndarray
    direction: np.ndarray | None = None

    def apply(self, logits: np.ndarray, features: np.ndarray | None) -> np.ndarray:
        """Corrected logits, float32 `[rows, classes]`; features are needed for two groups."""
        calibrated = logits.astype(np.float64) / self.temperature
        groups = np.zeros(len(logits), dtype=np.int64)
        if self.direction is not None:
            assert features is not None  # noqa: S101 - whoever has groups has a feed for features
            groups = self.groups_of(features)
        corrected = correct_logits(calibrated, source=self.source, prior=self.priors[groups])
        return corrected.astype(np.float32)

    def fold_into(self, layer: nn.Linear) -> None:
        """Let a layer that gives the logits give corrected ones; for one group."""
        shift = correct_logits(np.zeros_like(self.source), source=self.source, prior=self.priors[0])
        with torch.no_grad():
            layer.weight.div_(self.temperature)
            layer.bias.div_(self.temperature).add_(torch.from_numpy(shift).to(layer.bias))

    def groups_of(self, features: np.ndarray) -> np.ndarray:
        """0 for what looks like training text, 1 for what does not."""
        assert self.direction is not None  # noqa: S101 - asked for with two groups only
        found: np.ndarray = features @ self.direction[:-1] + self.direction[-1] > 0.0
        return found.astype(np.int64)

    def to_json(self) -> dict[str, Any]:
        """For `correction.json`."""
        return {
            "temperature": self.temperature,
            "source": self.source.tolist(),
            "priors": self.priors.tolist(),
            "direction": None if self.direction is None else self.direction.tolist(),
        }


def load_correction(directory: Path) -> Correction | None:
    """The correction in an artifact's directory, if it has one.

    Raises:
        RunError: it cannot be read.
    """
    path = directory / CORRECTION
    if not path.is_file():
        return None
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        direction = told["direction"]
        return Correction(
            temperature=float(told["temperature"]),
            source=np.array(told["source"]),
            priors=np.array(told["priors"]),
            direction=None if direction is None else np.array(direction),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{path}: cannot be read: {error}") from None


@dataclass(frozen=True, slots=True)
class _Group:
    """Some of the target's rows, their shares, and the prior that brings answers there."""

    name: str
    rows: np.ndarray
    estimate: Estimate
    weights: np.ndarray


def estimate_correction(
    method: str,
    *,
    groups: str,
    stated: Mapping[str, float],
    names: Sequence[str],
    source: np.ndarray,
    validation: tuple[np.ndarray, np.ndarray, np.ndarray],
    target: tuple[np.ndarray, np.ndarray],
    seed: int,
) -> tuple[Correction, dict[str, Any]]:
    """The correction, and what a report says of it. No label of the target is read.

    Args:
        method: "em", "confusion", or "stated".
        groups: "one", or "discriminated".
        stated: shares by class, with "stated".
        names: of the classes.
        source: share of each class in the training rows.
        validation: logits, features and labels of validation rows.
        target: logits and features of target rows.
        seed: of the bootstrap and the discriminator.
    """
    logits, features, labels = validation
    temperature = temperature_of(logits, labels)
    direction, area = None, None
    member = np.zeros(len(target[0]), dtype=np.int64)
    if groups == "discriminated":
        direction, member, area = _discriminate(features, target[1], seed=seed)
    calibrated = target[0] / temperature
    kinds = ("target",) if direction is None else ("like training", "unlike training")
    found = []
    for number, name in enumerate(kinds):
        rows = np.flatnonzero(member == number)
        if method == "stated":
            wanted = np.array([stated[label] for label in names])
            found.append(_stated(name, rows, calibrated[rows], wanted, source))
            continue
        if len(rows) < _FEWEST_ROWS:
            why = f"{len(rows)} rows are too few; at least {_FEWEST_ROWS} are needed"
            estimate = Estimate(source, source, source, why)
        else:
            estimate = estimate_prior(
                method,
                validation=logits / temperature,
                labels=labels,
                target=calibrated[rows],
                source=source,
                seed=seed,
            )
        found.append(_Group(name, rows, estimate, estimate.prior))
    priors = np.stack([group.weights for group in found])
    correction = Correction(temperature, source, priors, direction)
    return correction, {
        "method": method,
        "temperature": temperature,
        "area_under_curve": area,
        "groups": [_told(group, names) for group in found],
    }


def _stated(
    name: str, rows: np.ndarray, logits: np.ndarray, wanted: np.ndarray, source: np.ndarray
) -> _Group:
    """A group whose mean probabilities are to be the shares that somebody knows."""
    weights = source * np.exp(match_shares(logits, wanted)) if len(rows) else source
    return _Group(name, rows, Estimate(wanted, wanted, wanted), weights / weights.sum())


def _told(group: _Group, names: Sequence[str]) -> dict[str, Any]:
    estimate = group.estimate
    return {
        "name": group.name,
        "rows": len(group.rows),
        "refused": estimate.refused,
        "prior": {
            name: {"share": float(share), "interval": [float(low), float(high)]}
            for name, share, low, high in zip(
                names, estimate.prior, estimate.low, estimate.high, strict=True
            )
        },
    }


def _discriminate(
    source: np.ndarray, target: np.ndarray, *, seed: int
) -> tuple[np.ndarray | None, np.ndarray, float]:
    """A direction in feature space, the target rows' groups, and how well it tells them apart."""
    features = np.concatenate([source, target]).astype(np.float64)
    domain = np.r_[np.zeros(len(source), dtype=int), np.ones(len(target), dtype=int)]
    model = make_pipeline(
        StandardScaler(), LogisticRegression(max_iter=1000, C=0.1, class_weight="balanced")
    )
    splits = StratifiedKFold(5, shuffle=True, random_state=seed)
    scores = cross_val_predict(model, features, domain, cv=splits, method="decision_function")
    area = float(roc_auc_score(domain, scores))
    if area < _LEAST_AREA:
        return None, np.zeros(len(target), dtype=np.int64), area
    model.fit(features, domain)
    scaler, linear = model[0], model[1]
    weights = linear.coef_[0] / scaler.scale_
    intercept = float(linear.intercept_[0] - weights @ scaler.mean_)
    return np.r_[weights, intercept], (scores[len(source) :] > 0.0).astype(np.int64), area
