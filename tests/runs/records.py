"""A run record with a value in every field."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from pennyweight.budget.summary import Matrix, PlanSummary
from pennyweight.data.splits import OverlapCount, SetFacts
from pennyweight.engine.train.progress import Step
from pennyweight.evaluation.metrics import measure
from pennyweight.recipe import Recipe, resolve_recipe
from pennyweight.runs.combination import CombinationRecord, CombinedRun
from pennyweight.runs.record import (
    AllocationRecord,
    ArtifactRecord,
    BaselineRecord,
    BaseRecord,
    Best,
    CalibrationRecord,
    ComputeRecord,
    CorrectionRecord,
    DataRecord,
    EnvironmentRecord,
    GitRecord,
    GitState,
    GroupRecord,
    Mistake,
    ParameterCounts,
    RowStep,
    RunRecord,
    ShareEstimate,
    TargetRecord,
    TrainingRows,
)

LABELS = ("a", "b")


def example_recipe(**sections: dict[str, Any]) -> Recipe:
    """Return a recipe that is never trained; `sections` change single keys of it."""
    values: dict[str, Any] = {
        "name": "example",
        "base": {"name": "embedded"},
        "data": {"train": "train.csv", "labels": list(LABELS)},
        "optimizer": {"learning_rate": 0.01},
    }
    for section, keys in sections.items():
        values[section] = {**values.get(section, {}), **keys}
    return resolve_recipe(values)


def example_facts(name: str) -> SetFacts:
    """Return the facts of a set; the fingerprint is made of its name."""
    return SetFacts(f"{name}.csv", "delimited", 9, 1, f"bad_rows/{name}.jsonl", name * 8)


def example_step(number: int) -> Step:
    """Return a step; every second one ends with an evaluation."""
    evaluation = {"accuracy": 0.5, "nll": 0.7} if number % 2 == 0 else None
    return Step(
        step=number,
        epoch=number / 3,
        loss=1.0 / number,
        learning_rate=0.01,
        gradient_norm=math.inf if number == 1 else 2.0,
        rows_per_second=80.0,
        seconds=0.1 * number,
        evaluation=evaluation,
        is_best=evaluation is not None,
    )


def example_record(**changes: Any) -> RunRecord:
    """Return a record with a value in every field, some of them replaced."""
    logits = np.array([[2.0, 0.0], [0.5, 0.4], [-1.0, 3.0]])
    query = Matrix("encoder.layer.0.query", "lora", 2, 4.0, 128, 0, "query")
    head = Matrix("classifier.weight", "head", None, None, 64, None, "classifier.weight")
    state = GitState(revision="0123abc", dirty=True)
    values: dict[str, Any] = {
        "status": "complete",
        "recipe": example_recipe(),
        "allocation": AllocationRecord(
            adapter=example_recipe(adapter={"rank": "allocate"}).adapter,
            notes=("allocation: gradient",),
        ),
        "plan": PlanSummary(1000, 192, 5000, True, (query, head)),
        "parameters": ParameterCounts(planned=192, model=192, file=192, budget=1000),
        "data": DataRecord(
            sets={name: example_facts(name) for name in ("train", "validation", "test")},
            overlaps=(OverlapCount("train", "test", 2, 1),),
            removed_from_train=2,
            split="hash",
            training=TrainingRows(
                rows=9,
                steps=(
                    RowStep(step="filter length", removed=3, file="removed/01-length.jsonl"),
                    RowStep(
                        step="rows of generated",
                        added=4,
                        rejected={"copied": 2},
                        written_by_class={"a": 3, "b": 3},
                        by_class={"a": 3, "b": 1},
                    ),
                    RowStep(step="self-training", added=2, by_class={"a": 2, "b": 0}),
                    RowStep(step="density ratio", effective_rows=7.5),
                ),
            ),
        ),
        "leaks": ("2 rows of train are also in test",),
        "transductive": ("self-training on the target",),
        "compute": ComputeRecord(
            device="cpu",
            precision="bf16",
            attention="packed",
            why="CPU",
            products="int8",
            frozen_bytes=20_000,
            gradient_bytes=768,
        ),
        "base": BaseRecord(name="embedded", reference="a/b", revision="f00", origin="hub"),
        "environment": EnvironmentRecord(
            python="3.11", platform="Linux", processor="CPU", cores=2, packages={"torch": "2.13"}
        ),
        "git": GitRecord(working_directory=state, pennyweight=GitState()),
        "started": "2026-01-02T03:04:05+00:00",
        "process_id": 123,
        "seconds": 4.5,
        "peak_memory_bytes": 10_000,
        "history": tuple(map(example_step, (1, 2, 3, 4))),
        "best": Best(step=4, metric="accuracy", value=0.5),
        "metrics": {"test": measure(logits, np.array([0, 1, 1]), names=LABELS, bins=3)},
        "mistakes": {"test": (Mistake(text="x", label="b", predicted="a", confidence=0.52),)},
        "planned_steps": 4,
        "skips_refit": True,
        "keeps_refit": True,
        "predicted_seconds": 4.4,
        "baselines": {
            "tf-idf": BaselineRecord(
                seconds=0.1,
                rows=6,
                metrics={"test": measure(logits, np.array([0, 0, 1]), names=LABELS, bins=3)},
            )
        },
        "target": TargetRecord(rows=6, predicted_shares={"a": 0.5, "b": 0.5}),
        "calibration": CalibrationRecord(
            temperature=1.2, rows=9, ece_without={"test": 0.1}, nll_without={"test": 0.7}
        ),
        "correction": CorrectionRecord(
            method="em",
            temperature=1.5,
            area_under_curve=0.8,
            one_group_because="only 2.0% of the target rows are unlike the training rows",
            groups=(
                GroupRecord(
                    name="target",
                    rows=6,
                    refused=None,
                    prior={"a": ShareEstimate(share=0.4, interval=(0.3, 0.5))},
                    examples=("an example",),
                ),
            ),
            accuracy_without={"test": 0.6},
            predicted_shares_without={"a": 0.7, "b": 0.3},
        ),
        "combination": CombinationRecord(
            method="ties",
            space="deltas",
            reason="ties works on whole deltas",
            head="average",
            runs=(
                CombinedRun(
                    run="runs/one",
                    name="one",
                    seed=1,
                    share=0.5,
                    sha256="1" * 64,
                    score=0.5,
                    results={"test": 0.6},
                ),
                CombinedRun(run="runs/two", name="two", seed=2, share=0.5, sha256="2" * 64),
            ),
            toward=0.5,
            density=0.2,
            seed=3,
            error=0.1,
            largest_error=0.2,
            largest_error_in="encoder.layer.0.query",
            notes=("thresholds are fitted again",),
        ),
        "artifact": ArtifactRecord(directory="adapter", files={"pennyweight.json": "0" * 64}),
        "failure": "interrupted once",
    }
    return RunRecord(**{**values, **changes})
