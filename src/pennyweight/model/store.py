"""The artifact: a standard PEFT directory, plus label names and the tokenizer.

Files: `adapter_config.json` and `adapter_model.safetensors` (plain PEFT), `labels.json`, the
tokenizer's, and `fresh_weights.safetensors` where the head is not trained whole: frozen weights
that the base's checkpoint lacks, to be loaded into the base before the adapter. A model that was
trained whole is a plain transformers directory instead (`config.json`, `model.safetensors`).
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import peft
import torch
from peft import PeftType
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import ModulesToSaveWrapper
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from pennyweight.errors import RunError

__all__ = [
    "FRESH_WEIGHTS",
    "load_adapter",
    "load_labels",
    "load_whole",
    "merge_adapter",
    "save_adapter",
    "save_merged",
]

FRESH_WEIGHTS = "fresh_weights.safetensors"
_LABELS = "labels.json"


def save_adapter(
    model: peft.PeftModel | PreTrainedModel,
    directory: Path,
    *,
    labels: Sequence[str],
    fresh_weights: Mapping[str, torch.Tensor],
    tokenizer: Any | None = None,
) -> None:
    """Write the artifact into `directory`, which must not hold an adapter yet."""
    # The embeddings are frozen; "auto" would ask the hub whether they were resized.
    if isinstance(model, peft.PeftModel):
        with _dropped_ranks_are_fine():
            model.save_pretrained(str(directory), save_embedding_layers=False)
    else:
        model.save_pretrained(str(directory))
    text = json.dumps(list(labels), ensure_ascii=False, indent=1) + "\n"
    (directory / _LABELS).write_text(text, encoding="utf-8")
    if fresh_weights:
        save_file({n: t.contiguous() for n, t in fresh_weights.items()}, directory / FRESH_WEIGHTS)
    if tokenizer is not None:
        tokenizer.save_pretrained(str(directory))


@contextmanager
def _dropped_ranks_are_fine() -> Iterator[None]:
    """AdaLoRA may leave a matrix without any rank, of which PEFT warns."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*have invalid shape")
        warnings.filterwarnings("ignore", message=".*rank_pattern keys did not match")
        yield


def load_labels(directory: Path) -> list[str]:
    """The classes' names in the order of their indices.

    Raises:
        RunError: they are not there.
    """
    try:
        labels = json.loads((directory / _LABELS).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{directory / _LABELS}: cannot be read: {error}") from None
    return [str(label) for label in labels]


def load_adapter(model: PreTrainedModel, directory: Path) -> peft.PeftModel:
    """Put a saved adapter on a base that `load_base` gave, for inference.

    Raises:
        RunError: the adapter is missing, or does not fit the base.
    """
    fresh = directory / FRESH_WEIGHTS
    try:
        if fresh.is_file():
            model.load_state_dict(load_file(fresh), strict=False)
        with _dropped_ranks_are_fine():
            adapted = peft.PeftModel.from_pretrained(model, str(directory))
    except (OSError, ValueError, RuntimeError) as error:
        raise RunError(f"{directory}: not usable: {str(error).splitlines()[0]}") from None
    adapted.eval()
    return adapted


def load_whole(directory: Path, *, attention: str) -> PreTrainedModel:
    """A model that was trained and saved whole, in float32, for inference.

    Raises:
        RunError: it is missing, or cannot be read.
    """
    try:
        model: PreTrainedModel = AutoModelForSequenceClassification.from_pretrained(
            str(directory), attn_implementation=attention, dtype=torch.float32, use_safetensors=True
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise RunError(f"{directory}: not usable: {str(error).splitlines()[0]}") from None
    return model


def merge_adapter(model: peft.PeftModel) -> PreTrainedModel:
    """Fold the adapter into the base, in the base's dtype; the adapted model is used up."""
    if model.peft_config["default"].peft_type not in (PeftType.VERA, PeftType.LOHA):
        merged: PreTrainedModel = model.merge_and_unload()
        return merged
    # PEFT's own merging of these stumbles over a head that is trained whole.
    inner: PreTrainedModel = model.get_base_model()
    for name, module in list(inner.named_modules()):
        if isinstance(module, BaseTunerLayer):
            module.merge()
            plain = module.get_base_layer()
        elif isinstance(module, ModulesToSaveWrapper):
            plain = module.modules_to_save["default"]
        else:
            continue
        parent, _, child = name.rpartition(".")
        setattr(inner.get_submodule(parent), child, plain)
    return inner


def save_merged(model: PreTrainedModel, directory: Path, *, tokenizer: Any) -> None:
    """Write a plain transformers model, labels included."""
    model.save_pretrained(str(directory))
    tokenizer.save_pretrained(str(directory))
