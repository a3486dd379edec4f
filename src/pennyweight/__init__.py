"""Pennyweight: the most accuracy out of a text classifier under a hard parameter budget.

    import pennyweight

    print(pennyweight.plan("demo").trainable_parameters)
    record = pennyweight.train("demo", out="runs/demo")
    classifier = pennyweight.Classifier.load("runs/demo")
    classifier.predict(["Central bank lifts rates again"])

Names are loaded on first use, so importing the package takes no time.
"""

from __future__ import annotations

import importlib
import logging
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pennyweight.budget import Plan
    from pennyweight.budget.inspect import inspect_adapter
    from pennyweight.data.source import Source
    from pennyweight.defaults import plan
    from pennyweight.errors import PennyweightError
    from pennyweight.evaluation import Metrics, MultiLabelMetrics
    from pennyweight.export.hub_folder import HubOptions, HubReport, export_to_hub
    from pennyweight.export.onnx_folder import OnnxOptions, export_to_onnx
    from pennyweight.export.publish import Destination, Published, publish
    from pennyweight.export.report import Measured, OnnxReport
    from pennyweight.inference.bank import ClassifierBank
    from pennyweight.inference.classifier import Classifier
    from pennyweight.inference.drift import Drift, drift
    from pennyweight.inference.evaluate import evaluate
    from pennyweight.inference.layout import OutputOptions
    from pennyweight.inference.loaded_classifier import LoadedClassifier
    from pennyweight.inference.merge import MergeCheck, MergeReport, merge
    from pennyweight.inference.parts.predict_files import (
        PartOptions,
        PredictedFiles,
        predict_files,
    )
    from pennyweight.inference.predict import PredictedRows, predict
    from pennyweight.inference.submit import submit
    from pennyweight.machine import doctor
    from pennyweight.recipe import Recipe, load_recipe, shipped_recipes
    from pennyweight.recipe.study import Study, load_study, shipped_studies
    from pennyweight.runs.record import RunRecord, load_record
    from pennyweight.search.compare import RunComparison, compare_runs
    from pennyweight.search.results import SearchResult
    from pennyweight.search.search import run_search
    from pennyweight.search.studies import StudyRow, run_study
    from pennyweight.training.combine import combine
    from pennyweight.training.combine_options import CombineOptions
    from pennyweight.training.estimator import PennyweightClassifier
    from pennyweight.training.train import train, train_together
    from pennyweight.training.watcher import Watcher

__all__ = [
    "Classifier",
    "ClassifierBank",
    "CombineOptions",
    "Destination",
    "Drift",
    "HubOptions",
    "HubReport",
    "LoadedClassifier",
    "Measured",
    "MergeCheck",
    "MergeReport",
    "Metrics",
    "MultiLabelMetrics",
    "OnnxOptions",
    "OnnxReport",
    "OutputOptions",
    "PartOptions",
    "PennyweightClassifier",
    "PennyweightError",
    "Plan",
    "PredictedFiles",
    "PredictedRows",
    "Published",
    "Recipe",
    "RunComparison",
    "RunRecord",
    "SearchResult",
    "Source",
    "Study",
    "StudyRow",
    "Watcher",
    "combine",
    "compare_runs",
    "doctor",
    "drift",
    "evaluate",
    "export_to_hub",
    "export_to_onnx",
    "inspect_adapter",
    "load_recipe",
    "load_record",
    "load_study",
    "merge",
    "plan",
    "predict",
    "predict_files",
    "publish",
    "run_search",
    "run_study",
    "shipped_recipes",
    "shipped_studies",
    "submit",
    "train",
    "train_together",
]

_HOMES = {
    "Classifier": "inference.classifier",
    "ClassifierBank": "inference.bank",
    "CombineOptions": "training.combine_options",
    "Destination": "export.publish",
    "Drift": "inference.drift",
    "HubOptions": "export.hub_folder",
    "HubReport": "export.hub_folder",
    "LoadedClassifier": "inference.loaded_classifier",
    "Measured": "export.report",
    "MergeCheck": "inference.merge",
    "MergeReport": "inference.merge",
    "Metrics": "evaluation",
    "MultiLabelMetrics": "evaluation",
    "OnnxOptions": "export.onnx_folder",
    "OnnxReport": "export.report",
    "OutputOptions": "inference.layout",
    "PartOptions": "inference.parts.predict_files",
    "PennyweightClassifier": "training.estimator",
    "PennyweightError": "errors",
    "Plan": "budget",
    "PredictedFiles": "inference.parts.predict_files",
    "PredictedRows": "inference.predict",
    "Published": "export.publish",
    "Recipe": "recipe",
    "RunComparison": "search.compare",
    "RunRecord": "runs.record",
    "SearchResult": "search.results",
    "Source": "data.source",
    "Study": "recipe.study",
    "StudyRow": "search.studies",
    "Watcher": "training.watcher",
    "combine": "training.combine",
    "compare_runs": "search.compare",
    "doctor": "machine",
    "drift": "inference.drift",
    "evaluate": "inference.evaluate",
    "export_to_hub": "export.hub_folder",
    "export_to_onnx": "export.onnx_folder",
    "inspect_adapter": "budget.inspect",
    "load_recipe": "recipe",
    "load_record": "runs.record",
    "load_study": "recipe.study",
    "merge": "inference.merge",
    "plan": "defaults",
    "predict": "inference.predict",
    "predict_files": "inference.parts.predict_files",
    "publish": "export.publish",
    "run_search": "search.search",
    "run_study": "search.studies",
    "shipped_recipes": "recipe",
    "shipped_studies": "recipe.study",
    "submit": "inference.submit",
    "train": "training.train",
    "train_together": "training.train",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("pennyweight")
    if name not in _HOMES:
        raise AttributeError(f"module 'pennyweight' has no attribute {name!r}")
    value = getattr(_import(f"pennyweight.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def _import(module: str) -> ModuleType:
    # On import, bitsandbytes lists faster kernels that are not installed.
    logger = logging.getLogger("bitsandbytes")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        return importlib.import_module(module)
    finally:
        logger.setLevel(level)
