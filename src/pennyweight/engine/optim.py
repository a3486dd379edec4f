"""Optimizer and learning-rate schedule from plain values."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal

import torch
from torch import nn
from transformers import get_scheduler

__all__ = ["OPTIMIZERS", "make_optimizer", "parameter_groups", "schedule"]

Groups = Sequence[dict[str, Any]]
_LAYER = re.compile(r"\.(\d+)\.")
# What Muon may have: factors of a low-rank product. A head is no hidden layer.
_LOW_RANK = (".lora_A.", ".lora_B.")


def parameter_groups(
    model: nn.Module,
    *,
    learning_rate: float,
    weight_decay: float,
    b_ratio: float = 1.0,
    layer_decay: float = 1.0,
) -> list[dict[str, Any]]:
    """The trained parameters in groups of one learning rate and one weight decay.

    Args:
        model: PEFT's model.
        learning_rate: of A in the topmost layer, and of the head.
        weight_decay: of matrices; vectors have none.
        b_ratio: learning rate of B over that of A (LoRA+, arXiv:2402.12354).
        layer_decay: learning rate of a layer over that of the layer above it.
    """
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    depths = {name: _depth(name) for name, _ in named}
    top = max((depth for depth in depths.values() if depth is not None), default=0)
    groups: dict[tuple[float, float, bool], dict[str, Any]] = {}
    for name, parameter in named:
        depth = depths[name]
        rate = learning_rate * (layer_decay ** (top - depth) if depth is not None else 1.0)
        if ".lora_B." in name:
            rate *= b_ratio
        decay = weight_decay if parameter.ndim > 1 else 0.0
        is_low_rank = parameter.ndim == 2 and any(part in name for part in _LOW_RANK)
        group = groups.setdefault(
            (rate, decay, is_low_rank),
            {"params": [], "lr": rate, "weight_decay": decay, "is_low_rank": is_low_rank},
        )
        group["params"].append(parameter)
    return list(groups.values())


def _depth(name: str) -> int | None:
    found = _LAYER.search(name)
    return int(found[1]) if found else None


def _plain(groups: Groups) -> list[dict[str, Any]]:
    return [{k: v for k, v in group.items() if k != "is_low_rank"} for group in groups]


def _adamw(groups: Groups, options: Mapping[str, Any]) -> torch.optim.Optimizer:
    return torch.optim.AdamW(
        _plain(groups), betas=tuple(options["betas"]), eps=options["epsilon"], fused=True
    )


def _adam(groups: Groups, options: Mapping[str, Any]) -> torch.optim.Optimizer:
    return torch.optim.Adam(
        _plain(groups), betas=tuple(options["betas"]), eps=options["epsilon"], fused=True
    )


def _rmsprop(groups: Groups, options: Mapping[str, Any]) -> torch.optim.Optimizer:
    return torch.optim.RMSprop(
        _plain(groups),
        alpha=options["smoothing"],
        momentum=options["momentum"],
        eps=options["epsilon"],
    )


def _sgd(groups: Groups, options: Mapping[str, Any]) -> torch.optim.Optimizer:
    return torch.optim.SGD(
        _plain(groups), momentum=options["momentum"], nesterov=options["nesterov"], fused=True
    )


def _adafactor(groups: Groups, options: Mapping[str, Any]) -> torch.optim.Optimizer:
    return torch.optim.Adafactor(
        _plain(groups), beta2_decay=options["decay_exponent"], d=options["clip"]
    )


def _lion(groups: Groups, options: Mapping[str, Any]) -> torch.optim.Optimizer:
    from pytorch_optimizer import Lion

    made: torch.optim.Optimizer = Lion(_plain(groups), betas=tuple(options["betas"]))
    return made


def _muon(groups: Groups, options: Mapping[str, Any]) -> torch.optim.Optimizer:
    matrices = [group for group in groups if group["is_low_rank"]]
    rest = [
        {**group, "lr": group["lr"] * options["rest_learning_rate"] / options["learning_rate"]}
        for group in groups
        if not group["is_low_rank"]
    ]
    parts: list[torch.optim.Optimizer] = []
    if matrices:
        parts.append(torch.optim.Muon(_plain(matrices), momentum=options["momentum"]))
    if rest:
        parts.append(torch.optim.AdamW(_plain(rest), fused=True))
    return parts[0] if len(parts) == 1 else _Several(parts)


OPTIMIZERS: Mapping[str, Callable[[Groups, Mapping[str, Any]], torch.optim.Optimizer]] = (
    MappingProxyType(
        {
            "adamw": _adamw,
            "adam": _adam,
            "rmsprop": _rmsprop,
            "sgd": _sgd,
            "adafactor": _adafactor,
            "lion": _lion,
            "muon": _muon,
        }
    )
)


def make_optimizer(model: nn.Module, options: Mapping[str, Any]) -> torch.optim.Optimizer:
    """The optimizer called `options["method"]` over a model's trained parameters.

    Args:
        model: PEFT's model.
        options: the values of the recipe's `[optimizer]` section.
    """
    groups = parameter_groups(
        model,
        learning_rate=options["learning_rate"],
        weight_decay=options["weight_decay"],
        b_ratio=options["b_ratio"],
        layer_decay=options["layer_decay"],
    )
    return OPTIMIZERS[options["method"]](groups, options)


class _Several(torch.optim.Optimizer):
    """Optimizers over different parameters that step as one; schedules see all their groups."""

    def __init__(self, parts: Sequence[torch.optim.Optimizer]) -> None:
        self.parts = parts
        super().__init__([p for part in parts for g in part.param_groups for p in g["params"]], {})
        # The parts' own groups, so that a change of the learning rate reaches them.
        self.param_groups = [group for part in parts for group in part.param_groups]

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One step of each."""
        for part in self.parts:
            part.step(closure)

    def state_dict(self) -> dict[str, Any]:
        """Of all parts, in their order."""
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        for part, state in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        self.param_groups = [group for part in self.parts for group in part.param_groups]


def schedule(
    optimizer: torch.optim.Optimizer,
    *,
    method: Literal["linear", "cosine", "constant"],
    warmup_steps: int,
    warmup_ratio: float,
    total_steps: int,
) -> torch.optim.lr_scheduler.LRScheduler:
    """Transformers' schedule of that name, stepped once per optimizer step."""
    warmup = warmup_steps or round(warmup_ratio * total_steps)
    name = "constant_with_warmup" if method == "constant" else method
    made: torch.optim.lr_scheduler.LRScheduler = get_scheduler(
        name, optimizer, num_warmup_steps=warmup, num_training_steps=total_steps
    )
    return made
