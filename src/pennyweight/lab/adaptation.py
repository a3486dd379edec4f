"""A language model adapted to texts, trained once and kept in a cache."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Literal

import torch

from pennyweight.files import recover_directory, replace_directory
from pennyweight.lab.fine_tuning import FineTuning, FineTuningStep
from pennyweight.lab.language_model import LanguageModel

__all__ = ["adapted_model"]

# A line of progress is printed this often at most.
_LINE_SECONDS = 20.0


def adapted_model(
    name: str,
    texts: Sequence[str],
    tuning: FineTuning | None,
    *,
    precision: Literal["fp32", "bf16"],
    cache: Path,
    log: Callable[[str], None],
) -> tuple[LanguageModel, str]:
    """Load a language model and fine-tune it on texts, or read the result from the cache.

    With LoRA, the cache holds the adapter alone, and an interrupted training resumes. The adapter
    is merged into the weights, which makes sampling faster.

    Args:
        name: directory in the hub's format, or hub id.
        texts: texts to adapt to.
        tuning: options of the fine-tuning; None returns the model as it is.
        precision: of products, and of the weights unless all of them are trained.
        cache: directory of adapted models.
        log: receives progress lines.

    Returns:
        The model, and a key that changes with everything that determines its weights.

    Raises:
        DataError: the model cannot be loaded, or the texts are too short to train on.
    """
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    if tuning is None:
        return LanguageModel.load(name, dtype=dtype), _key([_identity(name), precision])
    tuning = replace(tuning, precision=precision)
    key = _key([_identity(name), asdict(tuning), _fingerprint(texts)])
    folder = cache / key
    if tuning.lora is None:
        return _fully_tuned(name, texts, tuning, folder=folder, log=log), key
    if recover_directory(folder):
        model = LanguageModel.load(name, adapter=folder, dtype=dtype)
    else:
        model = LanguageModel.load(name, dtype=dtype)
        _fit(model, name, texts, tuning, folder=folder, log=log)
    model.merge_adapter()
    return model, key


def _fully_tuned(
    name: str,
    texts: Sequence[str],
    tuning: FineTuning,
    *,
    folder: Path,
    log: Callable[[str], None],
) -> LanguageModel:
    if recover_directory(folder):
        return LanguageModel.load(folder)
    model = LanguageModel.load(name)
    _fit(model, name, texts, tuning, folder=folder, log=log)
    return model


def _fit(
    model: LanguageModel,
    name: str,
    texts: Sequence[str],
    tuning: FineTuning,
    *,
    folder: Path,
    log: Callable[[str], None],
) -> None:
    """Train a model and save it; with LoRA, from a checkpoint where there is one."""
    checkpoint = None
    if tuning.lora is not None:
        checkpoint = folder.with_name(f"{folder.name}.checkpoint.pt")
    trained = "all weights" if tuning.lora is None else f"LoRA of rank {tuning.lora.rank}"
    log(
        f"fine-tuning {name} on {len(texts):,} target texts for {tuning.epochs:g} epochs: "
        f"{trained}, {tuning.precision}"
    )
    if checkpoint is not None and checkpoint.is_file():
        log("language model: resuming an interrupted training")
    logged = -_LINE_SECONDS

    def log_step(step: FineTuningStep) -> None:
        nonlocal logged
        now = time.perf_counter()
        if step.step == step.last or now - logged >= _LINE_SECONDS:
            log(step.describe())
            logged = now

    model.fit(texts, tuning, checkpoint=checkpoint, on_step=log_step)
    replace_directory(folder, model.save)
    if checkpoint is not None:
        checkpoint.unlink(missing_ok=True)


def _key(facts: Sequence[object]) -> str:
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]


def _identity(name: str) -> list[object]:
    """Return what identifies a model: names, sizes and times of a directory's files, or its id."""
    folder = Path(name)
    if not folder.is_dir():
        return [name]
    files = sorted(file for file in folder.iterdir() if file.is_file())
    return [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in files]


def _fingerprint(texts: Sequence[str]) -> str:
    digest = hashlib.sha256()
    for text in texts:
        digest.update(len(text).to_bytes(8, "little") + text.encode())
    return digest.hexdigest()
