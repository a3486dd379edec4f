"""Exact counts, of a model's parameters and of a saved adapter's tensors.

The planned count, the model's and the file's must agree. The file is the proof, because it is
what is handed in.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from pennyweight.budget.facts import read_artifact_facts
from pennyweight.budget.methods import frozen_tensors
from pennyweight.errors import RunError

if TYPE_CHECKING:
    from torch import nn

__all__ = ["AdapterFile", "read_adapter", "read_shapes", "total_parameters", "trainable_sizes"]

_SAFETENSORS = "adapter_model.safetensors"
_PICKLED = "adapter_model.bin"
_WRAPPED = re.compile(r"\.modules_to_save(?:\.[^.]+(?=\.))?")
_ORIGINAL = ".original_module."


def trainable_sizes(model: nn.Module) -> dict[str, int]:
    """Return the number of elements of every trainable parameter, by name."""
    return {name: p.numel() for name, p in model.named_parameters() if p.requires_grad}


def total_parameters(model: nn.Module) -> int:
    """Return the number of elements of all parameters, PEFT's copy of the head included."""
    return sum(parameter.numel() for parameter in model.parameters())


@dataclass(frozen=True, slots=True)
class AdapterFile:
    """The contents of a saved PEFT adapter, read from its config and file header.

    Attributes:
        path: the file with the weights.
        bytes: size of that file.
        config: the adapter's `adapter_config.json`.
        shapes: shape of every tensor by its canonical name, without the aliases.
        aliases: names in the file that repeat another tensor or hold an untrained original.
        frozen: parts of the names of tensors that are stored and were never trained.
    """

    path: Path
    bytes: int
    config: Mapping[str, Any]
    shapes: Mapping[str, tuple[int, ...]]
    aliases: tuple[str, ...]
    frozen: tuple[str, ...]

    @property
    def parameters(self) -> int:
        """Number of trained parameters in the file."""
        return sum(math.prod(shape) for shape in self.trained.values())

    @property
    def trained(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the trained tensors, by name."""
        return {
            name: shape
            for name, shape in self.shapes.items()
            if not any(part in name for part in self.frozen)
        }


def read_adapter(directory: Path, *, frozen: tuple[str, ...] | None = None) -> AdapterFile:
    """Read the config and tensor shapes of any PEFT adapter; of safetensors the header only.

    Args:
        directory: where the adapter was saved.
        frozen: parts of the names of tensors that were never trained. By default they come from
            `pennyweight.json` or, for adapters of other software, from the PEFT method.

    Raises:
        RunError: the directory does not hold a readable adapter.
    """
    config = _read_config(directory)
    if frozen is None:
        facts = read_artifact_facts(directory)
        frozen = facts.frozen if facts else frozen_tensors(str(config["peft_type"]))
    path, shapes = _read_weights(directory)
    canonical, aliases = _without_aliases(shapes)
    return AdapterFile(path, path.stat().st_size, config, canonical, aliases, frozen)


def read_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor in a safetensors file, read from its header alone.

    Raises:
        RunError: the file is not a readable safetensors file.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            return {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise RunError(f"{path}: not a safetensors file: {error}") from None


def _read_config(directory: Path) -> dict[str, Any]:
    path = directory / "adapter_config.json"
    if not path.is_file():
        raise RunError(
            f"{directory}: not a PEFT adapter: adapter_config.json is missing; give the directory "
            "that save_pretrained wrote (of a run: RUN/adapter)"
        )
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{path}: cannot be read: {error}") from None
    if not isinstance(config, dict) or "peft_type" not in config:
        raise RunError(f"{path}: not the config of a PEFT adapter: peft_type is missing")
    return config


def _read_weights(directory: Path) -> tuple[Path, dict[str, tuple[int, ...]]]:
    """Return the weights' file and the shapes in it; a pickle is read as tensors only."""
    path = directory / _SAFETENSORS
    if path.is_file():
        return path, read_shapes(path)
    path = directory / _PICKLED
    if not path.is_file():
        raise RunError(f"{directory}: has neither {_SAFETENSORS} nor {_PICKLED}")
    import torch

    try:
        tensors = torch.load(path, map_location="meta", weights_only=True)
    except Exception as error:  # noqa: BLE001 - torch raises many kinds for a broken or unsafe file
        raise RunError(f"{path}: cannot be read as tensors: {str(error).splitlines()[0]}") from None
    if not isinstance(tensors, dict) or not all(map(torch.is_tensor, tensors.values())):
        raise RunError(f"{path}: cannot be read as tensors: not a table of names and tensors")
    return path, {key: tuple(tensor.shape) for key, tensor in tensors.items()}


def _without_aliases(
    shapes: Mapping[str, tuple[int, ...]],
) -> tuple[dict[str, tuple[int, ...]], tuple[str, ...]]:
    """Return each tensor once: with `bias="all"` PEFT stores the head's biases three times."""
    canonical: dict[str, tuple[int, ...]] = {}
    aliases = []
    # Plain names first, so that a wrapped name becomes the alias of a plain one.
    for name in sorted(shapes, key=lambda name: bool(_WRAPPED.search(name))):
        plain = _WRAPPED.sub("", name)
        if _ORIGINAL in name or plain in canonical:
            aliases.append(name)
            continue
        canonical[plain] = shapes[name]
    return canonical, tuple(aliases)
