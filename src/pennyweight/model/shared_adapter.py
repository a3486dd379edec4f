"""Trained adapters as changes of one shared encoder, each with a head of its own.

Adapters of LoRA's kind change what a linear layer returns by terms that are cheap to compute beside
the frozen product. An encoder whose weights stay as they are can therefore serve any number of
adapters at the same time. A loaded adapter holds these terms and its head; every frozen weight that
it has in common with the base stays in the base's memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import peft
import torch
from peft.utils import ModulesToSaveWrapper
from safetensors import safe_open
from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling

from pennyweight.base import BaseModel, skeleton
from pennyweight.budget.layout import layout_of
from pennyweight.budget.methods import Method
from pennyweight.model.artifact import FRESH_WEIGHTS, load_adapter, readable
from pennyweight.model.build import BaseOptions, load_base
from pennyweight.model.output_updates import OutputUpdate, UpdateReader, is_same, require_updates
from pennyweight.model.quantize import dequantized

__all__ = [
    "SharedAdapter",
    "SharedBase",
    "base_identity",
    "load_shared_adapter",
    "load_shared_base",
]

Pooling = Literal["first", "mean"]

# What PEFT puts before the name of every module.
_PREFIX = "base_model.model."


@dataclass(frozen=True, slots=True)
class SharedAdapter:
    """The difference that a trained adapter makes to a shared encoder.

    Attributes:
        updates: the changes of the encoder's modules, by the names of these.
        head: the run's classifier without its encoder: returns logits from `inputs_embeds`, the
            encoder's last hidden states, and their `attention_mask`.
        output_layer: the layer of the head that computes the logits.
        pooling: whether the head reads the first token or the mean over the tokens.
        bytes: of all tensors that the base does not hold.
    """

    updates: Mapping[str, OutputUpdate]
    head: Any
    output_layer: nn.Linear
    pooling: Pooling
    bytes: int


@dataclass(frozen=True, slots=True)
class SharedBase:
    """A frozen base that adapters are loaded for.

    Attributes:
        identity: tells bases apart whose encoders have other weights.
        model: a plain classifier with frozen weights, of which only the encoder is used.
        parameters: the weights that the base's checkpoint holds, by name.
    """

    identity: str
    model: PreTrainedModel
    parameters: dict[str, nn.Parameter]

    def weights(self) -> dict[str, torch.Tensor]:
        """Return the weights in the memory, dtype and device that they have now."""
        return {name: parameter.detach() for name, parameter in self.parameters.items()}

    @property
    def device(self) -> torch.device:
        """The device of the model."""
        return next(self.model.parameters()).device

    def add(self, model: nn.Module, fresh: frozenset[str]) -> None:
        """Keep the weights of the checkpoint that a model has and this one has not.

        A base that was loaded for a head on pooled states lacks the layers of native heads.

        Args:
            model: loaded from the same checkpoint.
            fresh: the names of its weights that the checkpoint lacks.
        """
        for name, parameter in model.named_parameters():
            if name not in fresh and name not in self.parameters:
                # A copy, because the tensor may keep the whole file mapped.
                copied = parameter.detach().to(self.device, copy=True)
                self.parameters[name] = nn.Parameter(copied, requires_grad=False)


def load_shared_base(base: BaseModel, options: BaseOptions) -> SharedBase:
    """Return a base in float32 on the CPU, for adapters that were trained on it.

    Raises:
        BaseModelError: its weights cannot be loaded.
    """
    loaded, fresh = load_base(base, options)
    model = dequantized(loaded).requires_grad_(False).eval()
    parameters = {name: p for name, p in model.named_parameters() if name not in fresh}
    return SharedBase(base_identity(base, options), model, parameters)


def base_identity(base: BaseModel, options: BaseOptions) -> str:
    """Return a description of a base that differs where its encoder has other weights."""
    local = base.origin in ("embedded", "directory")
    name = str(Path(base.location).resolve()) if base.origin == "directory" else base.name
    parts = [name if local or base.revision is None else f"{name} at {base.revision}"]
    if options.weights == "random":
        parts.append(f"with random weights of seed {options.seed}")
    if options.quantization != "none":
        parts.append(f"in {options.quantization}")
    return " ".join(parts)


def load_shared_adapter(
    shared: SharedBase, base: BaseModel, directory: Path, *, method: Method, options: BaseOptions
) -> SharedAdapter:
    """Return a saved adapter for a shared base.

    PEFT loads it onto a model that has its weights in the memory of the shared base, and nothing of
    that model but the head is kept. The base's files are read again only where the method needs
    weights that the shared base does not have in float32.

    Args:
        shared: the base that is in memory.
        base: the same base, with the classes and the head of the adapter's run.
        directory: the adapter's directory.
        method: the adapter method.
        options: how the base was loaded for training.

    Raises:
        RunError: the method cannot share a base, or the adapter does not fit the base.
        BaseModelError: the base's weights cannot be loaded.
    """
    require_updates(method, directory)
    weights = shared.weights()
    plain = None if _needs_own_base(weights, directory) else _borrowed(base, weights, directory)
    is_own = plain is None
    if plain is None:
        loaded, fresh = load_base(base, options)
        plain = dequantized(loaded)
        if options.weights == "pretrained":
            shared.add(plain, fresh)
            weights = shared.weights()
    output = layout_of(plain, labels=base.config.num_labels).head_output.name
    named = plain.base_model.named_parameters(prefix=plain.base_model_prefix)
    # Some initializations change weights in place.
    originals = {
        name: parameter.detach().clone() if is_own else weights[name]
        for name, parameter in named
        if is_own or name in weights
    }
    model = load_adapter(plain, directory).requires_grad_(False)
    with torch.no_grad():
        updates = UpdateReader(directory, originals).read(model.get_base_model())
    head = _head_of(model.get_base_model()).to(shared.device)
    updates = {path: update.to(shared.device) for path, update in updates.items()}
    own = _share_equal_weights(head, weights)
    output_layer: Any = head.get_submodule(output)
    is_mean = getattr(base.config, "classifier_pooling", "cls") == "mean"
    return SharedAdapter(
        updates=MappingProxyType(updates),
        head=head,
        output_layer=output_layer,
        pooling="mean" if is_mean else "first",
        bytes=own + sum(update.bytes for update in updates.values()),
    )


def _needs_own_base(weights: Mapping[str, torch.Tensor], directory: Path) -> bool:
    """Return whether the adapter is loaded onto a copy of the base, from its files."""
    with readable(directory):
        config = peft.PeftConfig.from_pretrained(str(directory))
    # Initializations with a name, such as PiSSA, may change the base's weights when PEFT loads the
    # adapter; DoRA's norms of rows are those of the exact weights.
    changes_base = isinstance(getattr(config, "init_lora_weights", True), str)
    is_exact = all(tensor.dtype == torch.float32 for tensor in weights.values())
    return changes_base or (getattr(config, "use_dora", False) and not is_exact)


def _borrowed(
    base: BaseModel, weights: Mapping[str, torch.Tensor], directory: Path
) -> PreTrainedModel | None:
    """Return a classifier whose frozen matrices are in the memory of the shared base.

    Vectors are copied, because loading an adapter may overwrite biases. Tensors that the adapter's
    files hold are left to be loaded. None if neither they nor the shared base have all tensors.
    """
    model: Any = skeleton(base)
    files = [directory / "adapter_model.safetensors", directory / FRESH_WEIGHTS]
    stored: set[str] = set()
    with readable(directory):
        for file in files:
            if file.is_file():
                with safe_open(file, framework="pt") as tensors:
                    stored |= {name.removeprefix(_PREFIX) for name in tensors.keys()}  # noqa: SIM118
    state: dict[str, torch.Tensor] = {}
    for name, parameter in model.named_parameters():
        if name in weights and weights[name].shape == parameter.shape:
            state[name] = weights[name].clone() if parameter.ndim == 1 else weights[name]
        elif name in stored:
            state[name] = torch.empty(parameter.shape)
        else:
            return None
    model.load_state_dict(state, strict=False, assign=True)
    plain: PreTrainedModel = model.requires_grad_(False).eval()
    return plain


class _GivenStates(nn.Module):
    """Takes the place of a classifier's encoder, and returns hidden states that are given to it.

    Args:
        pooler: of the encoder, which belongs to the head; None if it has none.
    """

    def __init__(self, pooler: nn.Module | None) -> None:
        super().__init__()
        self.pooler = pooler

    def forward(
        self, *args: Any, inputs_embeds: torch.Tensor, **kwargs: Any
    ) -> BaseModelOutputWithPooling:
        pooled = None if self.pooler is None else self.pooler(inputs_embeds)
        return BaseModelOutputWithPooling(last_hidden_state=inputs_embeds, pooler_output=pooled)


def _head_of(classifier: Any) -> nn.Module:
    """Return a classifier without its encoder; the modules of its head are those of PEFT's copies.

    The classifier is consumed.
    """
    pooler = getattr(classifier.base_model, "pooler", None)
    setattr(classifier, classifier.base_model_prefix, _GivenStates(pooler))
    for path, module in list(classifier.named_modules()):
        if isinstance(module, ModulesToSaveWrapper):
            parent, _, child = path.rpartition(".")
            trained = module.modules_to_save["default"]
            setattr(classifier.get_submodule(parent), child, trained)
    head: nn.Module = classifier.eval()
    return head


def _share_equal_weights(head: nn.Module, weights: Mapping[str, torch.Tensor]) -> int:
    """Move weights that equal the base's into its memory; return the bytes of the others."""
    own = 0
    for name, parameter in head.named_parameters():
        shared = weights.get(name.replace(".base_layer", ""))
        if (
            shared is not None
            and shared.dtype == parameter.dtype
            and shared.shape == parameter.shape
            and is_same(parameter, shared)
        ):
            parameter.data = shared
        else:
            # A copy, because the tensor may keep the whole file of the base mapped.
            parameter.data = parameter.detach().clone()
            own += parameter.nbytes
    return own
