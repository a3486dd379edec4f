"""What is measured of a run's saved artifact, once everything is chosen."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pennyweight.engine.batch import Tokens
from pennyweight.recipe import Recipe
from pennyweight.runs.correction import CORRECTION, estimate_correction
from pennyweight.runs.measuring import Measuring, predicted_shares
from pennyweight.runs.record import write_atomically

__all__ = ["Final", "measure_finally"]


@dataclass(frozen=True, slots=True)
class Final:
    """The sets of a run for its last measurements.

    Attributes:
        sets: labelled ones by name, "validation" among them.
        target: unlabelled rows, where they are named.
        class_shares: of the training rows, float64 `[classes]`.
    """

    sets: Mapping[str, Tokens]
    target: Tokens | None
    class_shares: np.ndarray


def measure_finally(
    measuring: Measuring,
    final: Final,
    *,
    recipe: Recipe,
    artifact: Path,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """The record's `metrics`, `target` and `correction`.

    Where the recipe corrects for the target's class shares, the correction is estimated from
    validation and target, written into the artifact, and metrics are of corrected answers; what
    they were without it stands beside them.
    """
    prior = recipe.transduction.prior if recipe.transduction else None
    if prior is None or final.target is None:
        metrics = {
            name: measuring.metrics(tokens, where=name).to_json()
            for name, tokens in final.sets.items()
        }
        target = None
        if final.target is not None:
            target = measuring.logits(final.target, where="target")
        return {"metrics": metrics, "target": _told_of_target(target, recipe)}
    found = {name: measuring.both(tokens, where=name) for name, tokens in final.sets.items()}
    target, features = measuring.both(final.target, where="target")
    validation = (*found["validation"], final.sets["validation"].labels)
    correction, told = estimate_correction(
        prior.method,
        groups=prior.groups,
        stated=prior.stated,
        names=recipe.data.labels,
        source=final.class_shares,
        validation=validation,
        target=(target, features),
        seed=recipe.seed,
    )
    for line in _lines(told):
        say(line)
    if measuring.accelerator.is_main_process:
        write_atomically(artifact / CORRECTION, json.dumps(correction.to_json()) + "\n")
    metrics, before = {}, {}
    for name, (logits, own) in found.items():
        tokens = final.sets[name]
        before[name] = measuring.metrics_of(logits, tokens).accuracy
        metrics[name] = measuring.metrics_of(correction.apply(logits, own), tokens).to_json()
    corrected = correction.apply(target, features)
    return {
        "metrics": metrics,
        "target": _told_of_target(corrected, recipe),
        "correction": {
            **told,
            "accuracy_without": before,
            "predicted_shares_without": predicted_shares(target, recipe.data.labels),
        },
    }


def _told_of_target(logits: np.ndarray | None, recipe: Recipe) -> dict[str, Any]:
    if logits is None:
        return {}
    return {"rows": len(logits), "predicted_shares": predicted_shares(logits, recipe.data.labels)}


def _lines(told: Mapping[str, Any]) -> list[str]:
    lines = []
    area = told["area_under_curve"]
    if area is not None and len(told["groups"]) == 1:
        lines.append(f"prior: training and target text are not told apart (area {area:.2f})")
    for group in told["groups"]:
        if group["refused"]:
            lines.append(f"prior of {group['name']}: not corrected: {group['refused']}")
            continue
        shares = ", ".join(
            f"{name} {p['share']:.1%} ({p['interval'][0]:.1%} to {p['interval'][1]:.1%})"
            for name, p in group["prior"].items()
        )
        lines.append(f"prior of {group['name']}, {group['rows']:,} rows: {shares}")
    return lines
