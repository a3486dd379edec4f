"""Teachers for distillation: their outputs for the training rows, computed once and cached.

A teacher is a finished run, or a local directory with any transformers classifier; of several
teachers, the mean of their probabilities is taught (Hinton et al. 2015, arXiv:1503.02531).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import datasets
import numpy as np
import torch
from scipy.special import log_softmax, logit, logsumexp

from pennyweight.base.locate import ConfigChanges, locate
from pennyweight.documents import DocumentError, load_arrays
from pennyweight.engine.batches.rows import TeacherOutputs
from pennyweight.engine.device import choose_compute
from pennyweight.engine.predictor import Predictions, Predictor
from pennyweight.environment import cache_directory
from pennyweight.errors import RecipeError
from pennyweight.evaluation.thresholds import sigmoid
from pennyweight.files import replacing
from pennyweight.inference.classifier import Classifier
from pennyweight.inference.load import predictor_of, require_complete
from pennyweight.inference.texts import batches_of
from pennyweight.model.build import BaseOptions, load_base, load_tokenizer
from pennyweight.runs.directory import RunDirectory
from pennyweight.runs.record import load_record
from pennyweight.settings.task import task_of
from pennyweight.settings.values import Settings
from pennyweight.training.finished_run import require_labels, require_task

__all__ = ["check_teachers", "teach"]

_KEY = "distillation.teachers"
# Part of every cache key. Raise it when a teacher would give the same rows other outputs.
_VERSION = 2


def check_teachers(settings: Settings) -> None:
    """Refuse teachers that are missing, unfinished, or of other classes, before anything is read.

    Raises:
        RecipeError: a teacher cannot be used.
        RunError: the record of one cannot be read, or says that it is unfinished.
    """
    for teacher in settings.distillation.teachers if settings.distillation else ():
        _files(Path(teacher))
        if RunDirectory(Path(teacher)).record.is_file():
            record = load_record(Path(teacher))
            require_complete(Path(teacher), record)
            require_labels(f"{_KEY}: {teacher}", record.recipe.data.label_names, settings.labels)
            require_task(f"{_KEY}: {teacher}", task_of(record.recipe), settings.task)


def teach(
    rows: datasets.Dataset,
    fingerprint: str,
    settings: Settings,
    *,
    width: int,
    log: Callable[[str], None],
) -> TeacherOutputs:
    """Return what the teachers answer for cleaned rows, with hidden features where they are taught.

    Args:
        rows: cleaned training rows.
        fingerprint: of these rows, for the cache.
        settings: the teachers, and how rows go through a model.
        width: of the input of the student's output layer.
        log: gets a line for each teacher that has to be run.

    Raises:
        RecipeError: a teacher cannot be used: its classes or its width differ from the student's.
    """
    distillation = settings.distillation
    assert distillation is not None  # noqa: S101 - called only for recipes with teachers
    logits, features = [], None
    for teacher in distillation.teachers:
        outputs = _cached_outputs(teacher, rows, fingerprint, settings, log)
        logits.append(outputs.logits.astype(np.float64))
        if outputs.features is not None:
            _require_width(teacher, outputs.features.shape[1], width)
            features = torch.from_numpy(outputs.features)
    if settings.task == "multi-label":
        share = np.clip(np.mean([sigmoid(each) for each in logits], axis=0), 1e-9, 1.0 - 1e-9)
        mean = np.asarray(logit(share))
    else:
        mean = logsumexp([log_softmax(each, axis=1) for each in logits], axis=0)
        mean = mean - np.log(len(logits))
    return TeacherOutputs(torch.from_numpy(mean.astype(np.float32)), features)


def _cached_outputs(
    teacher: str,
    rows: datasets.Dataset,
    fingerprint: str,
    settings: Settings,
    log: Callable[[str], None],
) -> Predictions:
    with_features = settings.distillation is not None and settings.distillation.with_features
    kind = "pairs" if "text_pair" in rows.column_names else "texts"
    tokens = f"{settings.inference.max_tokens}|{settings.inference.truncation}"
    digest = hashlib.sha256(f"{_VERSION}|{kind}|{tokens}|{fingerprint}".encode())
    for file in _files(Path(teacher)):
        facts = file.stat()
        digest.update(f"{file.name}|{facts.st_size}|{facts.st_mtime_ns}".encode())
    suffix = "-features" if with_features else ""
    path = cache_directory() / "teachers" / f"{digest.hexdigest()[:32]}{suffix}.npz"
    if not path.is_file():
        log(f"teacher {teacher}: predicting {len(rows):,} rows")
        outputs = _outputs(teacher, rows, settings, with_features=with_features)
        path.parent.mkdir(parents=True, exist_ok=True)
        arrays = {"logits": outputs.logits}
        if outputs.features is not None:
            arrays["features"] = outputs.features
        with replacing(path) as part, part.open("wb") as stream:
            np.savez(stream, **arrays)  # type: ignore[arg-type]
    try:
        arrays = load_arrays(path)
        return Predictions(arrays["logits"], arrays["features"] if with_features else None)
    except (OSError, KeyError, DocumentError):
        raise RecipeError(f"{_KEY}: {path}: damaged; delete the file and train again") from None


def _files(directory: Path) -> list[Path]:
    """Return the files that define a teacher: a run's adapter, or all files of a model."""
    if not directory.is_dir():
        raise RecipeError(
            f"{_KEY}: {directory}: no such directory; name a finished run, or a directory with a "
            "transformers classifier"
        )
    places = [directory / "adapter", directory / "model", directory]
    weights = next(place for place in places if place.is_dir())
    return sorted(file for file in weights.iterdir() if file.is_file())


def _outputs(
    teacher: str, rows: datasets.Dataset, settings: Settings, *, with_features: bool
) -> Predictions:
    if RunDirectory(Path(teacher)).record.is_file():
        classifier = Classifier.load(teacher)
        require_labels(f"{_KEY}: {teacher}", classifier.labels, settings.labels)
        return classifier.outputs(rows, features=with_features)
    predictor = _plain_teacher(teacher, settings)
    batches = batches_of(rows, are_pairs="text_pair" in rows.column_names)
    return Predictions.joined([predictor.texts(batch, features=with_features) for batch in batches])


def _plain_teacher(directory: str, settings: Settings) -> Predictor:
    """Return a transformers classifier in a directory, whose head must be in its checkpoint."""
    changes = ConfigChanges(multi_label=settings.task == "multi-label")
    base = locate(directory, labels=settings.labels, changes=changes)
    compute = choose_compute(
        precision=settings.compute.precision,
        attention=settings.compute.attention,
        products=settings.compute.products,
        config=base.config,
    )
    model, missing = load_base(base, BaseOptions(seed=settings.seed, attention=compute.attention))
    if missing:
        raise RecipeError(
            f"{_KEY}: {directory}: its checkpoint has no trained head for {len(settings.labels)} "
            f"classes ({len(missing)} weights are missing); name a fine-tuned classifier"
        )
    tokenizer = load_tokenizer(base, tokenizer=None)
    return predictor_of(model, compute, settings.inference, tokenizer=tokenizer)


def _require_width(teacher: str, width: int, expected: int) -> None:
    if width != expected:
        raise RecipeError(
            f"distillation.hidden: {teacher}: its output layer reads {width} features, the "
            f"student's {expected}; use a teacher of the same width, or hidden = 0"
        )
