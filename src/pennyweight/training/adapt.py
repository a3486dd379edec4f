"""The recipe with which a finished run learns from unlabelled text of where it will be used."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from pennyweight.data.ingest import read_rows
from pennyweight.data.source import Source
from pennyweight.defaults.rules import accuracy_noise
from pennyweight.inference.load import require_complete
from pennyweight.recipe import Recipe, change_recipe
from pennyweight.runs.record import load_record
from pennyweight.settings.assemble import read_options

__all__ = ["adaptation_recipe"]

# Labelled rows that are seen again, so that what was learned from them is kept. A smaller target is
# seen several times in an epoch, until it has about as many rows.
_TRAIN_ROWS, _MOST_COPIES = 4_000, 5
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
        RunError: it is no finished run.
        DataError: the target cannot be read.
    """
    record = load_record(Path(run))
    require_complete(Path(run), record)
    recipe = record.recipe
    texts = read_rows("target", target, read_options(recipe), labelled=False)
    source = {
        "location": target.location,
        "format": target.format,
        "text_columns": target.text_columns,
    }
    self_training = {
        "method": "balanced",
        "teachers": tuple(teachers) or (str(run),),
        "share": 1.0,
        "labels": "soft",
        "copies": min(_MOST_COPIES, math.ceil(_TRAIN_ROWS / max(1, len(texts.table)))),
    }
    # The validation rows are those of the run.
    validation = record.data.sets.get("validation") if record.data is not None else None
    rows = 0 if validation is None else validation.rows
    keep_within = accuracy_noise(rows) if rows else "auto"
    prior = None if shares is None else {"method": "stated", "stated": shares}
    changes = {
        **_CHANGES,
        "name": name,
        "summary": f"{recipe.name}, trained further on unlabelled text",
        "data.target": source,
        "train.start_from": str(run),
        "train.keep_within": keep_within,
        "transduction": {"prior": prior, "self_training": self_training},
    }
    return change_recipe(recipe, changes)
