"""Merge a trained adapter into its base: one plain transformers model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import peft
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import ModulesToSaveWrapper
from transformers import PreTrainedModel

from pennyweight.base import BaseModel
from pennyweight.budget.methods import Method
from pennyweight.budget.peft_warnings import ignore_expected_warnings
from pennyweight.model.artifact import load_adapter, load_whole_model
from pennyweight.model.build import BaseOptions, load_base
from pennyweight.model.quantize import dequantized

__all__ = ["load_adapted", "load_merged", "merge_adapter", "save_merged"]


def load_adapted(
    base: BaseModel, directory: Path, *, method: Method, options: BaseOptions
) -> peft.PeftModel | PreTrainedModel:
    """Return a trained classifier in float32 with the adapter beside the base.

    A model whose every weight was trained has no adapter, and is returned as it is. The arguments
    and errors are those of `load_merged`.
    """
    if method.trains_every_weight:
        return load_whole_model(directory, attention=options.attention)
    loaded, _ = load_base(base, options)
    return load_adapter(dequantized(loaded), directory)


def load_merged(
    base: BaseModel, directory: Path, *, method: Method, options: BaseOptions
) -> PreTrainedModel:
    """Return a trained classifier as one plain frozen model in float32.

    Where the base is quantized, the model has the float32 values of its quantized weights.

    Args:
        base: the base model that was adapted.
        directory: the artifact of the training.
        method: the adapter method.
        options: how the base was loaded for training.

    Raises:
        RunError: the artifact is missing, or does not fit the base.
        BaseModelError: the base's weights cannot be loaded.
    """
    model = load_adapted(base, directory, method=method, options=options)
    if isinstance(model, peft.PeftModel):
        model = merge_adapter(model)
    return model.requires_grad_(False).eval()


def merge_adapter(model: peft.PeftModel) -> PreTrainedModel:
    """Return the base with the adapter merged into its weights; the adapted model is consumed.

    Works for every PEFT method whose layers can merge. PEFT's `merge_and_unload` gives the same
    weights but fails for VeRA and LoHa beside a head that is trained in full.
    """
    base: PreTrainedModel = model.get_base_model()
    for name, module in list(base.named_modules()):
        if isinstance(module, BaseTunerLayer):
            with ignore_expected_warnings():
                module.merge()
            plain = module.get_base_layer()
        elif isinstance(module, ModulesToSaveWrapper):
            plain = module.modules_to_save["default"]
        else:
            continue
        parent, _, child = name.rpartition(".")
        setattr(base.get_submodule(parent), child, plain)
    if hasattr(base, "peft_config"):
        # Otherwise PEFT warns when the merged model gets another adapter.
        del base.peft_config
    return base


def save_merged(model: PreTrainedModel, directory: Path, *, tokenizer: Any) -> None:
    """Write a plain transformers model with its labels and tokenizer."""
    model.save_pretrained(str(directory))
    tokenizer.save_pretrained(str(directory))
