"""The frozen encoder in 8 or 4 bits, through bitsandbytes (QLoRA, arXiv:2305.14314)."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn
from transformers import BitsAndBytesConfig, PreTrainedModel

from pennyweight.budget.methods import Quantization
from pennyweight.errors import BaseModelError

__all__ = [
    "Quantization",
    "dequantized",
    "disable_weight_packing",
    "frozen_bytes",
    "initialize_with_loftq",
    "quantization_config",
]


def quantization_config(
    method: Quantization, *, unquantized: Sequence[str], dtype: torch.dtype
) -> BitsAndBytesConfig | None:
    """Return the config with which `from_pretrained` quantizes the encoder's linear layers.

    Args:
        method: "nf4" for 4-bit NormalFloat with doubly quantized scales, "int8" for 8-bit integers
            (LLM.int8(), arXiv:2208.07339), or "none", which gives None.
        unquantized: names of the modules to leave as they are: the head.
        dtype: dtype of the products with 4-bit weights.

    Raises:
        BaseModelError: bitsandbytes is not installed.
    """
    if method == "none":
        return None
    if find_spec("bitsandbytes") is None:
        raise BaseModelError(
            f"base.quantization: {method} needs bitsandbytes; "
            "pip install 'pennyweight[quantization]'"
        )
    if method == "int8":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=list(unquantized))
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
        llm_int8_skip_modules=list(unquantized),
    )


def disable_weight_packing(model: nn.Module) -> None:
    """Keep bitsandbytes from repacking 4-bit weights when a CPU evaluates between two steps."""
    layers: list[Any] = [m for m in model.modules() if hasattr(m, "support_avx512bf16_for_cpu")]
    for layer in layers:
        layer.support_avx512bf16_for_cpu = False


def dequantized(model: PreTrainedModel) -> PreTrainedModel:
    """Return the model with its quantized weights as float32, or the model itself if it has none.

    A quantized model is converted in place.
    """
    if getattr(model, "hf_quantizer", None) is None:
        return model
    plain: PreTrainedModel = model.dequantize(dtype=torch.float32)
    return plain.float()


def frozen_bytes(model: nn.Module) -> int:
    """Return the bytes of all frozen weights, including the scales of quantized ones."""
    frozen = [parameter for parameter in model.parameters() if not parameter.requires_grad]
    return sum(p.nbytes + sum(scale.nbytes for scale in _scales(p)) for p in frozen)


def _scales(parameter: Any) -> list[torch.Tensor]:
    int8_scales = getattr(parameter, "SCB", None)
    state = getattr(parameter, "quant_state", None)
    nested = getattr(state, "state2", None)
    scales = [int8_scales, getattr(state, "absmax", None), getattr(nested, "absmax", None)]
    return [scale for scale in scales if torch.is_tensor(scale)]


@torch.no_grad()
def initialize_with_loftq(model: Any, original: nn.Module) -> None:
    """Initialize B A so that they compensate for the quantization error of each adapted weight.

    One step of LoftQ (Li et al. 2023, arXiv:2310.08659, algorithm 1): the best approximation of
    the error at the adapter's rank, from its singular values. PEFT's own function for quantized
    bases needs a GPU and ignores the scaling.

    Args:
        model: PEFT's model on the base in NF4.
        original: the same base without quantization.
    """
    from bitsandbytes.functional import dequantize_4bit

    weights = dict(original.named_parameters())
    for name, layer in model.get_base_model().named_modules():
        if not hasattr(layer, "lora_A") or "default" not in layer.lora_A:
            continue
        quantized = layer.get_base_layer().weight
        if getattr(quantized, "quant_state", None) is None:
            continue
        restored = dequantize_4bit(quantized.data, quantized.quant_state).float()
        error = weights[f"{name}.weight"].to(restored.device).float() - restored
        u, s, v = torch.linalg.svd(error, full_matrices=False)
        rank = layer.r["default"]
        root = (s[:rank] / layer.scaling["default"]).sqrt()
        layer.lora_B["default"].weight.copy_(u[:, :rank] * root)
        layer.lora_A["default"].weight.copy_(root[:, None] * v[:rank])
