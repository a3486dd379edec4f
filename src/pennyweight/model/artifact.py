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
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import peft
import torch
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel
from transformers.dynamic_module_utils import custom_object_save

from pennyweight.base.config import load_config
from pennyweight.base.locate import classifier_class
from pennyweight.base.pooled import PooledClassifier
from pennyweight.budget.count import read_shapes
from pennyweight.budget.facts import ArtifactFacts, read_artifact_facts, write_artifact_facts
from pennyweight.budget.methods import METHODS
from pennyweight.budget.peft_warnings import ignore_expected_warnings
from pennyweight.data.shown import shown
from pennyweight.documents import printable, read_json_table
from pennyweight.errors import PennyweightError, RunError, first_line
from pennyweight.quiet import quiet_libraries

__all__ = [
    "FRESH_WEIGHTS",
    "ArtifactFacts",
    "load_adapter",
    "load_whole_model",
    "read_artifact_facts",
    "read_fresh_weights",
    "readable",
    "save_artifact",
]

FRESH_WEIGHTS = "fresh_weights.safetensors"
# Keys of adapter_config.json whose values PEFT matches as regular expressions, and what Pennyweight
# writes there: the names of modules.
_PATTERNS = ("target_modules", "exclude_modules", "rank_pattern", "alpha_pattern", "layers_pattern")
# Where the classes that PEFT's `auto_mapping` names may come from.
_LIBRARIES = ("transformers", "transformers_modules", "pennyweight")
_LITERAL = re.compile(r"(?:[\w-]|\\?\.|\\-)+")


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
        # PEFT's card names the directory of the base; a finished run has a card of its own.
        (directory / "README.md").unlink(missing_ok=True)
        _save_classifier_code(model.get_base_model(), directory)
    else:
        model.save_pretrained(str(directory))
    write_artifact_facts(directory, facts)
    if fresh_weights:
        save_file({n: t.contiguous() for n, t in fresh_weights.items()}, directory / FRESH_WEIGHTS)
    if tokenizer is not None:
        # What the last call has set would be saved, and depends on what was in the cache. Every
        # call sets it again.
        tokenizer.backend_tokenizer.no_truncation()
        tokenizer.backend_tokenizer.no_padding()
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
        _check_adapter(directory)
        if fresh_weights.is_file():
            # Assigned, because the model may share the memory of its weights with others.
            model.load_state_dict(load_file(fresh_weights), strict=False, assign=True)
        with ignore_expected_warnings():
            adapted = peft.PeftModel.from_pretrained(model, str(directory))
        _refuse_missing_tensors(adapted, directory)
    adapted.eval()
    return adapted


def read_fresh_weights(directory: Path) -> dict[str, torch.Tensor]:
    """Return the frozen weights that an artifact holds because the base's checkpoint lacks them.

    They are on the CPU; there are none where the head is trained in full.
    """
    file = directory / FRESH_WEIGHTS
    return load_file(file) if file.is_file() else {}


def _refuse_missing_tensors(adapted: peft.PeftModel, directory: Path) -> None:
    # A file with only the ranks that were kept is complete, and PEFT refuses to list the others.
    kind = adapted.peft_config["default"].peft_type.value
    known = (method.tensors for method in METHODS.values() if method.tensors is not None)
    if any(tensors.peft_type == kind and not tensors.are_all_saved for tensors in known):
        return
    # "auto" would ask the hub whether the frozen embeddings were resized.
    state = peft.get_peft_model_state_dict(adapted, save_embedding_layers=False)
    stored = read_shapes(directory / "adapter_model.safetensors")
    if missing := sorted(set(state) - set(stored)):
        raise RunError(
            f"{directory}: the adapter's weights lack {missing[0]}, which would be random"
        )


def _check_adapter(directory: Path) -> None:
    """Refuse an adapter that PEFT would read otherwise than as plain weights of a known method.

    Raises:
        RunError: its weights are pickled or missing, or its config names a Python module or holds
            a regular expression, some of which take practically forever to match.
        OSError: its config cannot be read.
        ValueError: its config is no JSON object.
    """
    if not (directory / "adapter_model.safetensors").is_file():
        raise RunError(
            f"{directory}: adapter_model.safetensors is missing; pickled weights could run code "
            "and are never loaded"
        )
    path = directory / "adapter_config.json"
    config = read_json_table(path)
    if config.get("megatron_config") is not None or _imports(config.get("auto_mapping")):
        raise RunError(f"{path}: names Python modules to import, which is never done")
    for key in _PATTERNS:
        value = config.get(key) or ()
        for pattern in [value] if isinstance(value, str) else value:
            if not isinstance(pattern, str) or not _LITERAL.fullmatch(pattern):
                raise RunError(f"{path}: {key}: given {shown(pattern)}; allowed: module names")


def _imports(mapping: object) -> bool:
    """Return whether PEFT's `auto_mapping` names a module that is not of a known library."""
    if mapping is None:
        return False
    library = mapping.get("parent_library") if isinstance(mapping, dict) else None
    return not isinstance(library, str) or library.split(".")[0] not in _LIBRARIES


@quiet_libraries()
def load_whole_model(directory: Path, *, attention: str) -> PreTrainedModel:
    """Return a model that was trained in full, in float32, for inference.

    Raises:
        RunError: the model is missing or cannot be read.
    """
    with readable(directory):
        config = load_config(directory)
        loaded: tuple[PreTrainedModel, dict[str, Any]] = classifier_class(config).from_pretrained(
            str(directory),
            config=config,
            attn_implementation=attention,
            dtype=torch.float32,
            use_safetensors=True,
            output_loading_info=True,
        )
        model, info = loaded
        if info["missing_keys"]:
            missing = min(info["missing_keys"])
            raise RunError(f"{directory}: its weights lack {missing}, which would be random")
    return model.eval()


@contextmanager
def readable(directory: Path) -> Iterator[None]:
    """Raise errors of libraries that read an artifact's directory as a `RunError` that names it."""
    try:
        yield
    except PennyweightError:
        raise
    except Exception as error:  # noqa: BLE001 - PEFT and transformers raise many kinds
        reason = printable(first_line(error))
        raise RunError(f"{directory}: cannot be loaded: {reason}") from None
