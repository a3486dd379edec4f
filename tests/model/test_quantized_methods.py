"""Every method trains and merges on the quantized bases that its row names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from pennyweight.base import locate, skeleton
from pennyweight.budget import Spending, make_plan
from pennyweight.budget.methods import METHODS
from pennyweight.model import BaseOptions, build_model, load_base, merge_adapter
from pennyweight.model.artifact import load_adapter, save_artifact
from pennyweight.model.quantize import dequantized
from pennyweight.recipe import resolve_recipe
from small_adapters import SMALL
from tiny import LABELS

pytest.importorskip("bitsandbytes")
SUPPORTED = [
    (name, quantization)
    for name, method in METHODS.items()
    for quantization in method.support.quantizations
    if quantization != "none" and not method.trains_every_weight
]
IDS = torch.randint(5, 20, (4, 9), generator=torch.Generator().manual_seed(2))


@pytest.mark.filterwarnings("ignore:Sparse invariant checks", "ignore:MatMul8bitLt")
@pytest.mark.parametrize(("method", "quantization"), SUPPORTED)
def test_a_method_trains_on_a_quantized_base_and_merges_into_its_values(
    roberta: Path, tmp_path: Path, method: str, quantization: Any
) -> None:
    base = locate(str(roberta), labels=LABELS)
    section = resolve_recipe({"adapter": {"method": method, **SMALL[method]}}).adapter
    spending = Spending.of(section.model_dump())
    plan = make_plan(skeleton(base), spending, labels=4, budget=1_000_000)
    options = BaseOptions(seed=0, quantization=quantization)
    model, _ = build_model(base, plan, options)
    torch.manual_seed(1)
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    for name, parameter in trained.items():
        if "modules_to_save" not in name:
            parameter.data.add_(0.1 * torch.randn_like(parameter))
    model.eval()
    logits = model(input_ids=IDS).logits
    logits.square().sum().backward()
    assert all(parameter.grad is not None for parameter in trained.values())
    save_artifact(model, tmp_path / "adapter", plan.artifact_facts(LABELS), fresh_weights={})
    loaded, _ = load_base(base, options)
    merged = merge_adapter(load_adapter(dequantized(loaded), tmp_path / "adapter"))
    # bitsandbytes rounds the inputs of 8-bit matrices as well.
    tolerance = 1e-4 if quantization == "nf4" else 0.1
    with torch.inference_mode():
        torch.testing.assert_close(
            merged(input_ids=IDS).logits, logits, atol=tolerance, rtol=tolerance
        )
