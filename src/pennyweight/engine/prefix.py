"""The prefix cache: what the layers below the lowest adapter make of every row, computed once.

Those layers are frozen, so with dropout off they give the same hidden states in every epoch. They
are stored in the encoder's dtype, a flat row of tokens, and batches start above them.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import psutil
import torch
from torch import nn

from pennyweight.engine.batch import States, Tokens
from pennyweight.engine.feed import Feed
from pennyweight.engine.pack import FAMILIES
from pennyweight.errors import TrainingError
from pennyweight.files import replacing

__all__ = ["frozen_layers", "run_prefix", "with_states"]

Where = Literal["disk", "device"]


def frozen_layers(model: Any) -> int:
    """How many of the lowest layers come before the first trained parameter.

    At most all but the last layer: the last one is where texts are narrowed to what the head reads.
    """
    encoder = _inner(model).base_model
    layers = FAMILIES[_inner(model).config.model_type].layers(encoder)
    below = [getattr(encoder, "embeddings", None), getattr(encoder, "embeddings_project", None)]
    if any(_is_trained(module) for module in below if module is not None):
        return 0
    adapted = [index for index, layer in enumerate(layers) if _is_trained(layer)]
    return min(adapted, default=len(layers) - 1)


def with_states(
    model: Any,
    tokens: Tokens,
    *,
    feed: Feed,
    where: Where,
    cache: Path,
    say: Callable[[str], None],
    layers: int | None = None,
) -> Tokens:
    """The same rows with the hidden states that enter the lowest adapted layer.

    Args:
        model: ready to run (`make_ready`), packed.
        tokens: the rows.
        feed: how the model is fed.
        where: "disk" keeps them in `cache`, memory-mapped, for later runs too; "device" in the
            memory of the device that trains.
        cache: the directory of cached states.
        say: gets one line with the size before anything is computed.
        layers: how many of the lowest layers; left out, all that come before an adapter.

    Raises:
        TrainingError: batches are not packed, an adapter sits in the lowest layer, or there is no
            room; the text gives the sizes.
    """
    layers = _cacheable_layers(model, feed, layers)
    hidden = int(_inner(model).config.hidden_size)
    total = int(tokens.lengths.sum())
    dtype = next(p.dtype for p in _prefix_parameters(model, layers) if p.is_floating_point())
    size = total * hidden * dtype.itemsize
    what = f"prefix cache: {_amount(size)} for {layers} frozen layers of {len(tokens):,} rows"
    if where == "device":
        say(f"{what}, in memory")
        _refuse_without_memory(size, feed.device)
        flat = torch.empty((total, hidden), dtype=dtype, device=feed.device)
        _compute(model, tokens, feed, layers, flat)
    else:
        path = cache / f"{_identity(model, tokens, layers)}.states"
        if path.is_file():
            say(f"{what}, from {path}")
        else:
            say(f"{what}, into {path}, which is kept for later runs")
            _write(
                path, size, lambda flat: _compute(model, tokens, feed, layers, flat), hidden, dtype
            )
        flat = torch.from_file(str(path), size=total * hidden, dtype=dtype).view(total, hidden)
    count = len(FAMILIES[_inner(model).config.model_type].layers(_inner(model).base_model))
    states = States(flat, _starts(tokens), range(layers, count))
    return replace(tokens, states=states)


def _cacheable_layers(model: Any, feed: Feed, layers: int | None) -> int:
    if feed.first_position is None:
        raise TrainingError(
            "train.prefix_cache: needs packed batches; use --set base.attention=packed, "
            "or --set train.prefix_cache=off"
        )
    layers = frozen_layers(model) if layers is None else layers
    if layers == 0:
        raise TrainingError(
            "train.prefix_cache: nothing to cache, the lowest layer or the embeddings are trained; "
            "keep adapters out of the lowest layers (rank 0 by pattern), "
            "or --set train.prefix_cache=off"
        )
    return layers


def _inner(model: Any) -> Any:
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _is_trained(module: nn.Module) -> bool:
    return any(p.requires_grad for p in module.parameters())


def _starts(tokens: Tokens) -> np.ndarray:
    ends = np.cumsum(tokens.lengths, dtype=np.int64)
    starts: np.ndarray = ends - tokens.lengths
    return starts


def _prefix_parameters(model: Any, layers: int) -> list[torch.Tensor]:
    """The frozen weights below the first adapted layer."""
    inner = _inner(model)
    encoder = inner.base_model
    inside = [encoder.embeddings, getattr(encoder, "embeddings_project", None)]
    inside += list(FAMILIES[inner.config.model_type].layers(encoder))[:layers]
    return [p for module in inside if module is not None for p in module.parameters()]


def _identity(model: Any, tokens: Tokens, layers: int) -> str:
    """The same for the same rows through the same weights."""
    found = hashlib.sha256(f"{tokens.fingerprint}|{len(tokens)}|{layers}".encode())
    found.update(tokens.lengths.tobytes())
    for parameter in _prefix_parameters(model, layers):
        found.update(str(parameter.dtype).encode())
        found.update(parameter.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return found.hexdigest()[:32]


@torch.no_grad()
def _compute(model: Any, tokens: Tokens, feed: Feed, layers: int, flat: torch.Tensor) -> None:
    """Fill `flat` with the output of layer `layers` - 1 for every token, dropout off."""
    inner = _inner(model)
    starts = _starts(tokens)
    by_length = np.argsort(tokens.lengths, kind="stable")
    was_training = inner.training
    inner.eval()
    try:
        for piece in feed.pieces(tokens, by_length):
            inputs, rows = feed.inputs(tokens, piece)
            states = run_prefix(model, inputs, layers)
            at = 0
            for row in rows:
                length = int(tokens.lengths[row])
                flat[starts[row] : starts[row] + length] = states[at : at + length]
                at += length
    finally:
        inner.train(was_training)


def run_prefix(model: Any, inputs: dict[str, Any], layers: int) -> torch.Tensor:
    """Hidden states `[tokens, hidden]` after the lowest `layers` layers, for packed inputs."""
    encoder = _inner(model).base_model
    last = FAMILIES[_inner(model).config.model_type].layers(encoder)[layers - 1]
    seen: list[torch.Tensor] = []
    hook = last.register_forward_hook(lambda _, args, out: seen.append(out))
    try:
        encoder(**{**inputs, "packing": replace(inputs["packing"], layers=range(layers))})
    finally:
        hook.remove()
    return seen[0].squeeze(0)


def _write(
    path: Path,
    size: int,
    compute: Callable[[torch.Tensor], None],
    hidden: int,
    dtype: torch.dtype,
) -> None:
    """Compute into a file that appears under its name only when it is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(path.parent).free
    if size > free:
        raise TrainingError(
            f"train.prefix_cache: {_amount(size)} do not fit on the disk of {path.parent}, "
            f"which has {_amount(free)} left; free some, set PENNYWEIGHT_CACHE to another disk, "
            "or --set train.prefix_cache=off"
        )
    with replacing(path) as part:
        count = size // dtype.itemsize
        flat = torch.from_file(str(part), shared=True, size=count, dtype=dtype)
        compute(flat.view(-1, hidden))


def _refuse_without_memory(size: int, device: str) -> None:
    is_cuda = device.startswith("cuda")
    free = torch.cuda.mem_get_info()[0] if is_cuda else psutil.virtual_memory().available
    # Half of what is free stays for training.
    if size > free // 2:
        raise TrainingError(
            f"train.prefix_cache: {_amount(size)} are more than half of the {_amount(free)} of "
            "free memory; use --set train.prefix_cache=disk, or off"
        )


def _amount(size: int) -> str:
    return f"{size / 1e9:,.2f} GB" if size >= 1e8 else f"{size / 1e6:,.2f} MB"
