"""The artifact of a training: a standard PEFT directory, with facts and tokenizer beside it.

Files: `adapter_config.json` and `adapter_model.safetensors` (plain PEFT), `pennyweight.json` (the
labels and the method), the tokenizer's, and `fresh_weights.safetensors` where the head is not
trained in full: frozen weights that the base's checkpoint lacks, to be loaded into the base before
the adapter. `config.json` and `pooled.py` describe a classifier on pooled hidden states, which
transformers does not have. A model that was trained in full is a plain transformers directory
instead, with `config.json` and `model.safetensors`.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import peft
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, PreTrainedModel
from transformers.dynamic_module_utils import custom_object_save

from pennyweight.base.locate import classifier_class
from pennyweight.base.pooled import PooledClassifier
from pennyweight.budget.facts import ArtifactFacts, read_artifact_facts, write_artifact_facts
from pennyweight.budget.peft_warnings import ignore_expected_warnings
from pennyweight.errors import RunError
from pennyweight.quiet import quiet_libraries

__all__ = [
    "FRESH_WEIGHTS",
    "ArtifactFacts",
    "load_adapter",
    "load_whole_model",
    "read_artifact_facts",
    "readable",
    "save_artifact",
]

FRESH_WEIGHTS = "fresh_weights.safetensors"


def save_artifact(
    model: peft.PeftModel | PreTrainedModel,
    directory: Path,
    facts: ArtifactFacts,
    *,
    fresh_weights: Mapping[str, torch.Tensor],
    tokenizer: Any | None = None,
) -> None:
    """Write the artifact into `directory`, which must not hold one yet.

    Args:
        model: PEFT's model, or a transformers model that was trained in full.
        directory: where to write.
        facts: labels and method; see `Plan.artifact_facts`.
        fresh_weights: the frozen weights that `build_model` returned.
        tokenizer: the tokenizer to save with it; None for a checkpoint.
    """
    if isinstance(model, peft.PeftModel):
        with ignore_expected_warnings():
            # The embeddings are frozen; "auto" would ask the hub whether they were resized.
            model.save_pretrained(str(directory), save_embedding_layers=False)
        _save_classifier_code(model.get_base_model(), directory)
    else:
        model.save_pretrained(str(directory))
    write_artifact_facts(directory, facts)
    if fresh_weights:
        save_file({n: t.contiguous() for n, t in fresh_weights.items()}, directory / FRESH_WEIGHTS)
    if tokenizer is not None:
        tokenizer.save_pretrained(str(directory))


def _save_classifier_code(model: PreTrainedModel, directory: Path) -> None:
    """Save the config and the class of a pooled classifier, which transformers does not have."""
    if isinstance(model, PooledClassifier):
        config = copy.deepcopy(model.config)
        custom_object_save(model, str(directory), config=config)
        config.save_pretrained(str(directory))


def load_adapter(model: PreTrainedModel, directory: Path) -> peft.PeftModel:
    """Return a base with a saved adapter on it, for inference.

    Args:
        model: a base from `load_base`.
        directory: the adapter's directory.

    Raises:
        RunError: the adapter is missing, or does not fit the base.
    """
    fresh_weights = directory / FRESH_WEIGHTS
    with readable(directory):
        if fresh_weights.is_file():
            # Assigned, because the model may share the memory of its weights with others.
            model.load_state_dict(load_file(fresh_weights), strict=False, assign=True)
        with ignore_expected_warnings():
            adapted = peft.PeftModel.from_pretrained(model, str(directory))
    adapted.eval()
    return adapted


@quiet_libraries()
def load_whole_model(directory: Path, *, attention: str) -> PreTrainedModel:
    """Return a model that was trained in full, in float32, for inference.

    Raises:
        RunError: the model is missing or cannot be read.
    """
    with readable(directory):
        config = AutoConfig.from_pretrained(str(directory), trust_remote_code=False)
        model: PreTrainedModel = classifier_class(config).from_pretrained(
            str(directory),
            config=config,
            attn_implementation=attention,
            dtype=torch.float32,
            use_safetensors=True,
        )
    return model.eval()


@contextmanager
def readable(directory: Path) -> Iterator[None]:
    """Raise errors of libraries that read an artifact's directory as a `RunError` that names it."""
    try:
        yield
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        reason = str(error).splitlines()[0]
        raise RunError(f"{directory}: cannot be loaded: {reason}") from None
