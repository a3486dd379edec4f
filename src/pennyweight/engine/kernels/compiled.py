"""torch.compile for the feed-forward blocks, whose shapes differ only in the number of tokens.

Packed attention has many shapes and LoRA has its own autograd function, so neither is compiled; the
blocks between them are compiled once for any number of tokens.
"""

from __future__ import annotations

import os
import shutil
from typing import Any

import torch
from torch import nn

from pennyweight.engine.kernels.masks import PooledDropout
from pennyweight.errors import TrainingError

__all__ = ["choose_compile", "compile_blocks"]

# transformers' names for the feed-forward parts of a layer, in every architecture of `FAMILIES`.
_BLOCKS = ("intermediate", "output", "mlp")
# Training or not, with gradients or not, all tokens or first tokens: each needs its own graph.
_GRAPHS = 16


def choose_compile(setting: str, *, device: str) -> tuple[bool, str]:
    """Return whether to compile, and a few words to log about it.

    Args:
        setting: "auto" (on a GPU that has Triton), "on" or "off".
        device: "cuda", "mps" or "cpu".

    Raises:
        TrainingError: the setting is "on" and the compiler that it needs is missing.
    """
    if setting == "off":
        return False, ""
    missing = _missing(device)
    if setting == "auto":
        if device != "cuda":
            return False, ""
        if missing is not None:
            return False, f"not compiled: {missing}"
    elif missing is not None:
        raise TrainingError(f"train.compile: {missing}, or use --set train.compile=off")
    return True, "feed-forward blocks compiled by torch.compile"


def _missing(device: str) -> str | None:
    if device == "cuda":
        from torch.utils._triton import has_triton

        return None if has_triton() else "torch.compile needs Triton on a GPU; pip install triton"
    compilers = (os.environ.get("CXX", "g++"), "clang++")
    if any(shutil.which(name) for name in compilers):
        return None
    return "torch.compile needs a C++ compiler on a CPU; install g++"


def compile_blocks(model: Any) -> int:
    """Compile a classifier's feed-forward blocks without adapters; return their number."""
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, _GRAPHS)
    blocks = [
        module
        for name, module in model.base_model.named_modules()
        if name.rpartition(".")[2] in _BLOCKS
        and "attention" not in name
        and not any(p.requires_grad for p in module.parameters())
        and any(isinstance(child, nn.Linear) for child in module.modules())
        # Pooled masks are drawn in Python, which torch.compile cannot trace.
        and not any(isinstance(m, PooledDropout) and m.p > 0.0 for m in module.modules())
    ]
    for block in blocks:
        block.compile(dynamic=True)
    return len(blocks)
