"""The prefix cache: the output of the layers below the lowest adapter, computed once per row.

Those layers are frozen, so with dropout off they return the same hidden states in every epoch. The
states are stored in the encoder's dtype, all rows concatenated, and batches start from them.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import psutil
import torch
from torch import nn

from pennyweight.engine.batches.batcher import Batcher
from pennyweight.engine.batches.rows import HiddenStates, TokenizedRows
from pennyweight.engine.kernels.families import family_of, unwrap
from pennyweight.engine.kernels.frozen import product_of
from pennyweight.errors import TrainingError
from pennyweight.files import building_in, replacing
from pennyweight.wording import byte_size

__all__ = ["PrefixCache", "cache_prefix", "run_prefix"]

Where = Literal["disk", "device"]


@dataclass(frozen=True, slots=True)
class PrefixCache:
    """The place where hidden states are cached.

    Attributes:
        where: "disk" for a memory-mapped file in `directory`, which later runs use too; "device"
            for the memory of the device that trains.
        directory: the directory of cached states.
        log: receives one line with the size before anything is computed.
    """

    where: Where
    directory: Path
    log: Callable[[str], None]


def cache_prefix(
    model: Any,
    rows: TokenizedRows,
    *,
    batcher: Batcher,
    cache: PrefixCache,
    layers: int | None = None,
) -> TokenizedRows:
    """Return the rows with the hidden states that enter the lowest layer with an adapter.

    Args:
        model: a classifier prepared by `prepare_model`.
        rows: the rows.
        batcher: the model's batcher.
        cache: where the states are stored.
        layers: number of lowest layers to skip; by default, all below the lowest adapter.

    Raises:
        TrainingError: batches are padded, an adapter sits in the lowest layer, or the states do not
            fit; the message gives the sizes.
    """
    layers = _cacheable_layers(model, batcher, layers)
    hidden = int(unwrap(model).config.hidden_size)
    total = int(rows.lengths.sum())
    dtype = next(p.dtype for p in _prefix_parameters(model, layers) if p.is_floating_point())
    size = total * hidden * dtype.itemsize
    summary = f"prefix cache: {byte_size(size)} for {layers} frozen layers of {len(rows):,} rows"

    def compute(flat: torch.Tensor) -> None:
        for tokens, states in _prefix_states(model, rows, batcher, layers):
            flat[tokens] = states

    if cache.where == "device":
        cache.log(f"{summary}, in memory")
        _check_memory(size, batcher.device)
        flat = torch.empty((total, hidden), dtype=dtype, device=batcher.device)
        compute(flat)
    else:
        path = cache.directory / f"{_identity(model, rows, layers)}.states"
        if path.is_file():
            cache.log(f"{summary}, read from {path}")
        else:
            cache.log(f"{summary}, written to {path} and kept for later runs")
            _check_disk(size, path)
            with building_in(path.parent), replacing(path) as part:
                flat = torch.from_file(str(part), shared=True, size=total * hidden, dtype=dtype)
                compute(flat.view(total, hidden))
        flat = torch.from_file(str(path), size=total * hidden, dtype=dtype).view(total, hidden)
    count = len(family_of(model).layers(unwrap(model).base_model))
    return replace(rows, states=HiddenStates(flat, _starts(rows), range(layers, count)))


def _cacheable_layers(model: Any, batcher: Batcher, layers: int | None) -> int:
    skippable = batcher.skippable_layers(model)
    layers = skippable if layers is None else min(layers, skippable)
    if layers == 0:
        raise TrainingError(
            "train.prefix_cache: no layer can be cached; caching needs packed batches "
            "(--set base.attention=packed) and frozen lowest layers and embeddings (with --set "
            "adapter.top_layers=N, adapters are in the top N layers only); or use "
            "--set train.prefix_cache=off"
        )
    return layers


def _starts(rows: TokenizedRows) -> np.ndarray:
    ends = np.cumsum(rows.lengths, dtype=np.int64)
    starts: np.ndarray = ends - rows.lengths
    return starts


def _prefix_modules(model: Any, layers: int) -> list[nn.Module]:
    """Return the embeddings and the lowest `layers` layers, with everything in them."""
    encoder = unwrap(model).base_model
    parts = [encoder.embeddings, getattr(encoder, "embeddings_project", None)]
    parts += list(family_of(model).layers(encoder))[:layers]
    return [module for part in parts if part is not None for module in part.modules()]


def _prefix_parameters(model: Any, layers: int) -> list[torch.Tensor]:
    """Return the frozen weights of the embeddings and the lowest `layers` layers."""
    return [p for m in _prefix_modules(model, layers) for p in m.parameters(recurse=False)]


def _identity(model: Any, rows: TokenizedRows, layers: int) -> str:
    """Return a hash of the rows, and of the layers below the lowest adapter and their products."""
    digest = hashlib.sha256(f"{rows.fingerprint}|{len(rows)}|{layers}".encode())
    digest.update(rows.lengths.tobytes())
    for module in _prefix_modules(model, layers):
        if isinstance(module, nn.Linear):
            digest.update(type(product_of(module)).__name__.encode())
    for parameter in _prefix_parameters(model, layers):
        digest.update(str(parameter.dtype).encode())
        digest.update(parameter.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()[:32]


def _prefix_states(
    model: Any, rows: TokenizedRows, batcher: Batcher, layers: int
) -> Iterator[tuple[slice, torch.Tensor]]:
    """Yield each row's tokens among those of all rows, and their states, without dropout."""
    classifier = unwrap(model)
    starts = _starts(rows)
    by_length = np.argsort(rows.lengths, kind="stable")
    was_training = classifier.training
    classifier.eval()
    try:
        for piece in batcher.pieces(rows, by_length):
            inputs, indices = batcher.inputs(rows, piece)
            with torch.no_grad():
                states = run_prefix(model, inputs, layers)
            end = 0
            for index in indices:
                length = int(rows.lengths[index])
                tokens = slice(int(starts[index]), int(starts[index]) + length)
                yield tokens, states[end : end + length]
                end += length
    finally:
        classifier.train(was_training)


def run_prefix(model: Any, inputs: dict[str, Any], layers: int) -> torch.Tensor:
    """Return the hidden states `[tokens, hidden]` after the lowest layers, for packed inputs.

    Args:
        model: a classifier that reads packed batches.
        inputs: inputs of a `PackedBatcher`, with token ids.
        layers: number of lowest layers to run, from 1.
    """
    encoder = unwrap(model).base_model
    last = family_of(model).layers(encoder)[layers - 1]
    outputs: list[torch.Tensor] = []
    hook = last.register_forward_hook(lambda _, args, out: outputs.append(out))
    try:
        encoder(**{**inputs, "packing": replace(inputs["packing"], layers=range(layers))})
    finally:
        hook.remove()
    return outputs[0].squeeze(0)


def _check_disk(size: int, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(path.parent).free
    if size > free:
        raise TrainingError(
            f"train.prefix_cache: {byte_size(size)} do not fit on the disk of {path.parent}, "
            f"which has {byte_size(free)} left; free some space, set PENNYWEIGHT_CACHE to another "
            "disk, or use --set train.prefix_cache=off"
        )


def _check_memory(size: int, device: str) -> None:
    is_cuda = device.startswith("cuda")
    free = torch.cuda.mem_get_info()[0] if is_cuda else psutil.virtual_memory().available
    # Training needs the other half.
    if size > free // 2:
        raise TrainingError(
            f"train.prefix_cache: {byte_size(size)} are more than half of the {byte_size(free)} of "
            "free memory; use --set train.prefix_cache=disk, or off"
        )
