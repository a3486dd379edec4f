"""Measures equal what their definitions say, computed another way."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pennyweight.base import BaseModel, locate, skeleton
from pennyweight.budget.layout import layout_of
from pennyweight.engine.batches.batcher import PaddedBatcher
from pennyweight.engine.batches.tokenize import tokenize_texts
from pennyweight.engine.device import Compute
from pennyweight.engine.pilot import PilotOptions, importance_of_ranks
from pennyweight.engine.sensitivity import Probe, fit_output_layer, loss_of, measure
from pennyweight.model.build import BaseOptions, load_base, load_tokenizer
from tiny import LABELS, news

COMPUTE = Compute("cpu", "fp32", "eager", "")
QUERY, DOWN = (
    f"roberta.encoder.layer.1.{role}" for role in ("attention.self.query", "output.dense")
)
UP, DENSE, OUTPUT = (
    "roberta.encoder.layer.0.intermediate.dense",
    "classifier.dense",
    "classifier.out_proj",
)
MATRICES = (QUERY, DOWN, UP, DENSE, OUTPUT)


@pytest.fixture
def base(roberta: Path) -> BaseModel:
    return locate(str(roberta), labels=LABELS)


def _probe(base: BaseModel, *, rows: int = 12, several: bool = False) -> Probe:
    texts = news(rows, seed=3)
    tokens = tokenize_texts(
        [text for _, text in texts], tokenizer=load_tokenizer(base, tokenizer=None), max_tokens=24
    )
    labels = np.array([label for label, _ in texts])
    if several:
        labels = np.eye(4, dtype=np.int64)[labels]
    model, _ = load_base(base, BaseOptions(seed=0))
    return Probe(
        model.eval().requires_grad_(False),
        PaddedBatcher("cpu", 64),
        output_layer=layout_of(skeleton(base), labels=4).head_output.name,
        matrices=MATRICES,
        rows=replace(tokens, labels=labels),
        seed=0,
    )


def _gradients_by_row(probe: Probe) -> list[dict[str, torch.Tensor]]:
    """The gradient of each row's loss by each matrix, from autograd and without padding."""
    model: Any = probe.model
    modules = dict(model.named_modules())
    weights = [modules[name].weight.requires_grad_(True) for name in MATRICES]
    rows = []
    for index in range(len(probe.rows)):
        ids = torch.from_numpy(probe.rows.ids(index).astype(np.int64))[None]
        labels = torch.from_numpy(probe.rows.labels[index : index + 1])
        loss = loss_of(model(input_ids=ids).logits, labels)
        rows.append(dict(zip(MATRICES, torch.autograd.grad(loss, weights), strict=True)))
    for weight in weights:
        weight.requires_grad_(False)
    return rows


@pytest.mark.parametrize("several", [False, True])
def test_the_gradient_measure_is_the_spectrum_of_the_gradient(
    base: BaseModel, several: bool
) -> None:
    probe = _probe(base, several=several)
    gains = measure(probe, "gradient")
    rows = _gradients_by_row(probe)
    for name in MATRICES:
        expected = torch.linalg.svdvals(sum(row[name] for row in rows))
        np.testing.assert_allclose(gains[name], expected.numpy(), rtol=1e-3, atol=1e-5)


def test_the_fisher_measure_is_the_spectrum_of_squared_gradients(base: BaseModel) -> None:
    probe = _probe(base)
    gains = measure(probe, "fisher")
    rows = _gradients_by_row(probe)
    for name in MATRICES:
        each = [row[name] if len(row[name]) <= row[name].shape[1] else row[name].T for row in rows]
        expected = torch.linalg.eigvalsh(sum(g @ g.T for g in each)).flip(0).clamp_min(0)
        np.testing.assert_allclose(gains[name], expected.numpy(), rtol=2e-3, atol=1e-4)
        trace = sum(float((row[name] ** 2).sum()) for row in rows)
        assert gains[name].sum() == pytest.approx(trace, rel=1e-3)


def test_the_activation_measure_is_explained_variance_without_padding(base: BaseModel) -> None:
    probe = _probe(base)
    gains = measure(probe, "activation")
    seen: dict[str, list[torch.Tensor]] = {name: [] for name in MATRICES}
    modules = dict(probe.model.named_modules())
    hooks = [
        modules[name].register_forward_pre_hook(
            lambda _, args, name=name: seen[name].append(args[0].reshape(-1, args[0].shape[-1]))
        )
        for name in MATRICES
    ]
    with torch.no_grad():
        for index in range(len(probe.rows)):
            probe.model(input_ids=torch.from_numpy(probe.rows.ids(index).astype(np.int64))[None])
    for hook in hooks:
        hook.remove()
    for name in MATRICES:
        inputs = torch.cat(seen[name]).numpy()
        variances = np.linalg.eigvalsh(np.cov(inputs.T))[::-1]
        expected = variances / variances.sum()
        np.testing.assert_allclose(gains[name], expected[: len(gains[name])], rtol=1e-2, atol=1e-5)
        assert gains[name].sum() == pytest.approx(1.0)


def test_the_output_layer_is_fitted_before_anything_is_measured(base: BaseModel) -> None:
    probe = _probe(base, rows=40)

    def loss() -> float:
        with torch.no_grad():
            return sum(float(loss_of(probe.model(**i).logits, y)) for i, y in probe.batches())

    before = loss()
    fit_output_layer(probe, probe.rows, compute=COMPUTE, classes=4)
    assert loss() < 0.9 * before


def test_measuring_changes_nothing_and_gives_the_same_twice(base: BaseModel) -> None:
    probe = _probe(base)
    weights = {name: p.clone() for name, p in probe.model.named_parameters()}
    for kind in ("gradient", "activation", "fisher"):
        first, second = measure(probe, kind), measure(probe, kind)
        assert all(np.array_equal(first[name], second[name]) for name in MATRICES)
    for name, parameter in probe.model.named_parameters():
        assert torch.equal(parameter, weights[name])
        assert parameter.grad is None


def test_a_pilot_ranks_the_ranks_of_every_matrix(base: BaseModel) -> None:
    options = PilotOptions(rank=3, steps=3, batch_rows=4, learning_rate=0.01)
    first = importance_of_ranks(_probe(base), options)
    assert set(first) == set(MATRICES)
    for gains in first.values():
        assert gains.shape == (3,)
        assert (gains >= 0.0).all()
        assert (np.diff(gains) <= 0.0).all()
    assert sum(gains.sum() for gains in first.values()) > 0.0
    second = importance_of_ranks(_probe(base), options)
    assert all(np.array_equal(first[name], second[name]) for name in MATRICES)
