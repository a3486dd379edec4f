"""The frozen encoder in 8 or 4 bits, through bitsandbytes (QLoRA, arXiv:2305.14314)."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any, Literal

import torch
from torch import nn
from transformers import BitsAndBytesConfig, PreTrainedModel

from pennyweight.errors import BaseModelError

__all__ = [
    "Quantization",
    "begin_with_loftq",
    "frozen_bytes",
    "plain_layers",
    "quantizer",
    "steady",
]

Quantization = Literal["none", "nf4", "int8"]


def quantizer(method: Quantization, *, kept: Sequence[str], dtype: torch.dtype) -> Any:
    """What `from_pretrained` is told so that it quantizes the encoder's linear layers.

    Args:
        method: 4-bit NormalFloat with doubly quantized scales, or 8-bit integers (LLM.int8(),
            arXiv:2208.07339); None comes of "none".
        kept: names of modules left as they are: the head.
        dtype: of the products with 4-bit weights.

    Raises:
        BaseModelError: bitsandbytes is missing.
    """
    if method == "none":
        return None
    if find_spec("bitsandbytes") is None:
        raise BaseModelError(
            f"base.quantization: {method} needs bitsandbytes; "
            "pip install 'pennyweight[quantization]'"
        )
    if method == "int8":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=list(kept))
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
        llm_int8_skip_modules=list(kept),
    )


def steady(model: nn.Module) -> None:
    """Stop bitsandbytes from packing 4-bit weights anew when a CPU evaluates in mid-training."""
    layers: list[Any] = [m for m in model.modules() if hasattr(m, "support_avx512bf16_for_cpu")]
    for layer in layers:
        layer.support_avx512bf16_for_cpu = False


def plain_layers(model: PreTrainedModel) -> PreTrainedModel:
    """The same model with what its quantized weights stand for in float32."""
    if getattr(model, "hf_quantizer", None) is None:
        return model
    plain: PreTrainedModel = model.dequantize(dtype=torch.float32)
    return plain.float()


def frozen_bytes(model: nn.Module) -> int:
    """Bytes of all weights that are not trained, the quantized ones' scales included."""
    found = 0
    for parameter in model.parameters():
        if parameter.requires_grad:
            continue
        found += parameter.nbytes
        found += sum(tensor.nbytes for tensor in _scales(parameter))
    return found


def _scales(parameter: Any) -> list[torch.Tensor]:
    eight = getattr(parameter, "SCB", None)
    state = getattr(parameter, "quant_state", None)
    inner = getattr(state, "state2", None)
    parts = [eight, getattr(state, "absmax", None), getattr(inner, "absmax", None)]
    return [part for part in parts if torch.is_tensor(part)]


@torch.no_grad()
def begin_with_loftq(model: Any, original: nn.Module) -> None:
    """Let B A make up for what 4 bits have lost of each adapted weight.

    One step of LoftQ (Li et al. 2023, arXiv:2310.08659, algorithm 1): the best approximation of
    the loss at the adapter's rank, by singular values. PEFT's own function for quantized bases
    needs a GPU, and leaves out the scaling.

    Args:
        model: PEFT's model over the base in NF4.
        original: the same base, not quantized.
    """
    from bitsandbytes.functional import dequantize_4bit

    weights = dict(original.named_parameters())
    for name, layer in model.get_base_model().named_modules():
        if not hasattr(layer, "lora_A") or "default" not in layer.lora_A:
            continue
        quantized = layer.get_base_layer().weight
        if getattr(quantized, "quant_state", None) is None:
            continue
        held = dequantize_4bit(quantized.data, quantized.quant_state).float()
        lost = weights[f"{name}.weight"].to(held.device).float() - held
        u, s, v = torch.linalg.svd(lost, full_matrices=False)
        rank = layer.r["default"]
        root = (s[:rank] / layer.scaling["default"]).sqrt()
        layer.lora_B["default"].weight.copy_(u[:, :rank] * root)
        layer.lora_A["default"].weight.copy_(root[:, None] * v[:rank])
