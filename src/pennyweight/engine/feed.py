"""How a model is made ready to run fast, and how rows are fed to it: packed or padded.

`make_ready` changes a model in place (a frozen encoder in half precision, fused adapters, cheap
dropout masks, packing) and returns the `Feed` that turns rows into its inputs. The modules, their
parameters and what is saved stay transformers' and PEFT's.
"""

from __future__ import annotations

import ctypes
import sys
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from pennyweight.engine.attention import PACKED
from pennyweight.engine.batch import Tokens, collate, send
from pennyweight.engine.compiled import compile_blocks
from pennyweight.engine.device import DTYPES, Compute
from pennyweight.engine.frozen import hold_encoder_in, use_fused_bias
from pennyweight.engine.lora import share_inputs, use_fused_lora
from pennyweight.engine.masks import MaskPool, drop_and_add_at_once, use_pooled_dropout
from pennyweight.engine.pack import FAMILIES, can_pack, pack, read_packed

__all__ = ["Feed", "make_ready"]


@dataclass(frozen=True, slots=True)
class Feed:
    """Turns rows into a model's inputs.

    Attributes:
        device: where the inputs go.
        most_tokens: that go through the model at once, filling included.
        first_position: the position id of a text's first token; None for padded batches.
        masks: where dropout masks come from; None for torch's own.
    """

    device: str
    most_tokens: int
    first_position: int | None
    masks: MaskPool | None = None

    def inputs(
        self, tokens: Tokens, rows: np.ndarray, *, copies: int = 1
    ) -> tuple[dict[str, Any], np.ndarray]:
        """The model's keyword arguments for some rows, and the rows in the order of its logits.

        With `copies`, all the rows follow each other that many times.
        """
        if self.first_position is not None:
            return pack(
                tokens,
                rows,
                first_position=self.first_position,
                copies=copies,
                masks=self.masks,
                device=self.device,
            )
        rows = np.tile(rows, copies)
        padded = collate(tokens, rows)
        return {key: send(value, self.device) for key, value in padded.items()}, rows

    def pieces(self, tokens: Tokens, rows: np.ndarray, *, copies: int = 1) -> list[np.ndarray]:
        """The rows, sorted by length, in as few pieces of even size as `most_tokens` allows."""
        if len(rows) == 0:
            return [rows]
        rows = rows[np.argsort(tokens.lengths[rows], kind="stable")]
        lengths = tokens.lengths[rows]
        most = self.most_tokens // copies
        for count in range(max(1, -(-int(lengths.sum()) // most)), len(rows)):
            pieces = np.array_split(np.arange(len(rows)), count)
            if all(self._cost(lengths[piece]) <= most for piece in pieces):
                return [rows[piece] for piece in pieces]
        return [rows[at : at + 1] for at in range(len(rows))]

    def _cost(self, lengths: np.ndarray) -> int:
        if self.first_position is not None:
            return int(lengths.sum())
        return int(lengths.max()) * len(lengths)


def make_ready(model: Any, compute: Compute, *, most_tokens: int, compiled: bool = False) -> Feed:
    """Make a model fast in place, and say how it wants to be fed.

    Args:
        model: a sequence classifier of transformers on its device, with PEFT's layers or without;
            loaded with `compute.attention`.
        compute: device and precision.
        most_tokens: see `Feed`.
        compiled: whether to run torch.compile over the feed-forward blocks without adapters.
    """
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    if compute.precision != "fp32":
        hold_encoder_in(inner, DTYPES[compute.precision])
    masks = None
    if compute.device == "cpu":
        _keep_freed_memory()
        masks = MaskPool()
        use_pooled_dropout(inner, masks)
        use_fused_bias(inner)
        if can_pack(inner.config):
            for block in FAMILIES[inner.config.model_type].residuals(inner.base_model):
                drop_and_add_at_once(block)
    use_fused_lora(model)
    if compute.attention == PACKED:
        share_inputs(inner)
    if compiled:
        compile_blocks(inner)
    first_position = None
    if compute.attention == PACKED:
        read_packed(inner)
        first_position = FAMILIES[inner.config.model_type].first_position(inner.config)
    return Feed(compute.device, most_tokens, first_position, masks)


@cache
def _keep_freed_memory() -> None:
    """Ask glibc to keep freed blocks for the next step.

    By default it gives large ones back to the system and takes them again at every step, page by
    page: a tenth of the time of a training step.
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
