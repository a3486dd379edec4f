"""Changes of module outputs: read from PEFT's layers, applied to some rows of a batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from peft.tuners.adalora import SVDLinear
from peft.tuners.beft.layer import Linear as BeftLinear
from peft.tuners.lora import Linear as LoraLinear
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import ModulesToSaveWrapper
from torch.nn import functional

from pennyweight.budget.methods import METHODS, Method
from pennyweight.errors import RunError

__all__ = ["OutputUpdate", "UpdateReader", "is_same", "require_updates"]

# PEFT's types of the methods whose layers `_LAYERS` reads.
_PEFT_TYPES = frozenset({"LORA", "ADALORA", "BEFT"})
# More columns than the rank of a product, so that random ones span it without doubt.
_SPARE = 8


@dataclass(frozen=True, slots=True)
class OutputUpdate:
    """The change of a module's output y = f(x): scale y + shift + up (down x).

    Attributes:
        down: float32 `[rank, in]`; None without a low-rank product.
        up: float32 `[out, rank]`, with the adapter's scaling; None together with `down`.
        scale: float32 `[out]`; None for 1.
        shift: float32 `[out]`; None for 0.
    """

    down: torch.Tensor | None = None
    up: torch.Tensor | None = None
    scale: torch.Tensor | None = None
    shift: torch.Tensor | None = None

    def apply(self, x: torch.Tensor, y: torch.Tensor) -> None:
        """Change outputs in place.

        The low-rank product is computed in float32: in bfloat16, oneDNN compiles a kernel for every
        new number of rows, which takes longer than the product.

        Args:
            x: inputs of the module, `[..., in]`.
            y: its outputs, `[..., out]`.
        """
        if self.scale is not None:
            y.mul_(self.scale)
        if self.shift is not None:
            y.add_(self.shift)
        if self.down is not None and self.up is not None:
            y.add_(functional.linear(functional.linear(x.float(), self.down), self.up))

    def to(self, device: torch.device | str) -> OutputUpdate:
        """Return a copy on a device, of no more than these values."""
        return OutputUpdate(
            *(
                None if tensor is None else tensor.detach().to(device, copy=True).contiguous()
                for tensor in (self.down, self.up, self.scale, self.shift)
            )
        )

    @property
    def bytes(self) -> int:
        """The bytes of all values."""
        tensors = (self.down, self.up, self.scale, self.shift)
        return sum(tensor.nbytes for tensor in tensors if tensor is not None)


def _is_readable(method: Method) -> bool:
    return method.tensors is not None and method.tensors.peft_type in _PEFT_TYPES


def require_updates(method: Method, directory: Path) -> None:
    """Refuse a method that does more than change the outputs of modules.

    Args:
        method: the adapter method.
        directory: of the adapter, inside its run's.

    Raises:
        RunError: the method cannot share a base.
    """
    if not _is_readable(method):
        raise _refusal(
            directory, f"its method, {method.name}, does more than change outputs of modules"
        )


def _refusal(directory: Path, reason: str) -> RunError:
    shareable = [name for name, method in METHODS.items() if _is_readable(method)]
    return RunError(
        f"{directory.parent}: cannot share its base with other classifiers: {reason}; this works "
        f"with {', '.join(shareable)}. Use it alone with Classifier.load, or write it as a model "
        f"of its own with: pennyweight merge {directory.parent} --out DIR"
    )


class UpdateReader:
    """Reads the changes of an encoder from PEFT's layers, and refuses what cannot be read.

    Args:
        directory: of the adapter, for messages.
        originals: the encoder's weights before the adapter was loaded, by name.
    """

    def __init__(self, directory: Path, originals: Mapping[str, torch.Tensor]) -> None:
        self._directory = directory
        self._originals = originals

    def read(self, classifier: Any) -> dict[str, OutputUpdate]:
        """Return the changes of the encoder's modules, by name.

        Args:
            classifier: with PEFT's layers, but without its wrapper around the model.

        Raises:
            RunError: the adapter changes more than the outputs of modules.
        """
        encoder, prefix = classifier.base_model, classifier.base_model_prefix
        pooler = f"{prefix}.pooler"
        updates: dict[str, OutputUpdate] = {}
        for path, module in encoder.named_modules(prefix=prefix):
            if path.startswith(pooler):
                continue
            if isinstance(module, ModulesToSaveWrapper):
                raise self._refuse(f"{path} is trained in full")
            if isinstance(module, BaseTunerLayer):
                updates[path] = self._of_layer(path, module)
        for name, parameter in encoder.named_parameters(prefix=prefix):
            path, _, kind = name.replace(".base_layer", "").rpartition(".")
            original = self._originals.get(f"{path}.{kind}")
            if original is None or path.startswith(pooler):
                continue
            update, unchanged = updates.get(path, OutputUpdate()), is_same(parameter, original)
            if kind == "bias" and not (unchanged and update.scale is None):
                updates[path] = _with_bias(update, parameter, original)
            elif not unchanged and type(classifier.get_submodule(path)) is not LoraLinear:
                raise self._refuse(f"{name} differs from the base's")
        return updates

    def _of_layer(self, path: str, layer: Any) -> OutputUpdate:
        read = _LAYERS.get(type(layer))
        if read is None or len(layer.active_adapters) != 1:
            raise self._refuse(f"{path} is a layer of the type {type(layer).__name__}")
        variants = getattr(layer, "lora_variant", {})
        is_known = set(variants) == set(getattr(layer, "lora_magnitude_vector", {}))
        if not is_known or any(getattr(layer, "lora_bias", {}).values()):
            raise self._refuse(f"{path} has a variant of LoRA other than DoRA")
        return read(layer, self._originals[f"{path}.weight"])

    def _refuse(self, reason: str) -> RunError:
        return _refusal(self._directory, reason)


def is_same(parameter: torch.Tensor, original: torch.Tensor) -> bool:
    """Return whether two tensors are in the same memory, or have equal values."""
    return parameter.data_ptr() == original.data_ptr() or torch.equal(parameter, original)


def _with_bias(update: OutputUpdate, bias: torch.Tensor, original: torch.Tensor) -> OutputUpdate:
    """Return an update that replaces the base's bias, which its scale would change as well."""
    shift = bias - (original if update.scale is None else update.scale * original)
    return replace(update, shift=shift if update.shift is None else update.shift + shift)


def _of_lora(layer: LoraLinear, original: torch.Tensor) -> OutputUpdate:
    """Return the change of LoRA (arXiv:2106.09685) or DoRA (arXiv:2402.09353, section 4)."""
    (name,) = layer.active_adapters
    down = layer.lora_A[name].weight.float()
    up = layer.lora_B[name].weight.float() * layer.scaling[name]
    weight = layer.base_layer.weight
    scale = None
    if name in layer.lora_magnitude_vector:
        norms = torch.linalg.norm(weight + up @ down, dim=1)
        scale = layer.lora_magnitude_vector[name].weight / norms
    if not is_same(weight, original):
        more_up, more_down = _factors(weight - original, down.shape[0])
        up, down = torch.cat([up, more_up], dim=1), torch.cat([down, more_down])
    if scale is not None:
        up = scale[:, None] * up
    return OutputUpdate(down, up, scale)


def _factors(product: torch.Tensor, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return factors `[rows, r]` and `[r, columns]` of a matrix of no more than a rank.

    Its image is spanned by random combinations of its columns (Halko et al. 2011, arXiv:0909.4061).
    """
    generator = torch.Generator().manual_seed(0)
    columns = min(rank + _SPARE, *product.shape)
    mixed = product @ torch.randn(product.shape[1], columns, generator=generator).to(product)
    basis, values, _ = torch.linalg.svd(mixed, full_matrices=False)
    basis = basis[:, : min(rank, len(values))]
    return basis, basis.t() @ product


def _of_adalora(layer: SVDLinear, original: torch.Tensor) -> OutputUpdate:
    """Return the change of AdaLoRA (arXiv:2303.10512, section 3.1), scaled as PEFT does."""
    (name,) = layer.active_adapters
    scaling = layer.scaling[name] / (layer.ranknum[name] + 1e-5)
    return OutputUpdate(layer.lora_A[name] * layer.lora_E[name], layer.lora_B[name] * scaling)


def _of_beft(layer: BeftLinear, original: torch.Tensor) -> OutputUpdate:
    (name,) = layer.active_adapters
    return OutputUpdate(shift=layer.beft_bias[name].flatten())


_LAYERS: Mapping[type, Callable[[Any, torch.Tensor], OutputUpdate]] = MappingProxyType(
    {LoraLinear: _of_lora, SVDLinear: _of_adalora, BeftLinear: _of_beft}
)
