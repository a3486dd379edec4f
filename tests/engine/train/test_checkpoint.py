"""The weights of a checkpoint are restored, whatever the adapter method."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from pennyweight.base import locate, skeleton
from pennyweight.budget import Spending, make_plan
from pennyweight.budget.methods import METHODS
from pennyweight.engine.train.checkpoint import load_weights
from pennyweight.model import BaseOptions, build_model
from pennyweight.model.artifact import save_artifact
from pennyweight.recipe import resolve_recipe
from small_adapters import SMALL
from tiny import LABELS

ADAPTERS = [name for name, method in METHODS.items() if not method.trains_every_weight]
IDS = torch.randint(5, 20, (4, 9), generator=torch.Generator().manual_seed(2))


def _built(directory: Path, method: str) -> tuple[Any, Any]:
    base = locate(str(directory), labels=LABELS)
    section = resolve_recipe({"adapter": {"method": method, **SMALL[method]}}).adapter
    spending = Spending.of(section.model_dump())
    plan = make_plan(skeleton(base), spending, labels=4, budget=1_000_000)
    model, _ = build_model(base, plan, BaseOptions(seed=0))
    return model.eval(), plan


@pytest.mark.filterwarnings("ignore:Sparse invariant checks")  # torch's, of SHiRA
@pytest.mark.parametrize("method", ADAPTERS)
def test_a_model_continues_with_the_saved_weights(
    roberta: Path, tmp_path: Path, method: str
) -> None:
    trained, plan = _built(roberta, method)
    torch.manual_seed(1)
    for parameter in trained.parameters():
        if parameter.requires_grad:
            parameter.data.add_(0.1 * torch.randn_like(parameter))
    save_artifact(trained, tmp_path / "at", plan.artifact_facts(LABELS), fresh_weights={})
    resumed, _ = _built(roberta, method)
    with torch.inference_mode():
        expected = trained(input_ids=IDS).logits
        assert not torch.allclose(resumed(input_ids=IDS).logits, expected, atol=1e-2)
        load_weights(resumed, tmp_path / "at")
        torch.testing.assert_close(resumed(input_ids=IDS).logits, expected)
    names = {name for name, p in resumed.named_parameters() if p.requires_grad}
    assert names == {name for name, p in trained.named_parameters() if p.requires_grad}
