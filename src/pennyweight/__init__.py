"""Pennyweight: the most accuracy out of a text classifier under a hard parameter budget.

    import pennyweight

    recipe = pennyweight.load_recipe("demo")
    print(pennyweight.plan(recipe).trainable_parameters)
    record = pennyweight.train(recipe, out="runs/demo")
    classifier = pennyweight.Classifier.load("runs/demo")
    classifier.predict(["Central bank lifts rates again"])

Names are loaded when they are first used, so importing the package costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pennyweight.budget import Plan
    from pennyweight.budget.inspect import inspect_adapter
    from pennyweight.data.ingest import Source
    from pennyweight.errors import PennyweightError
    from pennyweight.evaluation import Metrics
    from pennyweight.recipe import Recipe, load_recipe, shipped_recipes
    from pennyweight.recipe.study import Study, load_study, shipped_studies
    from pennyweight.runs.classifier import Classifier
    from pennyweight.runs.doctor import doctor
    from pennyweight.runs.planning import plan
    from pennyweight.runs.record import RunRecord, load_record
    from pennyweight.runs.setup import Watcher
    from pennyweight.runs.studies import StudyRow, run_study
    from pennyweight.runs.training import train, train_together
    from pennyweight.runs.using import evaluate, merge, predict, submit

__all__ = [
    "Classifier",
    "Metrics",
    "PennyweightError",
    "Plan",
    "Recipe",
    "RunRecord",
    "Source",
    "Study",
    "StudyRow",
    "Watcher",
    "doctor",
    "evaluate",
    "inspect_adapter",
    "load_recipe",
    "load_record",
    "load_study",
    "merge",
    "plan",
    "predict",
    "run_study",
    "shipped_recipes",
    "shipped_studies",
    "submit",
    "train",
    "train_together",
]

_HOMES = {
    "Classifier": "runs.classifier",
    "Metrics": "evaluation",
    "PennyweightError": "errors",
    "Plan": "budget",
    "Recipe": "recipe",
    "RunRecord": "runs.record",
    "Source": "data.ingest",
    "Study": "recipe.study",
    "StudyRow": "runs.studies",
    "Watcher": "runs.setup",
    "doctor": "runs.doctor",
    "evaluate": "runs.using",
    "inspect_adapter": "budget.inspect",
    "load_recipe": "recipe",
    "load_record": "runs.record",
    "load_study": "recipe.study",
    "merge": "runs.using",
    "plan": "runs.planning",
    "predict": "runs.using",
    "run_study": "runs.studies",
    "shipped_recipes": "recipe",
    "shipped_studies": "recipe.study",
    "submit": "runs.using",
    "train": "runs.training",
    "train_together": "runs.training",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'pennyweight' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"pennyweight.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
