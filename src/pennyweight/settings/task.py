"""Consequences of a recipe's task: the checkpoint's metric, and the methods it excludes."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from pennyweight.data.label import Task
from pennyweight.errors import RecipeError
from pennyweight.recipe import Recipe

__all__ = ["selection_metric", "task_of"]

_ONLY_MULTI_LABEL = frozenset({"micro_f1", "mean_average_precision"})
# Mean average precision is the least noisy choice for multi-label tasks: it needs no thresholds,
# which would be fitted on the very rows that choose the checkpoint, it uses the rank of every
# probability, and it does not get worse when a model only becomes overconfident, as the likelihood
# does.
_AUTOMATIC: Mapping[Task, str] = MappingProxyType(
    {"single-label": "accuracy", "multi-label": "mean_average_precision"}
)


def task_of(recipe: Recipe) -> Task:
    """Return the task of a complete recipe.

    Raises:
        RecipeError: the recipe has a method that is not defined for its task.
    """
    # A recipe that names its labels and no rows is planned as one with a single label per row.
    task: Task = "multi-label" if recipe.data.task == "multi-label" else "single-label"
    if task == "multi-label":
        _refuse_single_label_methods(recipe)
    return task


def selection_metric(recipe: Recipe, task: Task) -> str:
    """Return the validation metric that selects the checkpoint.

    Raises:
        RecipeError: the metric in `train.keep_best` does not exist for the task.
    """
    metric = recipe.train.keep_best
    if metric == "auto":
        return _AUTOMATIC[task]
    if task == "single-label" and metric in _ONLY_MULTI_LABEL:
        raise RecipeError(
            f'train.keep_best: given "{metric}", which is a metric of multi-label tasks; this task '
            'has one label per row: use "accuracy", "macro_f1", "nll", "brier" or "ece"'
        )
    return metric


def _refuse_single_label_methods(recipe: Recipe) -> None:
    """Refuse the methods that assume exactly one class per row.

    Raises:
        RecipeError: the recipe has one; the message names its key.
    """
    train, use = recipe.train, recipe.transduction
    reasons = {
        "train.sampling": (
            train.sampling == "balanced",
            '"balanced" draws rows by their only class; use train.class_weights = "balanced"',
        ),
        "train.loss.method": (
            train.loss.method == "logit-adjusted",
            '"logit-adjusted" changes a softmax; use "cross-entropy" or "focal"',
        ),
        "generate": (
            recipe.generate is not None,
            "a text is generated for one class; leave the section out",
        ),
        "transduction.prior": (
            use is not None and use.prior is not None,
            "shares that add up to 1 do not describe several classes per row; leave it out",
        ),
        "transduction.self_training": (
            use is not None and use.self_training is not None,
            "a row of the target gets the most probable class only; leave it out",
        ),
        "data.filters": (
            any(step.method == "agreement" for step in recipe.data.filters),
            '"agreement" compares a row\'s only class with predictions; leave this filter out',
        ),
    }
    for key, (is_used, reason) in reasons.items():
        if is_used:
            raise RecipeError(f"{key}: not possible with several labels per row: {reason}")
