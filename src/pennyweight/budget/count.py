"""Exact counts, of a model's parameters and of a saved adapter's tensors.

The planned count, the model's and the file's must agree. The file is the proof, because it is
what is handed in. So every element in it counts, but for what the adapter's method freezes and for
tensors that repeat another one byte by byte; both are listed with the reason.
"""

from __future__ import annotations

import math
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from pennyweight.budget.facts import read_artifact_facts
from pennyweight.budget.methods import METHODS, frozen_tensors
from pennyweight.documents import printable, read_json_table
from pennyweight.errors import RunError, first_line

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = [
    "AdapterFile",
    "LeftOut",
    "read_adapter",
    "read_shapes",
    "total_parameters",
    "trainable_sizes",
]

_SAFETENSORS = "adapter_model.safetensors"
_PICKLED = "adapter_model.bin"
_WRAPPED = re.compile(r"\.modules_to_save(?:\.[^.]+(?=\.))?")
_ORIGINAL = ".original_module."
_REPEATED = "repeats another tensor"


def trainable_sizes(model: nn.Module) -> dict[str, int]:
    """Return the number of elements of every trainable parameter, by name."""
    return {name: p.numel() for name, p in model.named_parameters() if p.requires_grad}


def total_parameters(model: nn.Module) -> int:
    """Return the number of elements of all parameters, PEFT's copy of the head included."""
    return sum(parameter.numel() for parameter in model.parameters())


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A tensor in the file that is not counted.

    Attributes:
        name: its name in the file.
        parameters: number of its elements.
        reason: why it is left out.
    """

    name: str
    parameters: int
    reason: str


@dataclass(frozen=True, slots=True)
class AdapterFile:
    """The contents of a saved PEFT adapter, read from its config and its tensors.

    Attributes:
        path: the file with the weights.
        bytes: size of that file.
        config: the adapter's `adapter_config.json`.
        trained: shape of every tensor that counts, by its name without PEFT's wrappers.
        left_out: every other tensor, with the reason.
        ranks: number of rows of each LoRA matrix A, by the module's name with PEFT's prefix.
    """

    path: Path
    bytes: int
    config: Mapping[str, Any]
    trained: Mapping[str, tuple[int, ...]]
    left_out: tuple[LeftOut, ...]
    ranks: Mapping[str, int]

    @property
    def parameters(self) -> int:
        """Number of trained parameters in the file."""
        return sum(map(math.prod, self.trained.values()))

    @property
    def aliases(self) -> tuple[str, ...]:
        """Names of the tensors that repeat another one."""
        return tuple(one.name for one in self.left_out if one.reason == _REPEATED)


def read_adapter(directory: Path, *, frozen: tuple[str, ...] | None = None) -> AdapterFile:
    """Count the tensors of any PEFT adapter; values are read only to compare repeated tensors.

    Args:
        directory: where the adapter was saved.
        frozen: parts of the names of tensors that were never trained. By default they are those of
            the PEFT method in the adapter's config, or of the method of Pennyweight that
            `pennyweight.json` names, if it is one of this PEFT method.

    Raises:
        RunError: the directory does not hold a readable adapter.
    """
    config = _read_config(directory)
    reason = "frozen by the method"
    if frozen is None:
        frozen, reason = _frozen_by(directory, str(config["peft_type"]))
    path = _weights_file(directory)
    tensors = _PickledTensors(path) if path.name == _PICKLED else _SafeTensors(path)
    trained: dict[str, tuple[int, ...]] = {}
    left_out: list[LeftOut] = []
    names: dict[str, str] = {}
    # Plain names first, so that a wrapped name becomes the repetition of a plain one.
    for name in sorted(tensors.shapes, key=lambda name: (_is_wrapped(name), name)):
        shape = tensors.shapes[name]
        plain = _WRAPPED.sub("", name).replace(_ORIGINAL, ".")
        why = None
        if any(f"{part.rstrip('.')}." in f"{name}." for part in frozen):
            why = reason
        elif plain in names and tensors.are_equal(name, names[plain]):
            why = _REPEATED
        elif _is_base_bias(name, plain, tensors.shapes, names):
            why = "the base's own bias, which PEFT stores beside the trained one"
        if why is None:
            # A different tensor under an alias' name counts under its full name.
            trained[plain if plain not in names else name] = shape
            names.setdefault(plain, name)
        else:
            left_out.append(LeftOut(name, math.prod(shape), why))
    ranks = {
        module: shape[0]
        for name, shape in tensors.shapes.items()
        for module, is_a, _ in [name.rpartition(".lora_A")]
        if is_a and shape
    }
    return AdapterFile(path, path.stat().st_size, config, trained, tuple(left_out), ranks)


def _is_wrapped(name: str) -> bool:
    return _ORIGINAL in name or bool(_WRAPPED.search(name))


def _frozen_by(directory: Path, peft_type: str) -> tuple[tuple[str, ...], str]:
    """Return the name parts of tensors that an adapter's method freezes, and who says so.

    The method in `pennyweight.json` decides only if it is one of the config's own PEFT type.
    """
    facts = read_artifact_facts(directory)
    method = METHODS.get(facts.method) if facts is not None else None
    tensors = method.tensors if method is not None else None
    if method is not None and tensors is not None and tensors.peft_type == peft_type:
        by_config = set(method.frozen) <= set(frozen_tensors(peft_type))
        source = "" if by_config else ", which pennyweight.json names as the method"
        return method.frozen, f"frozen by {method.name}{source}"
    return frozen_tensors(peft_type), f"frozen by {printable(peft_type)}"


def _is_base_bias(
    name: str, plain: str, shapes: Mapping[str, tuple[int, ...]], names: Mapping[str, str]
) -> bool:
    """Return whether a tensor is a bias of the base that PEFT saves with `bias="all"`.

    Its trained twin, of the same shape, is counted.
    """
    return (
        _ORIGINAL in name
        and name.endswith(".bias")
        and len(shapes[name]) == 1
        and plain in names
        and shapes[names[plain]] == shapes[name]
    )


def read_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor in a safetensors file, read from its header alone.

    Raises:
        RunError: the file is not a readable safetensors file.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            return {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        reason = printable(first_line(error))
        raise RunError(f"{path}: not a safetensors file: {reason}") from None


class _SafeTensors:
    """The tensors of a safetensors file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.shapes = read_shapes(path)

    def are_equal(self, one: str, other: str) -> bool:
        """Return whether two tensors hold the same bytes."""
        if self.shapes[one] != self.shapes[other]:
            return False
        # NumPy lacks some dtypes, such as bfloat16.
        with safe_open(self._path, framework="pt") as file:
            return _same_bytes(file.get_tensor(one), file.get_tensor(other))


class _PickledTensors:
    """The tensors of a file that `torch.save` wrote, read as tensors only.

    Raises:
        RunError: it is compressed, or holds anything else.
    """

    def __init__(self, path: Path) -> None:
        _check_stored(path)
        import torch

        try:
            tensors = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except Exception as error:  # noqa: BLE001 - torch raises many kinds for a broken or unsafe file
            reason = printable(first_line(error))
            raise RunError(f"{path}: cannot be read as tensors: {reason}") from None
        if not isinstance(tensors, dict) or not all(
            isinstance(name, str) and torch.is_tensor(tensor) for name, tensor in tensors.items()
        ):
            raise RunError(f"{path}: cannot be read as tensors: not a table of names and tensors")
        self._tensors = tensors
        self.shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}

    def are_equal(self, one: str, other: str) -> bool:
        """Return whether two tensors hold the same bytes."""
        return _same_bytes(self._tensors[one], self._tensors[other])


def _same_bytes(one: torch.Tensor, other: torch.Tensor) -> bool:
    import torch

    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    return torch.equal(*(each.contiguous().reshape(-1).view(torch.uint8) for each in (one, other)))


def _check_stored(path: Path) -> None:
    """Refuse a file of tensors that is not a ZIP archive of uncompressed parts.

    `torch.save` writes no other, and a compressed part may be thousands of times larger than the
    file.

    Raises:
        RunError: it is something else.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            is_stored = all(part.compress_type == zipfile.ZIP_STORED for part in archive.infolist())
    except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError) as error:
        raise RunError(
            f"{path}: cannot be read as tensors: {printable(first_line(error))}"
        ) from None
    if not is_stored:
        raise RunError(f"{path}: cannot be read as tensors: its parts are compressed")


def _read_config(directory: Path) -> dict[str, Any]:
    path = directory / "adapter_config.json"
    if not path.is_file():
        raise RunError(
            f"{directory}: not a PEFT adapter: adapter_config.json is missing; give the directory "
            "that save_pretrained wrote (of a run: RUN/adapter)"
        )
    try:
        config = read_json_table(path)
    except (OSError, ValueError) as error:
        raise RunError(f"{path}: cannot be read: {error}") from None
    if not isinstance(config.get("peft_type"), str):
        raise RunError(f"{path}: not the config of a PEFT adapter: peft_type is missing")
    return config


def _weights_file(directory: Path) -> Path:
    for name in (_SAFETENSORS, _PICKLED):
        if (directory / name).is_file():
            return directory / name
    raise RunError(f"{directory}: has neither {_SAFETENSORS} nor {_PICKLED}")
