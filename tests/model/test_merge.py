"""Merging gives the adapted model's logits, and the weights of PEFT's own merging."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import peft
import pytest
import torch

from pennyweight.base import locate, skeleton
from pennyweight.budget import Spending, make_plan
from pennyweight.budget.methods import METHODS
from pennyweight.model import BaseOptions, build_model, merge_adapter
from pennyweight.recipe import resolve_recipe
from small_adapters import SMALL
from tiny import LABELS

ADAPTERS = [name for name, method in METHODS.items() if not method.trains_every_weight]


def _adapted(directory: Path, method: str) -> Any:
    """A model with adapters of random weights, so that they change the logits."""
    base = locate(str(directory), labels=LABELS)
    section = resolve_recipe({"adapter": {"method": method} | SMALL[method]}).adapter
    spending = Spending.of(section.model_dump())
    plan = make_plan(skeleton(base), spending, labels=4, budget=1_000_000)
    model, _ = build_model(base, plan, BaseOptions(seed=0))
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and "modules_to_save" not in name:
            parameter.data.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


@pytest.mark.filterwarnings("ignore:Sparse invariant checks")  # SHiRA's, before merging
@pytest.mark.parametrize("method", ADAPTERS)
def test_the_merged_model_has_the_adapted_models_logits_and_no_layers_of_peft(
    roberta: Path, method: str
) -> None:
    model = _adapted(roberta, method)
    ids = torch.randint(5, 20, (4, 9), generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        expected = model(input_ids=ids).logits
        with model.disable_adapter():
            assert not torch.allclose(model(input_ids=ids).logits, expected, atol=1e-3)
        merged = merge_adapter(model)
        torch.testing.assert_close(merged(input_ids=ids).logits, expected, atol=1e-4, rtol=1e-4)
    assert not [m for m in merged.modules() if type(m).__module__.startswith("peft.")]
    assert not hasattr(merged, "peft_config")


@pytest.mark.parametrize("method", ["lora", "rslora", "dora", "rsdora", "lora-fa", "adalora"])
def test_the_merged_weights_are_bit_for_bit_those_of_merge_and_unload(
    roberta: Path, method: str
) -> None:
    model = _adapted(roberta, method)
    expected = copy.deepcopy(model).merge_and_unload().state_dict()
    merged = merge_adapter(model).state_dict()
    assert merged.keys() == expected.keys()
    assert all(torch.equal(merged[name], expected[name]) for name in expected)


def test_a_merged_model_can_be_adapted_again_without_a_warning(roberta: Path) -> None:
    merged = merge_adapter(_adapted(roberta, "lora"))
    peft.get_peft_model(merged, peft.LoraConfig(target_modules=["query"]))
