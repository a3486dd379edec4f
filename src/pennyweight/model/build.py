"""Load a base's weights and put the planned adapters on them."""

from __future__ import annotations

import copy
import tempfile
import warnings
from pathlib import Path
from typing import Any, Literal

import peft
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel
from transformers.utils import logging as transformers_logging

from pennyweight.base.hub import fetch
from pennyweight.base.locate import BaseModel, skeleton
from pennyweight.budget.layout import layout_of
from pennyweight.budget.plan import Plan, freeze
from pennyweight.errors import BaseModelError
from pennyweight.model.quantize import Quantization, begin_with_loftq, quantizer, steady

__all__ = ["Weights", "build_model", "load_base", "load_tokenizer"]

Weights = Literal["pretrained", "random"]


def load_base(
    base: BaseModel,
    *,
    weights: Weights,
    attention: str,
    seed: int,
    quantization: Quantization = "none",
    dtype: torch.dtype = torch.float32,
) -> tuple[PreTrainedModel, frozenset[str]]:
    """The base in fp32 with its head, and the names of the weights its checkpoint did not have.

    Those fresh weights (the head, as a rule) are drawn from `seed`, so they are the same each time.

    Args:
        base: that was found.
        weights: the checkpoint's, or random ones from `seed`.
        attention: transformers' name of the implementation.
        seed: of what is random.
        quantization: how the encoder's matrices are held.
        dtype: of the products with 4-bit weights.

    Raises:
        BaseModelError: the weights cannot be found or read, or bitsandbytes is missing.
    """
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if weights == "random":
            model = AutoModelForSequenceClassification.from_config(
                base.config, attn_implementation=attention
            )
            fresh = frozenset(name for name, _ in model.named_parameters())
            if quantization == "none":
                return model, fresh
            # Only what is loaded is quantized.
            with tempfile.TemporaryDirectory() as folder:
                model.save_pretrained(folder)
                model, _ = _load(base, folder, attention, _quantizer(base, quantization, dtype))
            return model, fresh
        location = (
            fetch(base.name, revision=base.revision) if base.origin == "hub" else base.location
        )
        return _load(base, location, attention, _quantizer(base, quantization, dtype))


def _quantizer(base: BaseModel, quantization: Quantization, dtype: torch.dtype) -> Any:
    if quantization == "none":
        return None
    layout = layout_of(skeleton(base), labels=base.config.num_labels)
    kept = [layout.head_module, *([layout.head_dense.name] if layout.head_dense else [])]
    return quantizer(quantization, kept=kept, dtype=dtype)


def _load(
    base: BaseModel, location: str | Path, attention: str, quantization: Any
) -> tuple[PreTrainedModel, frozenset[str]]:
    try:
        model, info = AutoModelForSequenceClassification.from_pretrained(
            location,
            # A copy, because transformers writes the quantization into it.
            config=copy.deepcopy(base.config),
            attn_implementation=attention,
            use_safetensors=True,
            dtype=torch.float32,
            output_loading_info=True,
            quantization_config=quantization,
        )
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise BaseModelError(
            f"base.name: {base.name}: weights cannot be loaded: {reason}"
        ) from None
    steady(model)
    return model, frozenset(info["missing_keys"])


def build_model(
    base: BaseModel,
    plan: Plan,
    *,
    weights: Weights,
    attention: str,
    seed: int,
    quantization: Quantization = "none",
    dtype: torch.dtype = torch.float32,
    loftq: bool = False,
) -> tuple[Any, dict[str, torch.Tensor]]:
    """The base with untrained adapters, and its fresh frozen weights.

    The fresh frozen weights are those that neither the base's checkpoint nor the adapter holds
    (a frozen or low-rank head's dense layer): they must be saved beside the adapter. A plan
    without adapters gives the bare base, all of it to be trained. The arguments are `load_base`'s;
    with `loftq` the adapters begin with what quantization has lost.
    """
    model, fresh = load_base(
        base,
        weights=weights,
        attention=attention,
        seed=seed,
        quantization=quantization,
        dtype=dtype,
    )
    if plan.peft_config is None:
        return model, {}
    frozen = {n: p.detach().clone() for n, p in model.named_parameters() if n in fresh}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*eva initialization used with")
            # A copy, because PEFT writes into it.
            adapted = peft.get_peft_model(model, copy.deepcopy(plan.peft_config))
    freeze(adapted, plan.frozen)
    if loftq:
        original, _ = load_base(base, weights=weights, attention=attention, seed=seed)
        begin_with_loftq(adapted, original)
    # PEFT writes down the directory it was loaded from; others know the base by its hub id.
    adapted.peft_config["default"].base_model_name_or_path = base.reference
    adapted.peft_config["default"].revision = base.revision
    # Random weights are drawn again from the seed and the same config: no need to store a base.
    if weights == "random":
        frozen = {}
    whole = tuple(f"{name}." for name in _trained_whole(adapted))
    return adapted, {n: t for n, t in frozen.items() if not n.startswith(whole)}


def _trained_whole(model: Any) -> list[str]:
    marker = ".modules_to_save.default"
    names = [n for n, _ in model.get_base_model().named_modules() if n.endswith(marker)]
    return [name.removesuffix(marker) for name in names]


def load_tokenizer(base: BaseModel, *, tokenizer: str | None) -> Any:
    """The base's fast tokenizer, or the one named instead.

    Raises:
        BaseModelError: it cannot be loaded.
    """
    if tokenizer is None and base.origin == "known config":
        raise BaseModelError(f"base.tokenizer: {base.name}: only its config is known here")
    location = tokenizer or (
        str(fetch(base.name, revision=base.revision)) if base.origin == "hub" else base.location
    )
    try:
        return AutoTokenizer.from_pretrained(location, use_fast=True)
    except Exception as error:  # noqa: BLE001 - the tokenizer libraries raise many kinds
        reason = str(error).splitlines()[0]
        raise BaseModelError(f"base.tokenizer: {location}: cannot be loaded: {reason}") from None
