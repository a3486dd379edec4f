"""Load a base's weights and put the planned adapters on them."""

from __future__ import annotations

import copy
import tempfile
from dataclasses import dataclass, replace
from typing import Any, Literal

import peft
import torch
from transformers import AutoTokenizer, PreTrainedModel

from pennyweight.base.hub import fetch
from pennyweight.base.locate import BaseModel, classifier_class, skeleton
from pennyweight.budget.layout import layout_of
from pennyweight.budget.methods import Quantization
from pennyweight.budget.peft_warnings import ignore_expected_warnings
from pennyweight.budget.plan import Plan, freeze
from pennyweight.data.shown import listed
from pennyweight.environment import without_home
from pennyweight.errors import BaseModelError, first_line
from pennyweight.model.quantize import (
    disable_weight_packing,
    initialize_with_loftq,
    quantization_config,
)
from pennyweight.quiet import quiet_libraries

__all__ = ["BaseOptions", "Weights", "build_model", "load_base", "load_tokenizer"]

Weights = Literal["pretrained", "random"]


@dataclass(frozen=True, slots=True)
class BaseOptions:
    """How a base is loaded.

    Attributes:
        seed: seed of all random weights, those that the checkpoint lacks included.
        weights: the checkpoint's weights, or random ones.
        attention: transformers' name of the attention implementation.
        quantization: how the encoder's frozen matrices are stored.
        dtype: dtype of the products with 4-bit weights.
    """

    seed: int
    weights: Weights = "pretrained"
    attention: str = "eager"
    quantization: Quantization = "none"
    dtype: torch.dtype = torch.float32


@quiet_libraries()
def load_base(base: BaseModel, options: BaseOptions) -> tuple[PreTrainedModel, frozenset[str]]:
    """Return the base with its head in float32, and the names of its fresh weights.

    Fresh weights are those that the checkpoint lacks, as a rule the head. They are drawn from the
    seed, so they are the same each time.

    Raises:
        BaseModelError: the weights cannot be found or read, or bitsandbytes is not installed.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        if options.weights == "random":
            return _random_base(base, options)
        return _pretrained_base(base, _location(base), options)


def _location(base: BaseModel) -> str:
    """Return the local directory with the base's files, downloaded if it comes from the hub."""
    if base.origin == "hub":
        return str(fetch(base.name, revision=base.revision))
    return base.location


def _random_base(base: BaseModel, options: BaseOptions) -> tuple[PreTrainedModel, frozenset[str]]:
    model = classifier_class(base.config)._from_config(
        base.config, attn_implementation=options.attention
    )
    fresh = frozenset(name for name, _ in model.named_parameters())
    if options.quantization != "none":
        # Only weights that are loaded from files can be quantized.
        with tempfile.TemporaryDirectory() as directory:
            model.save_pretrained(directory)
            model, _ = _pretrained_base(base, directory, options)
    return model, fresh


def _pretrained_base(
    base: BaseModel, location: str, options: BaseOptions
) -> tuple[PreTrainedModel, frozenset[str]]:
    quantization = _quantization(base, options)
    try:
        model, info = classifier_class(base.config).from_pretrained(
            location,
            # A copy, because transformers writes the quantization into it.
            config=copy.deepcopy(base.config),
            attn_implementation=options.attention,
            use_safetensors=True,
            dtype=torch.float32,
            output_loading_info=True,
            quantization_config=quantization,
        )
    except Exception as error:  # noqa: BLE001 - transformers raises many kinds for a damaged file
        raise BaseModelError(
            f"base.name: {base.name}: its weights cannot be loaded: {first_line(error)}"
        ) from None
    disable_weight_packing(model)
    fresh = frozenset(info["missing_keys"])
    _require_encoder(base, fresh)
    return model, fresh


def _require_encoder(base: BaseModel, fresh: frozenset[str]) -> None:
    """Refuse a checkpoint that lacks weights of the encoder, which would be random instead.

    Raises:
        BaseModelError: a weight outside the head is missing.
    """
    if not fresh:
        return
    layout = layout_of(skeleton(base), labels=base.config.num_labels)
    missing = sorted(name for name in fresh if not layout.is_in_head(name))
    if missing:
        raise BaseModelError(
            f"base.name: {base.name}: its weights lack {len(missing)} tensors of the encoder, such "
            f"as {listed(missing[:3])}, which would be random; restore model.safetensors, or name "
            "a complete base"
        )


def _quantization(base: BaseModel, options: BaseOptions) -> Any:
    if options.quantization == "none":
        return None
    layout = layout_of(skeleton(base), labels=base.config.num_labels)
    head = [layout.head_module, *([layout.head_dense.name] if layout.head_dense else [])]
    return quantization_config(options.quantization, unquantized=head, dtype=options.dtype)


def build_model(
    base: BaseModel, plan: Plan, options: BaseOptions
) -> tuple[Any, dict[str, torch.Tensor]]:
    """Return the base with untrained adapters, and its fresh frozen weights by name.

    The fresh frozen weights are those that neither the base's checkpoint nor the adapter holds (the
    dense layer of a frozen or low-rank head): they must be saved beside the adapter. A plan without
    adapters gives the bare base with every weight trainable.

    Raises:
        BaseModelError: as for `load_base`.
    """
    model, fresh = load_base(base, options)
    if plan.peft_config is None:
        return model, {}
    # Copied now, because PEFT renames the modules that it wraps.
    frozen = {n: p.detach().clone() for n, p in model.named_parameters() if n in fresh}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        with ignore_expected_warnings():
            # A copy, because PEFT writes into it.
            adapted = peft.get_peft_model(model, copy.deepcopy(plan.peft_config))
    freeze(adapted, plan.method.frozen)
    if plan.initialization == "loftq":
        original, _ = load_base(base, replace(options, quantization="none"))
        initialize_with_loftq(adapted, original)
    # PEFT records the directory that the base was loaded from; others know it by its hub id.
    adapted.peft_config["default"].base_model_name_or_path = without_home(base.reference)
    adapted.peft_config["default"].revision = base.revision
    if options.weights == "random":
        # The seed and the config give the same weights again, so none need to be stored.
        return adapted, {}
    trained = tuple(f"{name}." for name in _modules_trained_in_full(adapted))
    return adapted, {n: t for n, t in frozen.items() if not n.startswith(trained)}


def _modules_trained_in_full(model: Any) -> list[str]:
    suffix = ".modules_to_save.default"
    names = [name for name, _ in model.get_base_model().named_modules()]
    return [name.removesuffix(suffix) for name in names if name.endswith(suffix)]


def load_tokenizer(base: BaseModel, *, tokenizer: str | None) -> Any:
    """Return the base's fast tokenizer, or the one at another location.

    Args:
        base: the base model.
        tokenizer: hub id or local directory of another tokenizer; None for the base's own.

    Raises:
        BaseModelError: the tokenizer cannot be loaded.
    """
    if tokenizer is None and base.origin == "known config":
        raise BaseModelError(
            f"base.tokenizer: only the config of {base.name} comes with Pennyweight; name a "
            "tokenizer, or use a base whose files are available"
        )
    location = tokenizer or _location(base)
    try:
        return AutoTokenizer.from_pretrained(location, use_fast=True, trust_remote_code=False)
    except Exception as error:  # noqa: BLE001 - the tokenizer libraries raise many kinds
        raise BaseModelError(
            f"base.tokenizer: {location}: cannot be loaded: {first_line(error)}"
        ) from None
