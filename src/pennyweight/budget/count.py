"""Exact counts: from a model, and from a saved adapter file's header.

The three must agree: what was planned, what the model trains, what the file holds. The file is
the proof, because it is what is handed in.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from pennyweight.errors import RunError

__all__ = ["AdapterFile", "read_adapter", "read_shapes", "total_parameters", "trainable_sizes"]

_SAFETENSORS = "adapter_model.safetensors"
_PICKLED = "adapter_model.bin"
_WRAPPED = re.compile(r"\.modules_to_save(?:\.[^.]+(?=\.))?")
_ORIGINAL = ".original_module."


def trainable_sizes(model: nn.Module) -> dict[str, int]:
    """Number of elements of every parameter that the optimizer may change, by name."""
    return {name: p.numel() for name, p in model.named_parameters() if p.requires_grad}


def total_parameters(model: nn.Module) -> int:
    """Number of elements of all parameters, adapters and PEFT's copy of the head included."""
    return sum(parameter.numel() for parameter in model.parameters())


@dataclass(frozen=True, slots=True)
class AdapterFile:
    """What a saved PEFT adapter says of itself.

    Attributes:
        path: the file with the weights.
        config: the adapter's `adapter_config.json`.
        shapes: shape of every tensor, by its canonical name, aliases removed.
        aliases: names in the file that repeat another tensor or hold an untrained original.
        bytes: size of the file.
    """

    path: Path
    config: Mapping[str, Any]
    shapes: Mapping[str, tuple[int, ...]]
    aliases: tuple[str, ...]
    bytes: int

    @property
    def parameters(self) -> int:
        """Number of trained parameters in the file."""
        # VeRA's shared random matrices are stored, and never trained.
        return self.trained((".vera_A", ".vera_B"))

    def trained(self, frozen: tuple[str, ...]) -> int:
        """Number of parameters but for tensors whose names hold one of these parts."""
        return sum(
            math.prod(shape)
            for name, shape in self.shapes.items()
            if not any(part in name for part in frozen)
        )

    def dropped(self, cost_of_rank: Mapping[str, int]) -> int:
        """Number of parameters of the ranks that AdaLoRA has dropped; 0 with other methods.

        Args:
            cost_of_rank: parameters per rank of each matrix, by its name.
        """
        if self.config["peft_type"] != "ADALORA":
            return 0
        kept: Mapping[str, list[bool]] = self.config.get("rank_pattern") or {}
        return sum(
            ranks.count(False) * cost
            for key, ranks in kept.items()
            for name, cost in cost_of_rank.items()
            if f"{name}.lora_E" in key
        )


def read_adapter(directory: Path) -> AdapterFile:
    """Read config and shapes of any PEFT adapter; of safetensors only the header is read.

    Raises:
        RunError: the directory holds no adapter that can be read.
    """
    config_file = directory / "adapter_config.json"
    if not config_file.is_file():
        raise RunError(
            f"{directory}: no PEFT adapter: adapter_config.json is missing; name the directory "
            "that save_pretrained wrote (of a run: RUN/adapter)"
        )
    try:
        config = json.loads(config_file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{config_file}: cannot be read: {error}") from None
    if not isinstance(config, dict) or "peft_type" not in config:
        raise RunError(f"{config_file}: not a PEFT adapter's config: peft_type is missing")
    path, shapes = _shapes(directory)
    kept, aliases = _without_aliases(shapes)
    return AdapterFile(path, config, kept, aliases, path.stat().st_size)


def read_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Shape of every tensor in a safetensors file, from its header alone.

    Raises:
        RunError: it is none.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise RunError(f"{path}: not a safetensors file: {error}") from None


def _shapes(directory: Path) -> tuple[Path, dict[str, tuple[int, ...]]]:
    path = directory / _SAFETENSORS
    if path.is_file():
        return path, read_shapes(path)
    path = directory / _PICKLED
    if not path.is_file():
        raise RunError(f"{directory}: neither {_SAFETENSORS} nor {_PICKLED} is there")
    try:
        tensors = torch.load(path, map_location="meta", weights_only=True)
    except Exception as error:  # noqa: BLE001 - torch raises many kinds for a broken or unsafe file
        raise RunError(f"{path}: cannot be read as tensors: {str(error).splitlines()[0]}") from None
    if not isinstance(tensors, dict) or not all(map(torch.is_tensor, tensors.values())):
        raise RunError(f"{path}: cannot be read as tensors: it is no table of names and tensors")
    return path, {key: tuple(tensor.shape) for key, tensor in tensors.items()}


def _without_aliases(
    shapes: Mapping[str, tuple[int, ...]],
) -> tuple[dict[str, tuple[int, ...]], tuple[str, ...]]:
    """Each trained tensor once: with `bias="all"` PEFT stores the head's biases three times."""
    kept: dict[str, tuple[int, ...]] = {}
    aliases = []
    # Plain names first, so that a wrapped name is the alias of a plain one and not the reverse.
    for name in sorted(shapes, key=lambda name: bool(_WRAPPED.search(name))):
        canonical = _WRAPPED.sub("", name)
        if _ORIGINAL in name or canonical in kept:
            aliases.append(name)
            continue
        kept[canonical] = shapes[name]
    return kept, tuple(aliases)
