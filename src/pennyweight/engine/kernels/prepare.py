"""Prepare a model to train and predict fast: one ordered list of passes over its modules.

A pass changes how a model computes, in place, but not what it computes, up to rounding and the
choice of random dropout masks: leaving one out only costs time or memory. The modules, their
parameters and what is saved stay transformers' and PEFT's.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np
import torch

from pennyweight.engine.batches.batcher import Batcher, PackedBatcher, PaddedBatcher
from pennyweight.engine.batches.rows import TokenizedRows
from pennyweight.engine.device import DTYPES, Compute
from pennyweight.engine.kernels.attention import PACKED
from pennyweight.engine.kernels.compiled import compile_blocks
from pennyweight.engine.kernels.families import can_pack, family_of, unwrap
from pennyweight.engine.kernels.frozen import cast_encoder, use_fused_bias
from pennyweight.engine.kernels.int8 import use_int8_products
from pennyweight.engine.kernels.lora import share_inputs, use_fused_lora
from pennyweight.engine.kernels.masks import (
    MaskPool,
    fuse_dropout_and_residual,
    use_pooled_dropout,
)

__all__ = ["PASSES", "Pass", "Preparation", "prepare_model"]


@dataclass(frozen=True, slots=True)
class Preparation:
    """The model that passes are applied to.

    Attributes:
        model: transformers' sequence classifier, without PEFT's wrapper around it but with its
            layers inside.
        compute: device, precision and attention.
        compiled: whether torch.compile is used.
        masks: the pool of dropout masks; None for torch's own masks.
    """

    model: Any
    compute: Compute
    compiled: bool
    masks: MaskPool | None


@dataclass(frozen=True, slots=True)
class Pass:
    """One change of a model.

    Attributes:
        name: how `prepare_model(without=...)` refers to it.
        summary: one line on what it does.
        applies: returns whether the pass is of use for this model and device.
        apply: changes the model in place.
    """

    name: str
    summary: str
    applies: Callable[[Preparation], bool]
    apply: Callable[[Preparation], object]


def _always(preparation: Preparation) -> bool:
    return True


def _on_cpu(preparation: Preparation) -> bool:
    return preparation.compute.device == "cpu"


def _has_pool(preparation: Preparation) -> bool:
    return preparation.masks is not None


def _has_residual_blocks(preparation: Preparation) -> bool:
    return _on_cpu(preparation) and can_pack(preparation.model.config)


def _pool_dropout(preparation: Preparation) -> None:
    if preparation.masks is not None:
        use_pooled_dropout(preparation.model, preparation.masks)


def _fuse_residuals(preparation: Preparation) -> None:
    for block in family_of(preparation.model).residual_blocks(preparation.model.base_model):
        fuse_dropout_and_residual(block)


@cache
def _keep_freed_memory() -> None:
    """Ask glibc to keep freed blocks for the next step.

    By default glibc returns large blocks to the system and requests them again in every step, page
    by page, which takes a tenth of a training step.
    """
    if not sys.platform.startswith("linux"):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return
    trim_threshold, mmap_threshold = -1, -3  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD of malloc.h
    mallopt(mmap_threshold, 1 << 30)
    mallopt(trim_threshold, -1)  # never


_POOLED = "pooled dropout masks"
# The order matters: dropout is pooled before it is fused with residuals and LoRA, and layers share
# their inputs with the fused forward passes that they have by then.
PASSES: tuple[Pass, ...] = (
    Pass(
        "half-precision encoder",
        "Hold the frozen weights of the encoder in half precision.",
        lambda p: p.compute.precision != "fp32",
        lambda p: cast_encoder(p.model, DTYPES[p.compute.precision]),
    ),
    Pass(
        "keep freed memory",
        "Keep freed memory for the next step instead of returning it to the system.",
        _on_cpu,
        lambda _: _keep_freed_memory(),
    ),
    Pass(
        _POOLED,
        "Cut dropout masks out of a pool instead of drawing each one.",
        _has_pool,
        _pool_dropout,
    ),
    Pass(
        "fused bias",
        "Add the bias of frozen linear layers inside the matrix product.",
        _on_cpu,
        lambda p: use_fused_bias(p.model),
    ),
    Pass(
        "fused residual",
        "Apply a pooled dropout mask and add the residual in one operation.",
        _has_residual_blocks,
        _fuse_residuals,
    ),
    Pass(
        "fused LoRA",
        "Run a frozen linear layer and its LoRA adapter as one autograd function.",
        _always,
        lambda p: use_fused_lora(p.model),
    ),
    Pass(
        "shared QKV inputs",
        "Compute queries, keys and values together, with one gradient for their input.",
        lambda p: p.compute.attention == PACKED,
        lambda p: share_inputs(p.model),
    ),
    Pass(
        "compiled blocks",
        "Run torch.compile on the feed-forward blocks without adapters.",
        lambda p: p.compiled,
        lambda p: compile_blocks(p.model),
    ),
)


def prepare_model(
    model: Any,
    compute: Compute,
    *,
    max_tokens: int,
    compiled: bool = False,
    calibration: TokenizedRows | None = None,
    without: frozenset[str] = frozenset(),
) -> Batcher:
    """Apply all passes to a model, in place, and return the batcher for it.

    Args:
        model: a sequence classifier of transformers on its device, with PEFT or without, loaded
            with `compute.attention`.
        compute: device, precision and attention.
        max_tokens: number of tokens that go through the model at once.
        compiled: whether to run torch.compile on the feed-forward blocks without adapters.
        calibration: rows that show what the inputs of each layer are like; needed for int8
            products. See `engine.calibration`.
        without: names of passes to leave out, for tests and measurements.

    Raises:
        ValueError: `without` has a name that no pass has, or int8 products have no rows.
    """
    if unknown := without - {step.name for step in PASSES}:
        names = ", ".join(step.name for step in PASSES)
        raise ValueError(f"without: no pass is named {', '.join(sorted(unknown))}; passes: {names}")
    classifier = unwrap(model)
    masks = MaskPool() if compute.device == "cpu" and _POOLED not in without else None
    preparation = Preparation(classifier, compute, compiled, masks)
    for step in PASSES:
        if step.name not in without and step.applies(preparation):
            step.apply(preparation)
    batcher: Batcher = PaddedBatcher(compute.device, max_tokens, masks)
    if compute.attention == PACKED:
        batcher = PackedBatcher.attach(
            classifier, device=compute.device, max_tokens=max_tokens, masks=masks
        )
    if compute.products == "int8":
        if calibration is None:
            raise ValueError("calibration: given None; int8 products need rows")
        use_int8_products(classifier, partial(_run_rows, classifier, batcher, calibration))
    return batcher


@torch.no_grad()
def _run_rows(model: Any, batcher: Batcher, rows: TokenizedRows) -> None:
    was_training = model.training
    inputs, _ = batcher.inputs(rows, np.arange(len(rows)))
    model.eval()(**inputs)
    model.train(was_training)
