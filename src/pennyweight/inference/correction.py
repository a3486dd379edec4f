"""A correction of a finished classifier for the target's class shares, saved beside its weights.

The target may consist of several populations with different class shares. So texts that resemble
the training texts and those that do not can be told apart, and each group has a prior of its own.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from pennyweight.documents import read_json_table
from pennyweight.engine.predictor import Predictions
from pennyweight.errors import RunError
from pennyweight.evaluation.calibration import temperature_of
from pennyweight.evaluation.shift import (
    Estimate,
    correct_logits,
    estimate_prior,
    match_shares,
    positive_shares,
)
from pennyweight.inference.groups import Grouping, Groups, group, load_grouping
from pennyweight.runs.record import CorrectionRecord, GroupRecord, ShareEstimate, write_text
from pennyweight.settings.values import PriorSettings

__all__ = [
    "Correction",
    "ShiftEvidence",
    "estimate_correction",
    "find_groups",
    "fold_temperature",
    "load_correction",
]

_FILE = "correction.json"
# With fewer rows, a group's shares cannot be estimated.
_FEWEST_ROWS = 100
# Texts of each group that the record shows, and how many characters of each.
_EXAMPLES, _EXAMPLE_LENGTH = 3, 300


@dataclass(frozen=True, slots=True)
class Correction:
    """Turns a classifier's logits into logits for the target.

    Attributes:
        temperature: calibrates the logits on validation.
        source: share of each class that the classifier has learned from.
        priors: of each group, `[groups, classes]`; where shares were stated, the priors with which
            the mean probabilities equal them.
        grouping: tells the rows of two groups apart; None for one group.
    """

    temperature: float
    source: np.ndarray
    priors: np.ndarray
    grouping: Grouping | None = None

    @property
    def needs_features(self) -> bool:
        """Whether groups are told apart by the input of the output layer."""
        return self.grouping is not None and self.grouping.needs_features

    def apply(self, predictions: Predictions, texts: Sequence[str]) -> Predictions:
        """Return predictions with corrected logits, float32 `[rows, classes]`.

        Args:
            predictions: of the rows, with features where `needs_features` says so.
            texts: the cleaned texts of the rows.
        """
        calibrated = predictions.logits.astype(np.float64) / self.temperature
        groups = self.groups_of(texts, predictions.features)
        corrected = correct_logits(calibrated, source=self.source, prior=self.priors[groups])
        return Predictions(corrected.astype(np.float32), predictions.features)

    def fold_into(self, layer: nn.Linear) -> None:
        """Make an output layer return corrected logits; possible with one group only."""
        shift = correct_logits(np.zeros_like(self.source), source=self.source, prior=self.priors[0])
        with torch.no_grad():
            fold_temperature(layer, self.temperature)
            layer.bias.add_(torch.from_numpy(shift).to(layer.bias))

    def groups_of(self, texts: Sequence[str], features: np.ndarray | None) -> np.ndarray:
        """Return int64 `[rows]`: 0 for rows that resemble training texts, 1 for the others."""
        if self.grouping is None:
            return np.zeros(len(texts), dtype=np.int64)
        return (self.grouping.scores(texts, features) > 0.0).astype(np.int64)

    def save(self, artifact: Path) -> None:
        """Write the correction into an artifact's directory."""
        values = {
            "temperature": self.temperature,
            "source": self.source.tolist(),
            "priors": self.priors.tolist(),
            "groups": None if self.grouping is None else self.grouping.save(artifact),
        }
        write_text(artifact / _FILE, json.dumps(values) + "\n")


def fold_temperature(layer: nn.Linear, temperature: float) -> None:
    """Make an output layer return its logits divided by a temperature."""
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.div_(temperature)


def load_correction(artifact: Path) -> Correction | None:
    """Read the correction in an artifact's directory, if it has one.

    Raises:
        RunError: it cannot be read.
    """
    path = artifact / _FILE
    if not path.is_file():
        return None
    try:
        values = read_json_table(path)
        temperature = float(values["temperature"])
        source = np.array(values["source"], dtype=np.float64)
        priors = np.array(values["priors"], dtype=np.float64)
        _check_numbers(temperature, source, priors)
        groups = values.get("groups")
        # Earlier versions could tell groups apart by hidden states only.
        if groups is None and values.get("direction") is not None:
            groups = {"by": "hidden-states", "direction": values["direction"]}
        return Correction(
            temperature=temperature,
            source=source,
            priors=priors,
            grouping=load_grouping(artifact, groups),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{path}: cannot be read: {error}") from None


def _check_numbers(temperature: float, source: np.ndarray, priors: np.ndarray) -> None:
    """Check that logits which are corrected by these numbers stay finite.

    Raises:
        ValueError: they would not.
    """
    if not (0.0 < temperature < np.inf):
        raise ValueError(f"temperature: {temperature}; expected a positive number")
    if source.ndim != 1 or priors.ndim != 2 or priors.shape[1:] != source.shape:
        raise ValueError("source and priors must hold one share of each class")
    for name, shares in (("source", source), ("priors", priors)):
        if not (np.isfinite(shares).all() and (shares >= 0.0).all()):
            raise ValueError(f"{name}: expected shares, numbers from 0")


@dataclass(frozen=True, slots=True)
class ShiftEvidence:
    """The data that a correction is estimated from; no label of the target is among it.

    Attributes:
        names: of the classes.
        source: share of each class that the classifier has learned from, float64 `[classes]`.
        validation: predictions of validation rows, with features.
        labels: of the validation rows, int64 `[rows]`.
        target: predictions of target rows, with features.
        texts: of the training rows and of the target.
    """

    names: Sequence[str]
    source: np.ndarray
    validation: Predictions
    labels: np.ndarray
    target: Predictions
    texts: tuple[Sequence[str], Sequence[str]] = ((), ())


@dataclass(frozen=True, slots=True)
class _Members:
    """The rows of a group, and its most typical texts."""

    name: str
    rows: np.ndarray
    examples: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Group:
    """Some of the target's rows, their shares, and the prior that leads to these shares."""

    members: _Members
    estimate: Estimate
    prior: np.ndarray


def find_groups(evidence: ShiftEvidence, settings: PriorSettings, *, seed: int) -> Groups | None:
    """Return how the groups of a target are told apart; None where one group is asked for.

    Args:
        evidence: texts, or features, of training and target.
        settings: whether there are groups, and what they are told apart by.
        seed: of the discriminator's folds.
    """
    if settings.groups == "one":
        return None
    features = (evidence.validation.features, evidence.target.features)
    return group(settings.discriminator, texts=evidence.texts, features=features, seed=seed)


def estimate_correction(
    evidence: ShiftEvidence, settings: PriorSettings, *, groups: Groups | None, seed: int
) -> tuple[Correction, CorrectionRecord]:
    """Estimate the correction for a target, and what a report says about it.

    Args:
        evidence: predictions on validation and target.
        settings: the method, and shares that are known.
        groups: of `find_groups`.
        seed: of the bootstrap.
    """
    temperature = _temperature(evidence)
    grouping = None if groups is None else groups.grouping
    estimates = [
        _group(members, evidence, settings, temperature=temperature, seed=seed)
        for members in _members_of_groups(grouping, evidence)
    ]
    priors = np.stack([one.prior for one in estimates])
    return Correction(temperature, evidence.source, priors, grouping), CorrectionRecord(
        method=settings.method,
        temperature=temperature,
        area_under_curve=None if groups is None else groups.area,
        one_group_because=None if groups is None else groups.refused,
        groups=tuple(_record(one, evidence.names) for one in estimates),
    )


def _temperature(evidence: ShiftEvidence) -> float:
    """Return the temperature that calibrates the answers, once they fit validation's shares."""
    counts = np.bincount(evidence.labels, minlength=len(evidence.source))
    shares = counts / max(counts.sum(), 1)
    offsets = correct_logits(np.zeros(len(shares)), source=evidence.source, prior=shares)
    return temperature_of(evidence.validation.logits, evidence.labels, offsets=offsets)


def _members_of_groups(grouping: Grouping | None, evidence: ShiftEvidence) -> Iterator[_Members]:
    if grouping is None:
        yield _Members("target", np.arange(len(evidence.target)))
        return
    texts = evidence.texts[1]
    scores = grouping.scores(texts, evidence.target.features)
    for name, sign in (("like training", -1.0), ("unlike training", 1.0)):
        rows = np.flatnonzero((scores > 0.0) == (sign > 0.0))
        surest = rows[np.argsort(-sign * scores[rows], kind="stable")[:_EXAMPLES]]
        examples = tuple(texts[row][:_EXAMPLE_LENGTH] for row in surest.tolist()) if texts else ()
        yield _Members(name, rows, examples)


def _group(
    members: _Members,
    evidence: ShiftEvidence,
    settings: PriorSettings,
    *,
    temperature: float,
    seed: int,
) -> _Group:
    rows = members.rows
    source, target = evidence.source, evidence.target.logits[rows] / temperature
    if settings.method == "stated":
        shares = np.array([settings.stated[label] for label in evidence.names])
        offset = np.zeros_like(shares)
        if len(rows):
            offset = match_shares(target, shares, entropy=settings.entropy, slack=settings.slack)
        prior = positive_shares(source) * np.exp(offset)
        estimate = Estimate(shares, shares, shares)
        return _Group(members, estimate, prior / prior.sum())
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
    return _Group(members, estimate, estimate.prior)


def _record(group: _Group, names: Sequence[str]) -> GroupRecord:
    estimate = group.estimate
    columns: Any = zip(names, estimate.prior, estimate.low, estimate.high, strict=True)
    return GroupRecord(
        name=group.members.name,
        rows=len(group.members.rows),
        refused=estimate.refused,
        examples=group.members.examples,
        prior={
            name: ShareEstimate(share=float(share), interval=(float(low), float(high)))
            for name, share, low, high in columns
        },
    )
