"""Teachers for distillation: their logits for the training rows, computed once and cached.

A teacher is a finished run, or a local directory with any transformers classifier; of several the
mean of their probabilities is taught (Hinton et al. 2015, arXiv:1503.02531).
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import datasets
import numpy as np
from scipy.special import log_softmax, logsumexp

from pennyweight.base.locate import locate
from pennyweight.data.splits import fingerprint_of
from pennyweight.engine.batch import tokenize
from pennyweight.engine.device import choose_compute
from pennyweight.engine.feed import make_ready
from pennyweight.engine.predict import predict_logits
from pennyweight.environment import cache_directory
from pennyweight.errors import RecipeError
from pennyweight.model import load_tokenizer
from pennyweight.model.build import load_base
from pennyweight.recipe import Recipe
from pennyweight.runs.classifier import Classifier

__all__ = ["teach"]


def teach(recipe: Recipe, rows: datasets.Dataset, *, say: Callable[[str], None]) -> np.ndarray:
    """The teachers' log probabilities for cleaned rows, float32 `[rows, classes]`.

    Raises:
        RecipeError: a teacher is none, or knows other classes than the recipe.
    """
    assert recipe.distillation is not None  # noqa: S101 - asked for only then
    found = []
    for teacher in recipe.distillation.teachers:
        path = _cached(teacher, rows, recipe)
        if not path.is_file():
            say(f"teacher {teacher}: computing its logits for {len(rows):,} rows")
            _write(path, _logits(teacher, rows, recipe))
        found.append(log_softmax(np.load(path).astype(np.float64), axis=1))
    mean: np.ndarray = logsumexp(found, axis=0) - np.log(len(found))
    return mean.astype(np.float32)


def _cached(teacher: str, rows: datasets.Dataset, recipe: Recipe) -> Path:
    digest = hashlib.sha256(f"{recipe.data.max_tokens}|{fingerprint_of(rows)}".encode())
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
    adapter = directory / "adapter"
    inside = adapter if adapter.is_dir() else directory
    return sorted(file for file in inside.iterdir() if file.is_file())


def _write(path: Path, logits: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".part", delete=False) as file:
        np.save(file, logits)
    Path(file.name).replace(path)


def _logits(teacher: str, rows: datasets.Dataset, recipe: Recipe) -> np.ndarray:
    directory = Path(teacher)
    if (directory / "record.json").is_file():
        classifier = Classifier.load(directory)
        _refuse_other_classes(teacher, classifier.labels, recipe)
        return classifier.logits(rows)
    return _plain_logits(teacher, rows, recipe)


def _plain_logits(teacher: str, rows: datasets.Dataset, recipe: Recipe) -> np.ndarray:
    """Of a transformers classifier whose head must be in its checkpoint."""
    base = locate(teacher, labels=recipe.data.labels)
    compute = choose_compute(
        precision=recipe.train.precision, attention=recipe.base.attention, config=base.config
    )
    model, fresh = load_base(
        base, weights="pretrained", attention=compute.attention, seed=recipe.seed
    )
    if fresh:
        raise RecipeError(
            f"distillation.teachers: {teacher}: its checkpoint has no trained head for "
            f"{len(recipe.data.labels)} classes ({len(fresh)} weights are missing)"
        )
    model.requires_grad_(False).eval()
    model.to(compute.device)
    tokens = tokenize(
        rows,
        fingerprint=fingerprint_of(rows),
        tokenizer=load_tokenizer(base, tokenizer=None),
        max_tokens=recipe.data.max_tokens,
        cache=cache_directory() / "tokens",
    )
    return predict_logits(
        model,
        tokens,
        feed=make_ready(model, compute, most_tokens=recipe.train.batch_tokens),
        compute=compute,
        batch_rows=recipe.train.evaluation_batch_rows,
        classes=len(recipe.data.labels),
    )


def _refuse_other_classes(teacher: str, labels: Sequence[str], recipe: Recipe) -> None:
    if tuple(labels) != recipe.data.labels:
        raise RecipeError(
            f"distillation.teachers: {teacher}: it knows the classes {', '.join(labels)}, and "
            f"data.labels are {', '.join(recipe.data.labels)}"
        )
