"""The passes of `prepare_model`: their order, and that none of them changes a result."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from engine.families import adapted, rows_of
from pennyweight.engine.batches.batcher import PackedBatcher, PaddedBatcher
from pennyweight.engine.device import Compute, Precision
from pennyweight.engine.kernels import prepare
from pennyweight.engine.kernels.attention import PACKED
from pennyweight.engine.kernels.masks import MaskPool, pool_of
from pennyweight.engine.kernels.prepare import PASSES, Preparation, prepare_model

NAMES = (
    "half-precision encoder",
    "keep freed memory",
    "pooled dropout masks",
    "fused bias",
    "fused residual",
    "fused LoRA",
    "shared QKV inputs",
    "compiled blocks",
)
ROWS, INDICES = rows_of(23), np.array([3, 0, 17, 9, 22, 5, 11, 2, 8])


@dataclass(frozen=True)
class Setup:
    """A tiny model and how it is prepared."""

    family: str
    attention: str
    precision: Precision = "fp32"
    dropout: float = 0.0
    targets: tuple[str, ...] | None = None
    compiled: bool = False

    def prepared(self, *without: str) -> tuple[Any, Any]:
        """Return the prepared model and its batcher."""
        targets = None if self.targets is None else list(self.targets)
        model = adapted(
            self.family, attention=self.attention, dropout=self.dropout, targets=targets
        )
        for module in model.modules():
            if type(module) is nn.Dropout:
                module.p = self.dropout
        batcher = prepare_model(
            model,
            Compute("cpu", self.precision, self.attention, ""),
            max_tokens=8192,
            compiled=self.compiled,
            without=frozenset(without),
        )
        return model, batcher


@cache
def _results(setup: Setup, *without: str, training: bool = True) -> list[torch.Tensor]:
    """Return logits in the order of the rows, the loss, and the gradients."""
    model, batcher = setup.prepared(*without)
    model.train(training)
    torch.manual_seed(0)
    if batcher.masks is not None:
        batcher.masks.begin_step(seed=0, step=0)
    inputs, order = batcher.inputs(ROWS, INDICES)
    logits = model(**inputs).logits.float()
    loss = functional.cross_entropy(logits, torch.from_numpy(ROWS.labels[order]))
    loss.backward()
    gradients = [p.grad for p in model.parameters() if p.requires_grad]
    assert all(gradient is not None for gradient in gradients)
    return [logits.detach()[np.argsort(order)], loss.detach(), *gradients]  # type: ignore[list-item]


def _assert_close(ours: list[torch.Tensor], others: list[torch.Tensor], precision: str) -> None:
    assert len(ours) == len(others)
    if precision == "fp32":
        for one, other in zip(ours, others, strict=True):
            torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
        return
    # The logits of every row and the loss; all gradients together, because some are almost zero.
    for one, other in zip(ours[:2], others[:2], strict=True):
        torch.testing.assert_close(one, other, atol=0.05 * float(other.abs().max()), rtol=0.05)
    one, other = (torch.cat([t.flatten() for t in tensors[2:]]) for tensors in (ours, others))
    assert float((one - other).norm()) < 0.05 * float(other.norm())


def test_the_passes_are_listed_in_this_order_each_with_a_summary() -> None:
    assert tuple(step.name for step in PASSES) == NAMES
    assert all(step.summary.endswith(".") for step in PASSES)


@pytest.mark.parametrize(
    ("compute", "compiled", "expected"),
    [
        (Compute("cpu", "bf16", PACKED, ""), True, NAMES),
        (
            Compute("cpu", "fp32", "eager", ""),
            False,
            [n for n in NAMES if n not in {NAMES[0], "shared QKV inputs", "compiled blocks"}],
        ),
        (
            Compute("cuda", "bf16", PACKED, ""),
            False,
            ["half-precision encoder", "fused LoRA", "shared QKV inputs"],
        ),
    ],
)
def test_passes_are_applied_in_the_list_s_order_where_they_apply(
    compute: Compute, compiled: bool, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    applied: list[str] = []

    def spy(name: str) -> Any:
        def apply(preparation: Preparation) -> None:
            assert preparation.model.config.model_type == "roberta"
            applied.append(name)

        return apply

    spies = tuple(replace(step, apply=spy(step.name)) for step in PASSES)
    monkeypatch.setattr(prepare, "PASSES", spies)
    model = adapted("roberta", attention=compute.attention)
    batcher = prepare_model(model, compute, max_tokens=64, compiled=compiled)
    assert applied == list(expected)
    assert isinstance(batcher, PackedBatcher if compute.attention == PACKED else PaddedBatcher)
    assert (batcher.masks is None) == (compute.device == "cuda")
    applied.clear()
    prepare_model(
        model, compute, max_tokens=64, compiled=compiled, without=frozenset({"fused LoRA"})
    )
    assert applied == [name for name in expected if name != "fused LoRA"]


def test_a_name_that_no_pass_has_is_refused() -> None:
    model = adapted("bert", attention="eager")
    compute = Compute("cpu", "fp32", "eager", "")
    with pytest.raises(ValueError, match="no pass is named fusd bias; passes: half-precision"):
        prepare_model(model, compute, max_tokens=64, without=frozenset({"fusd bias"}))


@pytest.mark.parametrize(
    ("name", "attention", "precision"),
    [
        (name, attention, precision)
        for name in NAMES[:-1]
        for attention in (PACKED, "eager")
        for precision in ("fp32", "bf16")
        # The two that do not always apply.
        if (name, precision) != ("half-precision encoder", "fp32")
        and (name, attention) != ("shared QKV inputs", "eager")
    ],
)
@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_leaving_out_a_pass_leaves_logits_loss_and_gradients_equal(
    name: str, attention: str, family: str, precision: Precision
) -> None:
    setup = Setup(family, attention, precision)
    _assert_close(_results(setup), _results(setup, name), precision)


@pytest.mark.slow
@pytest.mark.parametrize("attention", [PACKED, "eager"])
@pytest.mark.parametrize("family", ["bert", "roberta", "modernbert-cls"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_leaving_out_torch_compile_leaves_logits_loss_and_gradients_equal(
    attention: str, family: str, precision: Precision
) -> None:
    # Adapters on the attention alone, so that the feed-forward blocks are frozen.
    setup = Setup(family, attention, precision, targets=("query", "Wqkv"), compiled=True)
    _assert_close(_results(setup), _results(setup, "compiled blocks"), precision)


@pytest.mark.parametrize("name", ["pooled dropout masks", "fused residual"])
@pytest.mark.parametrize("attention", [PACKED, "eager"])
@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_dropout_passes_change_nothing_in_evaluation_mode(
    name: str, attention: str, family: str
) -> None:
    setup = Setup(family, attention, dropout=0.3)
    results = _results(setup, training=False)
    _assert_close(results, _results(setup, name, training=False), "fp32")
    # Dropout is on: in training mode the logits differ.
    assert not torch.allclose(_results(setup)[0], results[0], atol=0.01)


@pytest.mark.parametrize("attention", [PACKED, "eager"])
@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_the_same_masks_are_applied_without_the_fused_residual(attention: str, family: str) -> None:
    setup = Setup(family, attention, dropout=0.3)
    _assert_close(_results(setup), _results(setup, "fused residual"), "fp32")


@pytest.mark.parametrize("attention", [PACKED, "eager"])
@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_without_pooled_masks_the_residual_is_not_fused_and_masks_are_torch_s(
    attention: str, family: str
) -> None:
    setup = Setup(family, attention, dropout=0.3)
    model, batcher = setup.prepared("pooled dropout masks")
    assert batcher.masks is None
    assert all(pool_of(module) is None for module in model.modules())
    both = _results(setup, "pooled dropout masks", "fused residual")
    for one, other in zip(_results(setup, "pooled dropout masks"), both, strict=True):
        assert torch.equal(one, other)


def test_pooled_and_torch_s_dropout_drop_the_same_share_with_the_same_scale() -> None:
    x = torch.ones(400, 300)
    outputs = []
    for without in ((), ("pooled dropout masks",)):
        model, batcher = Setup("bert", "eager", dropout=0.25).prepared(*without)
        model.train()
        if isinstance(batcher.masks, MaskPool):
            batcher.masks.begin_step(seed=0, step=0)
        outputs.append(model.get_base_model().bert.embeddings.dropout(x))
    for output in outputs:
        assert abs(float((output == 0.0).float().mean()) - 0.25) < 0.01
        torch.testing.assert_close(float(output.max()), 1 / 0.75)
