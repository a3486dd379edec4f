"""Teachers for distillation: their logits for the training rows, computed once and cached.

A teacher is a finished run, or a local directory with any transformers classifier; of several the
mean of their probabilities is taught (Hinton et al. 2015, arXiv:1503.02531).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from scipy.special import log_softmax, logsumexp

from pennyweight.base.locate import locate
from pennyweight.budget.layout import layout_of
from pennyweight.data.splits import fingerprint_of
from pennyweight.engine.batch import Taught, Tokens
from pennyweight.engine.device import choose_compute
from pennyweight.engine.feed import make_ready
from pennyweight.engine.predict import predict_both, predict_logits
from pennyweight.environment import cache_directory
from pennyweight.errors import RecipeError
from pennyweight.files import replacing
from pennyweight.model import load_tokenizer
from pennyweight.model.build import load_base
from pennyweight.recipe import Recipe
from pennyweight.runs.classifier import Classifier
from pennyweight.runs.reading import tokens_of

__all__ = ["teach"]


def teach(
    recipe: Recipe, rows: datasets.Dataset, *, width: int, say: Callable[[str], None]
) -> Taught:
    """What the teachers say of cleaned rows; with `distillation.hidden` what they think, too.

    Args:
        recipe: with teachers.
        rows: cleaned.
        width: of the input of the student's output layer.
        say: gets what is being done.

    Raises:
        RecipeError: a teacher is none, knows other classes than the recipe, or thinks in another
            width.
    """
    wanted = recipe.distillation
    assert wanted is not None  # noqa: S101 - asked for only then
    found, features = [], None
    for teacher in wanted.teachers:
        logits, thoughts = (_cached(teacher, rows, recipe, part) for part in ("", "features"))
        if not logits.is_file() or (wanted.hidden > 0.0 and not thoughts.is_file()):
            say(f"teacher {teacher}: computing what it says of {len(rows):,} rows")
            model = _load(teacher, recipe)
            if wanted.hidden > 0.0:
                said, thought = model.both(rows)
                _write(thoughts, thought)
            else:
                said = model.logits(rows)
            _write(logits, said)
        found.append(log_softmax(np.load(logits).astype(np.float64), axis=1))
        if wanted.hidden > 0.0:
            features = torch.from_numpy(_fitting(np.load(thoughts), width, teacher))
    mean: np.ndarray = logsumexp(found, axis=0) - np.log(len(found))
    return Taught(torch.from_numpy(mean.astype(np.float32)), features)


def _fitting(features: np.ndarray, width: int, teacher: str) -> np.ndarray:
    if features.shape[1] != width:
        raise RecipeError(
            f"distillation.hidden: {teacher}: its output layer reads {features.shape[1]} numbers, "
            f"the student's {width}; use a teacher of the same width, or hidden = 0"
        )
    return features


def _cached(teacher: str, rows: datasets.Dataset, recipe: Recipe, part: str) -> Path:
    digest = hashlib.sha256(f"{recipe.data.max_tokens}|{fingerprint_of(rows)}|{part}".encode())
    for file in _files(Path(teacher)):
        facts = file.stat()
        digest.update(f"{file.name}|{facts.st_size}|{facts.st_mtime_ns}".encode())
    return cache_directory() / "teachers" / f"{digest.hexdigest()[:32]}.npy"


def _files(directory: Path) -> list[Path]:
    """What makes a teacher what it is: a run's adapter, or all files of a model."""
    if not directory.is_dir():
        raise RecipeError(
            f"distillation.teachers: {directory}: no such directory; name a finished run, or a "
            "directory with a transformers classifier"
        )
    parts = [directory / "adapter", directory / "model", directory]
    inside = next(part for part in parts if part.is_dir())
    return sorted(file for file in inside.iterdir() if file.is_file())


def _write(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as part, part.open("wb") as file:
        np.save(file, values)


class _Plain:
    """A transformers classifier in a directory, whose head must be in its checkpoint."""

    def __init__(self, directory: str, recipe: Recipe) -> None:
        base = locate(directory, labels=recipe.data.labels)
        self._recipe = recipe
        self._compute = choose_compute(
            precision=recipe.train.precision, attention=recipe.base.attention, config=base.config
        )
        model, fresh = load_base(
            base, weights="pretrained", attention=self._compute.attention, seed=recipe.seed
        )
        if fresh:
            raise RecipeError(
                f"distillation.teachers: {directory}: its checkpoint has no trained head for "
                f"{len(recipe.data.labels)} classes ({len(fresh)} weights are missing)"
            )
        self._model = model.requires_grad_(False).eval().to(self._compute.device)
        self._feed = make_ready(model, self._compute, most_tokens=recipe.train.batch_tokens)
        self._tokenizer = load_tokenizer(base, tokenizer=None)

    def logits(self, rows: datasets.Dataset) -> np.ndarray:
        return predict_logits(
            self._model, self._tokens(rows), classes=len(self._recipe.data.labels), **self._how()
        )

    def both(self, rows: datasets.Dataset) -> tuple[np.ndarray, np.ndarray]:
        layout = layout_of(self._model, labels=len(self._recipe.data.labels))
        output = layout.head_output.name
        return predict_both(self._model, self._tokens(rows), output_layer=output, **self._how())

    def _how(self) -> dict[str, Any]:
        size = self._recipe.train.evaluation_batch_rows
        return {"feed": self._feed, "compute": self._compute, "batch_rows": size}

    def _tokens(self, rows: datasets.Dataset) -> Tokens:
        return tokens_of(rows, self._tokenizer, max_tokens=self._recipe.data.max_tokens)


def _load(teacher: str, recipe: Recipe) -> Classifier | _Plain:
    if not (Path(teacher) / "record.json").is_file():
        return _Plain(teacher, recipe)
    classifier = Classifier.load(teacher)
    _refuse_other_classes(teacher, classifier.labels, recipe)
    return classifier


def _refuse_other_classes(teacher: str, labels: Sequence[str], recipe: Recipe) -> None:
    if tuple(labels) != recipe.data.labels:
        raise RecipeError(
            f"distillation.teachers: {teacher}: it knows the classes {', '.join(labels)}, and "
            f"data.labels are {', '.join(recipe.data.labels)}"
        )
