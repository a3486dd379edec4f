"""What is measured of a run's saved artifact, once everything is chosen."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import softmax

from pennyweight.engine.batch import Tokens
from pennyweight.recipe import Recipe
from pennyweight.runs.correction import CORRECTION, estimate_correction
from pennyweight.runs.measuring import Measuring, predicted_shares
from pennyweight.runs.record import PREDICTIONS, write_atomically

__all__ = ["Final", "measure_finally"]

_MISTAKES = 20


@dataclass(frozen=True, slots=True)
class Final:
    """The sets of a run for its last measurements.

    Attributes:
        sets: labelled ones by name, "validation" among them.
        target: unlabelled rows, where they are named.
        class_shares: of the training rows, float64 `[classes]`.
        texts: the labelled sets' texts by name.
    """

    sets: Mapping[str, Tokens]
    target: Tokens | None
    class_shares: np.ndarray
    texts: Mapping[str, Sequence[str]]


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
        answers = {
            name: measuring.logits(tokens, where=name) for name, tokens in final.sets.items()
        }
        target = None
        if final.target is not None:
            target = measuring.logits(final.target, where="target")
        return {
            **_measured(measuring, answers, final, artifact.parent, recipe),
            "target": _told_of_target(target, recipe),
        }
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
    before = {
        name: measuring.metrics_of(logits, final.sets[name]).accuracy
        for name, (logits, _) in found.items()
    }
    answers = {name: correction.apply(*both) for name, both in found.items()}
    corrected = correction.apply(target, features)
    return {
        **_measured(measuring, answers, final, artifact.parent, recipe),
        "target": _told_of_target(corrected, recipe),
        "correction": {
            **told,
            "accuracy_without": before,
            "predicted_shares_without": predicted_shares(target, recipe.data.labels),
        },
    }


def _measured(
    measuring: Measuring,
    answers: Mapping[str, np.ndarray],
    final: Final,
    run: Path,
    recipe: Recipe,
) -> dict[str, Any]:
    """Metrics and the surest mistakes of every set; each row's answer goes into a file."""
    metrics, mistakes = {}, {}
    for name, logits in answers.items():
        tokens = final.sets[name]
        metrics[name] = measuring.metrics_of(logits, tokens).to_json()
        mistakes[name] = _surest_mistakes(logits, tokens.labels, final.texts[name], recipe)
    if measuring.accelerator.is_main_process:
        found: dict[str, Any] = {name: one.argmax(axis=1) for name, one in answers.items()}
        found |= {f"{name}.labels": final.sets[name].labels for name in answers}
        np.savez_compressed(run / PREDICTIONS, **found)
    return {"metrics": metrics, "mistakes": mistakes}


def _surest_mistakes(
    logits: np.ndarray, labels: np.ndarray, texts: Sequence[str], recipe: Recipe
) -> list[dict[str, Any]]:
    probabilities = softmax(logits.astype(np.float64), axis=1)
    answers, sure = probabilities.argmax(axis=1), probabilities.max(axis=1)
    wrong = np.flatnonzero(answers != labels)
    names = recipe.data.labels
    return [
        {
            "text": texts[int(row)],
            "label": names[labels[row]],
            "predicted": names[answers[row]],
            "confidence": float(sure[row]),
        }
        for row in wrong[np.argsort(-sure[wrong], kind="stable")][:_MISTAKES]
    ]


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
