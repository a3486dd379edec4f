"""The methods of PEFT that are not in the table, and why."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

__all__ = ["UNSUPPORTED"]

_VIRTUAL_TOKENS = (
    "adds virtual tokens to every input, so it cannot be merged into the base, and in packed "
    "batches, where several texts share a row, it would reach the first text only"
)
_NEEDS_WEIGHTS = (
    "decomposes the base's weights when its layers are made, so that it cannot be planned on a "
    "model without weights"
)

# By PEFT's name of the method's type.
UNSUPPORTED: Mapping[str, str] = MappingProxyType(
    {
        "ADAMSS": _NEEDS_WEIGHTS,
        "ADAPTION_PROMPT": "is made for the attention modules of decoders such as LLaMA",
        "CARTRIDGE": _VIRTUAL_TOKENS,
        "CPT": f"{_VIRTUAL_TOKENS}; it is made for causal language models",
        "FROD": _NEEDS_WEIGHTS,
        "LILY": "averages its router over the whole batch, so that the prediction for a text "
        "depends on the other texts of its batch; it cannot be merged",
        "MULTITASK_PROMPT_TUNING": f"{_VIRTUAL_TOKENS}; it is made for several tasks",
        "POLY": "is made for several tasks, and needs the number of its task with every input",
        "PREFIX_TUNING": _VIRTUAL_TOKENS,
        "PROMPT_TUNING": _VIRTUAL_TOKENS,
        "P_TUNING": f"{_VIRTUAL_TOKENS}; the saved file holds less than was trained",
        "SHADOW": "trains a second model beside the layers of a decoder",
        "SUPERTUNING": "is not in the table yet; SHiRA, which trains as few entries of W at random "
        "places instead of the largest, is",
        "TRAINABLE_TOKENS": "trains the embeddings of tokens that are listed one by one, and no "
        "weight matrices",
        "XLORA": "trains a router over LoRA adapters that were trained before",
    }
)
