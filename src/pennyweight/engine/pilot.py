"""Measure the importance of ranks by a short training with AdaLoRA (arXiv:2303.10512).

The importance of a rank is that of its singular value plus the mean importances of its two singular
vectors; each is the smoothed product of weight and gradient, times its uncertainty (section 3.2).
PEFT's rank allocator computes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import peft
import torch

from pennyweight.budget.peft_warnings import ignore_expected_warnings
from pennyweight.engine.batches.rows import TokenizedRows
from pennyweight.engine.sensitivity import Probe, loss_of

__all__ = ["PilotOptions", "importance_of_ranks"]

_ADAPTER = "default"
# AdaLoRA's own defaults.
_SMOOTHING = 0.85


@dataclass(frozen=True, slots=True)
class PilotOptions:
    """How the pilot is trained.

    Attributes:
        rank: of every matrix.
        steps: number of optimizer steps.
        batch_rows: rows in each step.
        learning_rate: of AdamW, constant.
    """

    rank: int
    steps: int
    batch_rows: int
    learning_rate: float


def importance_of_ranks(probe: Probe, options: PilotOptions) -> dict[str, np.ndarray]:
    """Train a pilot and return the importance of each rank, the largest first, by matrix.

    The probe's model gets adapters and cannot be measured again.

    Args:
        probe: the model, with a fitted output layer, and the rows to train on.
        options: how it is trained.
    """
    with torch.random.fork_rng(devices=[]), ignore_expected_warnings():
        torch.manual_seed(probe.seed)
        model: Any = peft.get_peft_model(probe.model, _config(probe, options))
        model.train()
        optimizer = torch.optim.AdamW(
            [p for p in model.parameters() if p.requires_grad], lr=options.learning_rate
        )
        draw = np.random.default_rng(probe.seed)
        allocator = model.base_model.rankallocator
        for _ in range(options.steps):
            rows = draw.permutation(len(probe.rows))[: options.batch_rows]
            optimizer.zero_grad()
            for piece in probe.batcher.pieces(probe.rows, rows):
                _backward(model, probe, piece, rows=len(rows))
            allocator.update_ipt(model)
            optimizer.step()
    return _scores(allocator, model, probe.matrices)


def _config(probe: Probe, options: PilotOptions) -> peft.AdaLoraConfig:
    return peft.AdaLoraConfig(
        target_modules=list(probe.matrices),
        init_r=options.rank,
        target_r=options.rank,
        lora_alpha=2 * options.rank,
        beta1=_SMOOTHING,
        beta2=_SMOOTHING,
        total_step=options.steps + 1,
    )


def _backward(model: Any, probe: Probe, piece: np.ndarray, *, rows: int) -> None:
    inputs, order = probe.batcher.inputs(probe.rows, piece)
    labels = _labels(probe.rows, order).to(inputs["input_ids"].device)
    loss: Any = loss_of(model(**inputs).logits.float(), labels) / rows
    loss.backward()


def _labels(rows: TokenizedRows, order: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(rows.labels[order])


def _scores(allocator: Any, model: Any, matrices: tuple[str, ...]) -> dict[str, np.ndarray]:
    names: Mapping[str, str] = {
        name.removeprefix("base_model.model.").partition(".lora_E.")[0]: name
        for name, _ in model.named_parameters()
        if f".lora_E.{_ADAPTER}" in name
    }
    scores = {}
    for matrix in matrices:
        name = names[matrix]
        values = allocator._element_score(name)
        right = allocator._element_score(name.replace("lora_E", "lora_A")).mean(dim=1, keepdim=True)
        left = allocator._element_score(name.replace("lora_E", "lora_B")).mean(dim=0).view(-1, 1)
        combined = allocator._combine_ipt(values, torch.cat([right, left], dim=1))
        scores[matrix] = np.sort(combined.double().cpu().numpy().ravel())[::-1].copy()
    return scores
