"""Several adapters on one frozen base, trained together on the same batches.

The K models share the memory of the base. A batch passes once through the modules of the first
model, with its texts repeated K times: layers below the lowest adapter run once for all models,
every frozen matrix product covers the tokens of all K, and a module that the models have of their
own (an adapter, a head) gets that model's part of the rows. The losses are summed and share no
trained parameter, so each model learns as it would alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import ModulesToSaveWrapper
from torch import nn

from pennyweight.engine.batches.batcher import Batcher
from pennyweight.engine.batches.prefix import run_prefix
from pennyweight.engine.batches.rows import HiddenStates, TokenizedRows
from pennyweight.engine.kernels.families import can_mix_adapters
from pennyweight.engine.kernels.lora import is_plain_lora, lora_linear
from pennyweight.engine.train.loop import batches_of
from pennyweight.engine.train.progress import (
    Progress,
    Step,
    Timetable,
    TrainOptions,
    finish_step,
)
from pennyweight.engine.train.step import Forward, Learner, OptimizerStep, TrainContext
from pennyweight.errors import TrainingError

__all__ = ["AdapterBank", "Member", "train_together"]


@dataclass(frozen=True, slots=True)
class _Batch:
    """The batch that is running: which members it holds, and the number of rows of each.

    Attributes:
        members: indices of the members, in the order of their rows.
        tokens: tokens of each member.
        texts: texts of each member.
    """

    members: tuple[int, ...]
    tokens: int
    texts: int

    def slices(self, rows: int) -> list[slice]:
        """Return each member's slice of `rows` flat rows, which are tokens or texts."""
        count = len(self.members)
        size = self.texts if rows == self.texts * count else self.tokens
        return [slice(at * size, (at + 1) * size) for at in range(count)]

    def split(self, x: torch.Tensor) -> tuple[int, list[torch.Tensor]]:
        """Return the dimension in which members follow each other, and each member's part."""
        count = len(self.members)
        # A packed batch is one row of many tokens; otherwise rows are the first dimension.
        dim = 1 if x.ndim > 2 and x.shape[0] == 1 else 0
        size = self.tokens if dim == 1 else x.shape[0] // count
        # The last part includes the filling at the end of a packed row.
        ends = [*(at * size for at in range(1, count)), x.shape[dim]]
        parts = [x.narrow(dim, at * size, end - at * size) for at, end in enumerate(ends)]
        return dim, parts


class AdapterBank:
    """K models over one base that run as one.

    Args:
        models: PEFT models of the same base, each prepared by `prepare_model`.
        batcher: the batcher of the first model.

    Raises:
        TrainingError: a model trains something besides its adapters and head, such as biases; the
            initialization of its adapters has changed the base's weights; or the base is one in
            which a batch can have one adapter only.
    """

    def __init__(self, models: Sequence[Any], batcher: Batcher) -> None:
        self.batcher = batcher
        self._models = [model.get_base_model() for model in models]
        config = self._models[0].config
        if len(models) > 1 and not can_mix_adapters(config):
            raise TrainingError(
                f"base.name: {config.model_type} encoders cannot train several adapters at once, "
                "because their layers share embeddings of positions; train them one by one"
            )
        self._running: _Batch | None = None
        self._skippable = min(batcher.skippable_layers(model) for model in models)
        _share_frozen_weights(self._models)
        paths = {path for model in self._models for path in _trained_paths(model)}
        for path in _outermost(paths):
            self._route_members(path)

    def forward(self, members: Sequence[int]) -> Forward:
        """Return the forward pass of some of the members, for an `OptimizerStep`."""

        def forward(
            rows: TokenizedRows, indices: np.ndarray, passes: int, /
        ) -> tuple[list[list[torch.Tensor]], np.ndarray]:
            outputs = [self.logits(rows, indices, members) for _ in range(passes)]
            return [logits for logits, _ in outputs], outputs[0][1]

        return forward

    def logits(
        self, rows: TokenizedRows, indices: np.ndarray, members: Sequence[int]
    ) -> tuple[list[torch.Tensor], np.ndarray]:
        """Return each member's float32 logits `[texts, classes]`, and the indices in their order.

        Args:
            rows: tokenized rows.
            indices: int64, which of them to run.
            members: which models to run.
        """
        selected = None
        if self._skippable and rows.states is None:
            rows, selected = self._with_prefix(rows, indices)
            indices = np.arange(len(selected))
        inputs, order = self.batcher.inputs(rows, indices, copies=len(members))
        texts = len(order) // len(members)
        tokens = self.batcher.tokens_in(inputs) // len(members)
        self._running = _Batch(tuple(members), tokens, texts)
        try:
            logits = self._models[0](**inputs).logits
        finally:
            self._running = None
        order = order[:texts]
        parts = list(logits.float().chunk(len(members)))
        return parts, order if selected is None else selected[order]

    def _with_prefix(
        self, rows: TokenizedRows, indices: np.ndarray
    ) -> tuple[TokenizedRows, np.ndarray]:
        """Return some rows with the output of the layers that no member adapts, and their order."""
        inputs, order = self.batcher.inputs(rows, indices)
        with torch.no_grad():
            states = run_prefix(self._models[0], inputs, self._skippable)
        lengths = rows.lengths[order]
        starts = np.cumsum(lengths) - lengths
        count = self._models[0].config.num_hidden_layers
        remaining = HiddenStates(states, starts, range(self._skippable, count))
        return replace(rows.take(order), states=remaining), order

    def _route_members(self, path: str) -> None:
        """Make the first model's module at `path` run each member's own module on its rows."""
        modules = [model.get_submodule(path) for model in self._models]
        host: Any = modules[0]
        run_host = host.forward
        _require_one_base(path, modules)

        def forward(x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
            batch = self._running
            if batch is None:
                out: torch.Tensor = run_host(x, *args, **kwargs)
                return out
            active = [modules[member] for member in batch.members]
            if _share_a_product(active):
                slices = batch.slices(x.numel() // x.shape[-1])
                adapted = [(s, m) for s, m in zip(slices, active, strict=True) if is_plain_lora(m)]
                return lora_linear(getattr(host, "base_layer", host), x, adapted)
            dim, parts = batch.split(x)
            runs = [run_host if module is host else module for module in active]
            outputs = [run(part, *args, **kwargs) for run, part in zip(runs, parts, strict=True)]
            return torch.cat(outputs, dim=dim)

        host.forward = forward


def _share_a_product(modules: Sequence[nn.Module]) -> bool:
    """Return whether the product with the base's weight is computed once for these modules."""
    return all(is_plain_lora(module) or type(module) is nn.Linear for module in modules)


def _require_one_base(path: str, modules: Sequence[Any]) -> None:
    """Refuse modules that would be computed with the weight of the first, but have another.

    Raises:
        TrainingError: their weights differ.
    """
    if not _share_a_product(modules):
        return
    first, *others = (getattr(module, "base_layer", module).weight for module in modules)
    if not all(weight is first or torch.equal(weight, first) for weight in others):
        raise TrainingError(
            f"{path}: the weights of the base differ between adapters that are trained together, "
            "because an initialization such as PiSSA changes them; use an adapter.initialization "
            "that does not, or train them one by one"
        )


def _trained_paths(model: nn.Module) -> list[str]:
    """Return where a model has adapters and copies that are trained.

    Raises:
        TrainingError: a parameter elsewhere is trained.
    """
    paths = [
        path
        for path, module in model.named_modules()
        if isinstance(module, BaseTunerLayer | ModulesToSaveWrapper)
    ]
    for name in (name for name, p in model.named_parameters() if p.requires_grad):
        is_inside = any(name.startswith(f"{path}.") for path in paths)
        if not is_inside or ".base_layer." in name:
            raise TrainingError(
                f"{name} is trained, but adapters that are trained together share the base; "
                'use adapter.bias = "none", or train them one by one'
            )
    return paths


def _outermost(paths: set[str]) -> list[str]:
    return [
        path for path in sorted(paths) if not any(path.startswith(f"{other}.") for other in paths)
    ]


def _share_frozen_weights(models: Sequence[nn.Module]) -> None:
    """Make frozen weights of later models views of the first model's, where they are equal."""
    first = {name.replace(".base_layer", ""): p for name, p in models[0].named_parameters()}
    for model in models[1:]:
        for name, parameter in model.named_parameters():
            shared = first.get(name.replace(".base_layer", ""))
            if parameter.requires_grad or shared is None or shared.requires_grad:
                continue
            if shared.dtype == parameter.dtype and torch.equal(shared, parameter):
                parameter.data = shared.data


@dataclass(frozen=True, slots=True)
class Member:
    """One of the models that are trained together.

    Attributes:
        learner: the model with its optimizer, schedule and loss.
        evaluate: returns validation metrics of the model as it is.
        progress: state of its training; updated in place.
    """

    learner: Learner
    evaluate: Callable[[], Mapping[str, float]]
    progress: Progress


def train_together(
    bank: AdapterBank, members: Sequence[Member], rows: TokenizedRows, *, options: TrainOptions
) -> Iterator[tuple[int, Step]]:
    """Train all members on the same batches; yield a member's index and step, for each in turn.

    A member that stops early takes no part in later batches.

    Args:
        bank: the models, in the order of `members`.
        members: what each model needs for its training.
        rows: tokenized training rows.
        options: options of the loop, the same for all members.

    Raises:
        NonFiniteLossError: a loss is NaN or infinite; the message names member and step.
    """
    timetable = Timetable.of(len(rows), options)
    context = TrainContext(bank.batcher, options)
    learners = [
        replace(member.learner, name=f"adapter {number} of {len(members)}")
        for number, member in enumerate(members, start=1)
    ]
    active = list(range(len(members)))
    for learner in learners:
        learner.model.train()
    batches = batches_of(rows, options, start=0, end=timetable.last)
    for number, batch in enumerate(batches, start=1):
        started = time.perf_counter()
        take_step = OptimizerStep([learners[at] for at in active], bank.forward(active), context)
        outcomes = take_step(rows, batch, number).read()
        seconds = (time.perf_counter() - started) / len(active)
        for at, outcome in zip(tuple(active), outcomes, strict=True):
            member, progress = members[at], members[at].progress
            progress.step = number
            progress.seconds += seconds
            progress.rows += len(batch)
            evaluation = member.evaluate() if timetable.evaluates_after(number) else None
            step = finish_step(outcome, evaluation, progress, timetable=timetable, options=options)
            if step.stop is not None:
                active.remove(at)
            yield at, step
        if not active:
            return
