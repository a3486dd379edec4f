"""Several adapters on one frozen base, trained at once on the same batches.

The K models share the base's memory. A batch goes through the first one's modules K times end to
end: the layers below the lowest adapter run once for all, every frozen product runs over the
tokens of all K, and where a model has something of its own (an adapter, a head) it gets its part
of the rows. Losses are summed and share no parameter, so each model learns as if it were alone.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import ModulesToSaveWrapper
from torch import nn

from pennyweight.engine.batch import States, Tokens, targets
from pennyweight.engine.feed import Feed
from pennyweight.engine.loop import (
    Progress,
    Settings,
    Step,
    batches_of,
    judge,
    seed_step,
    total_steps,
)
from pennyweight.engine.lora import is_plain_lora, lora_linear
from pennyweight.engine.objective import Objective
from pennyweight.engine.prefix import frozen_layers, run_prefix
from pennyweight.errors import NonFiniteLossError, TrainingError

__all__ = ["Member", "Together", "train_together"]


@dataclass(frozen=True, slots=True)
class _Now:
    """The batch under way: whose rows it holds, and how many rows each has."""

    members: tuple[int, ...]
    tokens: int
    texts: int

    def slices(self, rows: int) -> list[slice]:
        """Each member's part of flat rows: of tokens, or of texts."""
        count = len(self.members)
        part = self.texts if rows == self.texts * count else self.tokens
        return [slice(at * part, (at + 1) * part) for at in range(count)]


class Together:
    """K models over one base that can run as one.

    Args:
        models: PEFT models of the same base, each made ready (`make_ready`).
        feed: the first one's.

    Raises:
        TrainingError: a model trains something outside its adapters and heads (biases).
    """

    def __init__(self, models: Sequence[Any], feed: Feed) -> None:
        self.feed = feed
        self._inner = [model.get_base_model() for model in models]
        self._now: _Now | None = None
        self._frozen = 0
        if feed.first_position is not None:
            self._frozen = min(frozen_layers(model) for model in models)
        _share_frozen_weights(self._inner)
        paths = {path for inner in self._inner for path in _own_paths(inner)}
        for path in _outermost(paths):
            self._let_parts_differ(path)

    def logits(
        self, tokens: Tokens, rows: np.ndarray, members: Sequence[int]
    ) -> tuple[list[torch.Tensor], np.ndarray]:
        """Each member's logits `[texts, classes]` for some rows, and the rows in their order."""
        asked = None
        if self._frozen and tokens.states is None:
            tokens, asked = self._above_prefix(tokens, rows)
            rows = np.arange(len(asked))
        inputs, order = self.feed.inputs(tokens, rows, copies=len(members))
        texts = len(order) // len(members)
        packing = inputs.get("packing")
        per_member = (inputs["input_ids"].numel() if packing is None else packing.tokens) // len(
            members
        )
        self._now = _Now(tuple(members), per_member, texts)
        try:
            logits = self._inner[0](**inputs).logits
        finally:
            self._now = None
        order = order[:texts]
        return list(logits.float().chunk(len(members))), order if asked is None else asked[order]

    def _above_prefix(self, tokens: Tokens, rows: np.ndarray) -> tuple[Tokens, np.ndarray]:
        """The rows, in their order now, with what the layers that no member adapts make of them."""
        inputs, order = self.feed.inputs(tokens, rows)
        with torch.no_grad():
            states = run_prefix(self._inner[0], inputs, self._frozen)
        lengths = tokens.lengths[order]
        starts = np.cumsum(lengths) - lengths
        count = self._inner[0].config.num_hidden_layers
        above = States(states, starts, range(self._frozen, count))
        return replace(tokens.take(order), states=above), order

    def _let_parts_differ(self, path: str) -> None:
        """Where members have modules of their own, each gets its part of the rows."""
        own = [inner.get_submodule(path) for inner in self._inner]
        host: Any = own[0]
        alone = host.forward

        def forward(x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
            now = self._now
            if now is None:
                out: torch.Tensor = alone(x, *args, **kwargs)
                return out
            mine = [own[member] for member in now.members]
            slices = now.slices(x.numel() // x.shape[-1])
            if all(is_plain_lora(module) or type(module) is nn.Linear for module in mine):
                parts = [(s, m) for s, m in zip(slices, mine, strict=True) if is_plain_lora(m)]
                return lora_linear(getattr(host, "base_layer", host), x, parts)
            # A packed row is one batch of many tokens; elsewhere rows come first.
            along = 1 if x.ndim > 2 and x.shape[0] == 1 else 0
            outs = []
            for at, (member, module) in enumerate(zip(now.members, mine, strict=True)):
                size = x.shape[along] // len(mine) if along == 0 else now.tokens
                # What only fills up the row goes with the last.
                end = x.shape[along] if at == len(mine) - 1 else (at + 1) * size
                part = x.narrow(along, at * size, end - at * size)
                outs.append((alone if member == 0 else module)(part, *args, **kwargs))
            return torch.cat(outs, dim=along)

        host.forward = forward


def _own_paths(inner: nn.Module) -> list[str]:
    """Where a model has trained modules; nothing else of it may be trained."""
    found = [
        path
        for path, module in inner.named_modules()
        if isinstance(module, BaseTunerLayer | ModulesToSaveWrapper)
    ]
    trained = [name for name, p in inner.named_parameters() if p.requires_grad]
    for name in trained:
        outside = not any(name.startswith(f"{path}.") for path in found)
        if outside or ".base_layer." in name:
            raise TrainingError(
                f"{name} is trained, which adapters that are trained together cannot do: they "
                'share the base; use adapter.bias = "none", or train them one by one'
            )
    return found


def _outermost(paths: set[str]) -> list[str]:
    return [
        path for path in sorted(paths) if not any(path.startswith(f"{other}.") for other in paths)
    ]


def _share_frozen_weights(models: Sequence[nn.Module]) -> None:
    """Let the later models' frozen weights be views of the first one's, where they are equal."""
    first = {name.replace(".base_layer", ""): p for name, p in models[0].named_parameters()}
    for model in models[1:]:
        for name, parameter in model.named_parameters():
            known = first.get(name.replace(".base_layer", ""))
            if parameter.requires_grad or known is None or known.requires_grad:
                continue
            if known.dtype == parameter.dtype and torch.equal(known, parameter):
                parameter.data = known.data


@dataclass(slots=True)
class Member:
    """One of the models that are trained together, with what is its own in training.

    Attributes:
        model: PEFT's model.
        optimizer: over its parameters.
        scheduler: of its learning rate.
        objective: what it makes small.
        progress: how far it has come.
        evaluate: measures it on validation.
    """

    model: Any
    optimizer: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.LRScheduler
    objective: Objective
    progress: Progress
    evaluate: Callable[[], Mapping[str, float]]


def train_together(
    group: Together, members: Sequence[Member], tokens: Tokens, *, settings: Settings
) -> Iterator[tuple[int, Step]]:
    """Train all members on the same batches; yields each one's number and step, in turn.

    A member that early stopping ends leaves the batches that follow.

    Raises:
        NonFiniteLossError: a member's loss is NaN or infinite; the text names member and step.
    """
    last = total_steps(len(tokens), settings)
    steps_per_epoch = math.ceil(len(tokens) / settings.batch_rows)
    every = settings.evaluate_every or steps_per_epoch
    active = list(range(len(members)))
    for member in members:
        member.model.train()
    for number, batch in enumerate(batches_of(tokens, settings, start=0, end=last), start=1):
        began = time.perf_counter()
        rates = {at: float(members[at].scheduler.get_last_lr()[0]) for at in active}
        done = _optimize(group, members, active, tokens, batch, settings, number)
        seconds = (time.perf_counter() - began) / len(active)
        for at in tuple(active):
            member, progress = members[at], members[at].progress
            progress.step = number
            progress.seconds += seconds
            progress.rows += len(batch)
            is_due = number == last or number % every == 0
            evaluation = member.evaluate() if is_due else None
            member.model.train()
            is_best, stop = judge(progress, evaluation, settings)
            if stop is not None:
                active.remove(at)
            yield (
                at,
                Step(
                    step=number,
                    epoch=number / steps_per_epoch,
                    loss=done[at][0],
                    learning_rate=rates[at],
                    gradient_norm=done[at][1],
                    rows_per_second=progress.rows / progress.seconds,
                    seconds=progress.seconds,
                    evaluation=evaluation,
                    is_best=is_best,
                    stop="all steps done" if number == last else stop,
                ),
            )
        if not active:
            return


def _optimize(
    group: Together,
    members: Sequence[Member],
    active: Sequence[int],
    tokens: Tokens,
    batch: np.ndarray,
    settings: Settings,
    step: int,
) -> dict[int, tuple[float, float]]:
    """One optimizer step of every active member; each one's mean loss and gradient norm."""
    seed_step(group.feed, settings.seed, step)
    totals = torch.zeros(len(active))
    pieces = group.feed.pieces(tokens, batch, copies=len(active))
    for index, piece in enumerate(pieces):
        objectives = [members[at].objective for at in active]
        for objective in objectives:
            objective.begin(len(piece), seed=(settings.seed, step, 0, index))
        passes, rows = [], piece
        for _ in range(max(of.passes for of in objectives)):
            logits, rows = group.logits(tokens, piece, active)
            passes.append(logits)
        wanted = targets(tokens, rows, passes[0][0].device)
        losses = torch.stack(
            [
                of.of_rows([logits[number] for logits in passes[: of.passes]], wanted)
                for number, of in enumerate(objectives)
            ]
        ) / len(batch)
        totals += losses.detach().cpu()
        together = losses.sum()
        if index == len(pieces) - 1:
            together = together + sum(of.penalty() for of in objectives)
        torch.autograd.backward(together)
    found = {}
    for at, loss in zip(active, totals.tolist(), strict=True):
        if not math.isfinite(loss):
            raise NonFiniteLossError(
                f"step {step}: the loss of adapter {at + 1} of {len(members)} is {loss}; "
                f"rows of the batch: {', '.join(map(str, batch))}"
            )
        trained = [p for p in members[at].model.parameters() if p.requires_grad]
        norm = nn.utils.clip_grad_norm_(trained, settings.max_gradient_norm or math.inf)
        members[at].optimizer.step()
        members[at].optimizer.zero_grad(set_to_none=True)
        members[at].scheduler.step()
        found[at] = (loss, float(norm))
    return found
