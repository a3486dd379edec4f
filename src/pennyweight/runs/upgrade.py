"""Records of earlier versions, brought to the present one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pennyweight.budget.layout import WeightMatrix
from pennyweight.errors import RunError

__all__ = ["VERSION", "upgrade"]

VERSION = 2
# Keys of [generate] before it had other ways to adapt a model.
_FULL_ADAPTATION = ("epochs", "learning_rate")

Values = dict[str, Any]


def upgrade(values: Any, *, path: Path) -> Values:
    """Return the values of a record in the present version.

    Args:
        values: what a `record.json` holds.
        path: that file, for messages.

    Raises:
        RunError: it is no record, or its version is unknown.
    """
    version = values.get("schema_version") if isinstance(values, dict) else None
    if version == VERSION:
        return {**values, "recipe": _with_adaptation(values.get("recipe"))}
    if version == 1:
        try:
            return _from_version_1(values)
        except (KeyError, TypeError, AttributeError) as error:
            raise RunError(
                f"{path}: not a complete record of version 1 ({type(error).__name__}: {error}); "
                "train the run again"
            ) from None
    raise RunError(
        f"{path}: schema_version: given {version!r}; this version of Pennyweight reads 1 to "
        f"{VERSION}; read it with the version that wrote it"
    )


def _from_version_1(old: Values) -> Values:
    data = old.get("data") or None
    best = old.get("best") or {}
    metric = next((key for key in best if key != "step"), None)
    plan = {key: old["plan"][key] for key in old["plan"] if key not in ("recipe", "base")}
    plan["matrices"] = [_with_layer(matrix) for matrix in plan["matrices"]]
    return {
        **old,
        "recipe": _with_adaptation(old.get("recipe")),
        "schema_version": VERSION,
        "plan": plan,
        "parameters": old.get("parameters") or None,
        "data": _data(data) if data else None,
        "compute": old.get("compute") or None,
        "base": old.get("base") or None,
        "environment": old.get("environment") or None,
        "git": old.get("git") or {},
        "best": {"step": best["step"], "metric": metric, "value": best[metric]} if metric else None,
        "target": old.get("target") or None,
        "correction": old.get("correction") or None,
    }


def _with_adaptation(recipe: Any) -> Any:
    """Return a recipe whose `[generate]` has the keys of the present version."""
    section = recipe.get("generate") if isinstance(recipe, dict) else None
    if not isinstance(section, dict) or "epochs" not in section:
        return recipe
    kept = {key: value for key, value in section.items() if key not in _FULL_ADAPTATION}
    options = {key: section[key] for key in _FULL_ADAPTATION if key in section}
    full = {"method": "full", **options} if options["epochs"] else {"method": "none"}
    return {**recipe, "generate": {**kept, "adaptation": full}}


def _with_layer(matrix: Values) -> Values:
    place = WeightMatrix(matrix["name"], 0, 0)
    return {**matrix, "layer": place.layer, "role": place.role}


def _data(old: Values) -> Values:
    lab = old.get("lab")
    return {
        "sets": old["sets"],
        "overlaps": old["overlaps"],
        "removed_from_train": old["removed_from_train"],
        "training": {"rows": lab["rows"], "steps": list(map(_row_step, lab["steps"]))}
        if lab
        else None,
    }


def _row_step(old: Values) -> Values:
    new = {key: value for key, value in old.items() if key != "died"}
    return new | {"rejected": old["died"]} if "died" in old else new
