"""torch.compile where it pays: the feed-forward blocks, whose shapes differ in tokens alone.

Attention over packed texts comes in many shapes and LoRA has an autograd function of its own, so
both stay as they are; the blocks between them are compiled once for any number of tokens.
"""

from __future__ import annotations

import os
import shutil
from typing import Any

import torch
from torch import nn

from pennyweight.engine.masks import PooledDropout
from pennyweight.errors import TrainingError

__all__ = ["choose_compile", "compile_blocks"]

# The feed-forward parts of a layer, by transformers' names, in every architecture that packs.
_BLOCKS = ("intermediate", "output", "mlp")
# Training or not, with gradients or not, many tokens or first tokens: each is a graph of its own.
_GRAPHS = 16


def choose_compile(wanted: str, *, device: str) -> tuple[bool, str]:
    """Whether to compile, and a few words about it.

    Args:
        wanted: "auto" (on a GPU that has Triton), "on" or "off".
        device: "cuda", "mps" or "cpu".

    Raises:
        TrainingError: it is wanted, and what it needs is missing.
    """
    if wanted == "off":
        return False, ""
    missing = _missing(device)
    if wanted == "auto":
        if device != "cuda":
            return False, ""
        if missing is not None:
            return False, f"not compiled: {missing}"
    elif missing is not None:
        raise TrainingError(f"train.compile: {missing}; or --set train.compile=off")
    return True, "feed-forward blocks compiled by torch.compile"


def _missing(device: str) -> str | None:
    if device == "cuda":
        from torch.utils._triton import has_triton

        return None if has_triton() else "torch.compile needs Triton on a GPU; pip install triton"
    compilers = (os.environ.get("CXX", "g++"), "clang++")
    if any(shutil.which(name) for name in compilers):
        return None
    return "torch.compile needs a C++ compiler on a CPU; install g++"


def compile_blocks(inner: Any) -> int:
    """Compile a classifier's feed-forward blocks that hold no adapter; how many there were."""
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, _GRAPHS)
    blocks = [
        module
        for name, module in inner.base_model.named_modules()
        if name.rpartition(".")[2] in _BLOCKS
        and "attention" not in name
        and not any(p.requires_grad for p in module.parameters())
        and any(isinstance(child, nn.Linear) for child in module.modules())
        # Pooled masks are drawn in Python, which cannot be compiled.
        and not any(isinstance(m, PooledDropout) and m.p > 0.0 for m in module.modules())
    ]
    for block in blocks:
        block.compile(dynamic=True)
    return len(blocks)
