"""The recipe with which a finished run learns from unlabelled text of where it will be used."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from pennyweight.data.ingest import read_rows
from pennyweight.data.shown import listed
from pennyweight.data.source import Source
from pennyweight.defaults.rules import accuracy_noise
from pennyweight.errors import RecipeError, RunError
from pennyweight.inference.load import require_complete
from pennyweight.recipe import Recipe, change_recipe
from pennyweight.runs.record import RunRecord, load_record
from pennyweight.settings.assemble import read_options

__all__ = ["adaptation_recipe"]

# Labelled rows that are seen again, so that what was learned from them is kept. A smaller target is
# seen several times in an epoch, until it has about as many rows.
_TRAIN_ROWS, _MOST_COPIES = 4_000, 5
# How far stated shares may add up to something else than 1.
_TOLERANCE = 1e-6
# A whole schedule is trained, and its end kept if validation allows it.
_CHANGES: Mapping[str, Any] = MappingProxyType(
    {
        "data.train_rows": _TRAIN_ROWS,
        "data.max_tokens": "auto",
        "data.validation_fraction": "auto",
        "train.epochs": 4,
        "train.max_steps": None,
        "train.minutes": None,
        "train.evaluate_every": "auto",
        "train.early_stopping": "off",
        "train.head_end": "trained",
        "train.interpolate": 1.0,
        "evaluate.baselines": (),
    }
)

Shares = Mapping[str, float] | Literal["uniform"]


def adaptation_recipe(
    run: str | Path,
    target: Source,
    *,
    name: str,
    shares: Shares | None = None,
    teachers: Sequence[str] = (),
) -> Recipe:
    """Return the recipe that trains a finished run's adapter further on the texts of a target.

    The run labels the target, together with a lexical classifier of the target's own texts, and the
    probabilities of all rows are taught; see `[transduction.self_training]`. Everything that does
    not depend on that is as in the run's own recipe.

    Args:
        run: directory of a finished run.
        target: unlabelled texts.
        name: of the new recipe.
        shares: of each class in the target, by name; "uniform" for equal ones; None if they are
            unknown, so that the run's answers are not corrected.
        teachers: the finished runs that label the target together; if empty, the run alone.

    Raises:
        RecipeError: the shares are not those of the run's classes.
        RunError: it is no finished run, or one of a multi-label task.
        DataError: the target cannot be read.
    """
    record = load_record(Path(run))
    _check_run(Path(run), record)
    recipe = record.recipe
    if shares is not None and shares != "uniform":
        _check_shares(shares, recipe.data.label_names)
    texts = read_rows("target", target, read_options(recipe), labelled=False)
    keys = ("location", "format", "text_columns")
    # A target of few rows is seen several times in an epoch.
    copies = min(_MOST_COPIES, math.ceil(_TRAIN_ROWS / max(1, len(texts.table))))
    # The validation rows are those of the run.
    validation = record.data.sets.get("validation") if record.data is not None else None
    rows = 0 if validation is None else validation.rows
    keep_within = accuracy_noise(rows) if rows else "auto"
    prior = None if shares is None else {"method": "stated", "stated": shares}
    changes = {
        **_CHANGES,
        "name": name,
        "summary": f"{recipe.name}, trained further on unlabelled text",
        "data.target": {key: getattr(target, key) for key in keys},
        "train.start_from": str(run),
        "train.keep_within": keep_within,
        "transduction": {
            "prior": prior,
            "self_training": {
                "method": "balanced",
                "teachers": tuple(teachers) or (str(run),),
                "share": 1.0,
                "labels": "soft",
                "copies": copies,
            },
        },
    }
    return change_recipe(recipe, changes)


def _check_run(run: Path, record: RunRecord) -> None:
    """Refuse a run that cannot be adapted.

    Raises:
        RunError: it is not finished, or one of a multi-label task.
    """
    require_complete(run, record)
    if record.recipe.data.task == "multi-label":
        raise RunError(
            f"{run}: a multi-label run, and self-training gives each text one label; adapt a run "
            "with one label per text"
        )


def _check_shares(shares: Mapping[str, float], labels: Sequence[str]) -> None:
    """Refuse shares that are not one for each class, adding up to 1.

    Raises:
        RecipeError: they are not.
    """
    if unknown := [name for name in shares if name not in labels]:
        raise RecipeError(
            f'--shares: "{unknown[0]}" is not a class; the classes are {listed(labels)}'
        )
    if missing := [label for label in labels if label not in shares]:
        raise RecipeError(
            f"--shares: no share of {listed(missing)}; give each class one, such as {missing[0]}=0"
        )
    if abs(sum(shares.values()) - 1.0) > _TOLERANCE:
        raise RecipeError(f"--shares: they add up to {sum(shares.values()):g}, and not to 1")
