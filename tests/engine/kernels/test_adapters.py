"""Adapters of every method run on packed rows and in half precision, with PEFT's own forward."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from engine.families import rows_of
from pennyweight.base import locate, skeleton
from pennyweight.budget import Spending, make_plan
from pennyweight.budget.methods import METHODS
from pennyweight.engine.device import Compute, Precision
from pennyweight.engine.kernels.attention import PACKED
from pennyweight.engine.kernels.prepare import prepare_model
from pennyweight.model import BaseOptions, build_model
from pennyweight.recipe import resolve_recipe
from small_adapters import SMALL
from tiny import LABELS

ADAPTERS = [name for name, method in METHODS.items() if not method.trains_every_weight]
ROWS, INDICES = rows_of(12, vocabulary=30), np.array([3, 0, 7, 9, 2, 5])


def _logits_and_gradients(
    directory: Path, method: str, *, attention: str, precision: Precision
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the logits in the order of the rows, and all gradients as one vector."""
    base = locate(str(directory), labels=LABELS)
    section = resolve_recipe({"adapter": {"method": method, **SMALL[method]}}).adapter
    spending = Spending.of(section.model_dump())
    plan = make_plan(skeleton(base), spending, labels=4, budget=1_000_000)
    model, _ = build_model(base, plan, BaseOptions(seed=0, attention=attention))
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and "modules_to_save" not in name:
            parameter.data.add_(0.05 * torch.randn_like(parameter))
    compute = Compute("cpu", precision, attention, "")
    batcher = prepare_model(model, compute, max_tokens=8192)
    model.eval()
    inputs, order = batcher.inputs(ROWS, INDICES)
    logits = model(**inputs).logits.float()
    functional.cross_entropy(logits, torch.from_numpy(ROWS.labels[order])).backward()
    gradients = [p.grad for p in model.parameters() if p.requires_grad]
    assert all(gradient is not None for gradient in gradients)
    return logits.detach()[np.argsort(order)], torch.cat(
        [gradient.flatten() for gradient in gradients if gradient is not None]
    )


@pytest.mark.filterwarnings("ignore:Sparse invariant checks")  # torch's, of SHiRA
@pytest.mark.parametrize("method", ADAPTERS)
def test_packed_rows_and_half_precision_give_the_same_up_to_rounding(
    roberta: Path, method: str
) -> None:
    exact = _logits_and_gradients(roberta, method, attention="eager", precision="fp32")
    packed = _logits_and_gradients(roberta, method, attention=PACKED, precision="fp32")
    torch.testing.assert_close(packed[0], exact[0], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(packed[1], exact[1], atol=1e-3, rtol=1e-3)
    half = _logits_and_gradients(roberta, method, attention=PACKED, precision="bf16")
    torch.testing.assert_close(half[0], exact[0], atol=0.1 * float(exact[0].abs().max()), rtol=0.1)
    assert float((half[1] - exact[1]).norm()) < 0.15 * float(exact[1].norm())
