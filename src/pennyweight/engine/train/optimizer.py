"""Optimizers and learning-rate schedules, built from plain values."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

import torch
from torch import nn
from transformers import get_scheduler

from pennyweight.budget.layout import layer_of
from pennyweight.errors import TrainingError

__all__ = [
    "OPTIMIZERS",
    "OptimizerMethod",
    "OptimizerOptions",
    "ScheduleOptions",
    "make_optimizer",
    "make_scheduler",
    "parameter_groups",
]

Groups = Sequence[dict[str, Any]]
# Muon orthogonalizes the factors of low-rank products; it is not meant for classification heads.
_B = ".lora_B."
_LOW_RANK = (".lora_A.", _B)


@dataclass(frozen=True, slots=True)
class ScheduleOptions:
    """A learning-rate schedule.

    Attributes:
        method: shape after the warm-up.
        warmup_steps: optimizer steps of linear warm-up.
        warmup_ratio: the same as a share of all steps, used when `warmup_steps` is 0.
    """

    method: Literal["linear", "cosine", "constant"]
    warmup_steps: int = 0
    warmup_ratio: float = 0.0


@dataclass(frozen=True, slots=True)
class OptimizerOptions:
    """An optimizer and its schedule.

    Attributes:
        method: a key of `OPTIMIZERS`.
        learning_rate: peak learning rate of the A matrices in the topmost layer and of the head.
        weight_decay: weight decay of matrices; vectors have none.
        b_ratio: learning rate of B over that of A (LoRA+, arXiv:2402.12354).
        layer_decay: learning rate of a layer over that of the layer above it.
        schedule: learning rate over the optimizer steps.
        extra: the method's own options, under their recipe names.
    """

    method: str
    learning_rate: float
    weight_decay: float
    b_ratio: float = 1.0
    layer_decay: float = 1.0
    schedule: ScheduleOptions = ScheduleOptions("linear")
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class OptimizerMethod:
    """One row of the table of optimizers.

    Attributes:
        name: the value of `optimizer.method` in a recipe.
        summary: one line for listings.
        paper: where the method was published.
        build: returns the optimizer over parameter groups.
    """

    name: str
    summary: str
    paper: str
    build: Callable[[Groups, OptimizerOptions], torch.optim.Optimizer]


def parameter_groups(model: nn.Module, options: OptimizerOptions) -> list[dict[str, Any]]:
    """Return the trained parameters, grouped by learning rate and weight decay.

    Args:
        model: a PEFT model, or any model whose trained parameters require gradients.
        options: learning rate, weight decay, `b_ratio` and `layer_decay`.

    Returns:
        Groups for a torch optimizer. The extra key `is_low_rank` marks factors of low-rank
        products.

    Raises:
        TrainingError: `b_ratio` is set, and the adapter has no matrices B.
    """
    # peft.optimizers.create_loraplus_optimizer sets one ratio of B to A, but it knows neither
    # layer-wise decay nor which matrices Muon takes.
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    if options.b_ratio != 1.0 and not any(_B in name for name, _ in named):
        raise TrainingError(
            f"optimizer.b_ratio: given {options.b_ratio:g}, but this adapter has no matrices B; "
            "leave it out"
        )
    layers = {name: layer_of(name) for name, _ in named}
    top = max((layer for layer in layers.values() if layer is not None), default=0)
    groups: dict[tuple[float, float, bool], dict[str, Any]] = {}
    for name, parameter in named:
        layer = layers[name]
        rate = options.learning_rate * (
            options.layer_decay ** (top - layer) if layer is not None else 1.0
        )
        if _B in name:
            rate *= options.b_ratio
        decay = options.weight_decay if parameter.ndim > 1 else 0.0
        is_low_rank = parameter.ndim == 2 and any(part in name for part in _LOW_RANK)
        group = groups.setdefault(
            (rate, decay, is_low_rank),
            {"params": [], "lr": rate, "weight_decay": decay, "is_low_rank": is_low_rank},
        )
        group["params"].append(parameter)
    return list(groups.values())


def make_optimizer(model: nn.Module, options: OptimizerOptions) -> torch.optim.Optimizer:
    """Return the optimizer `options.method` over a model's trained parameters."""
    return OPTIMIZERS[options.method].build(parameter_groups(model, options), options)


def make_scheduler(
    optimizer: torch.optim.Optimizer, options: ScheduleOptions, *, total_steps: int
) -> torch.optim.lr_scheduler.LRScheduler:
    """Return transformers' schedule of that name, to be stepped once per optimizer step.

    Args:
        optimizer: its groups' present learning rates are the peak.
        options: shape and warm-up.
        total_steps: optimizer steps of the whole run.
    """
    warmup = options.warmup_steps or round(options.warmup_ratio * total_steps)
    name = "constant_with_warmup" if options.method == "constant" else options.method
    scheduler: torch.optim.lr_scheduler.LRScheduler = get_scheduler(
        name, optimizer, num_warmup_steps=warmup, num_training_steps=total_steps
    )
    return scheduler


def _plain(groups: Groups) -> list[dict[str, Any]]:
    return [{k: v for k, v in group.items() if k != "is_low_rank"} for group in groups]


def _adamw(groups: Groups, options: OptimizerOptions) -> torch.optim.Optimizer:
    betas, epsilon = tuple(options.extra["betas"]), options.extra["epsilon"]
    return torch.optim.AdamW(_plain(groups), betas=betas, eps=epsilon, fused=True)


def _adam(groups: Groups, options: OptimizerOptions) -> torch.optim.Optimizer:
    betas, epsilon = tuple(options.extra["betas"]), options.extra["epsilon"]
    return torch.optim.Adam(_plain(groups), betas=betas, eps=epsilon, fused=True)


def _rmsprop(groups: Groups, options: OptimizerOptions) -> torch.optim.Optimizer:
    return torch.optim.RMSprop(
        _plain(groups),
        alpha=options.extra["smoothing"],
        momentum=options.extra["momentum"],
        eps=options.extra["epsilon"],
    )


def _sgd(groups: Groups, options: OptimizerOptions) -> torch.optim.Optimizer:
    momentum, nesterov = options.extra["momentum"], options.extra["nesterov"]
    return torch.optim.SGD(_plain(groups), momentum=momentum, nesterov=nesterov, fused=True)


def _adafactor(groups: Groups, options: OptimizerOptions) -> torch.optim.Optimizer:
    decay, clip = options.extra["decay_exponent"], options.extra["clip"]
    return torch.optim.Adafactor(_plain(groups), beta2_decay=decay, d=clip)


def _lion(groups: Groups, options: OptimizerOptions) -> torch.optim.Optimizer:
    from pytorch_optimizer import Lion

    lion: torch.optim.Optimizer = Lion(_plain(groups), betas=tuple(options.extra["betas"]))
    return lion


def _muon(groups: Groups, options: OptimizerOptions) -> torch.optim.Optimizer:
    matrices = [group for group in groups if group["is_low_rank"]]
    rest = [
        {**group, "lr": group["lr"] * options.extra["rest_learning_rate"] / options.learning_rate}
        for group in groups
        if not group["is_low_rank"]
    ]
    parts: list[torch.optim.Optimizer] = []
    if matrices:
        parts.append(torch.optim.Muon(_plain(matrices), momentum=options.extra["momentum"]))
    if rest:
        parts.append(torch.optim.AdamW(_plain(rest), fused=True))
    return parts[0] if len(parts) == 1 else _CombinedOptimizer(parts)


class _CombinedOptimizer(torch.optim.Optimizer):
    """Optimizers over different parameters that step as one; schedules see all their groups."""

    def __init__(self, parts: Sequence[torch.optim.Optimizer]) -> None:
        self.parts = parts
        super().__init__([p for part in parts for g in part.param_groups for p in g["params"]], {})
        # The parts' own groups, so that a change of the learning rate reaches them.
        self.param_groups = [group for part in parts for group in part.param_groups]

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Step every part."""
        for part in self.parts:
            part.step(closure)

    def state_dict(self) -> dict[str, Any]:
        """Return the state of all parts, in their order."""
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore a state that `state_dict` returned."""
        for part, state in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        self.param_groups = [group for part in self.parts for group in part.param_groups]


_ROWS = (
    OptimizerMethod(
        "adamw",
        "Adam with decoupled weight decay",
        "Loshchilov & Hutter 2019, arXiv:1711.05101",
        _adamw,
    ),
    OptimizerMethod(
        "adam",
        "adaptive moments; weight decay is part of the gradient",
        "Kingma & Ba 2015, arXiv:1412.6980",
        _adam,
    ),
    OptimizerMethod(
        "rmsprop",
        "gradients divided by a running average of their size",
        "Tieleman & Hinton 2012, COURSERA: Neural Networks for Machine Learning, lecture 6.5",
        _rmsprop,
    ),
    OptimizerMethod(
        "sgd",
        "stochastic gradient descent with momentum",
        "Sutskever et al. 2013, On the importance of initialization and momentum, ICML",
        _sgd,
    ),
    OptimizerMethod(
        "adafactor",
        "factored second moments, with the recipe's learning rate",
        "Shazeer & Stern 2018, arXiv:1804.04235",
        _adafactor,
    ),
    OptimizerMethod("lion", "the sign of a momentum", "Chen et al. 2023, arXiv:2302.06675", _lion),
    OptimizerMethod(
        "muon",
        "orthogonalized momentum on low-rank matrices, AdamW on the rest",
        "Jordan et al. 2024, Muon: An optimizer for hidden layers in neural networks",
        _muon,
    ),
)
OPTIMIZERS: Mapping[str, OptimizerMethod] = MappingProxyType({row.name: row for row in _ROWS})
