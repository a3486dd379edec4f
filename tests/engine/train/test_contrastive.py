"""The supervised contrastive loss, against its formula written out."""

from __future__ import annotations

import math

import pytest
import torch

from pennyweight.engine.train.losses import contrastive_loss


def by_hand(features: torch.Tensor, labels: list[int], temperature: float) -> float:
    unit = torch.nn.functional.normalize(features, dim=1)
    losses = []
    for anchor, label in enumerate(labels):
        others = [row for row in range(len(labels)) if row != anchor]
        exponents = {o: float(unit[anchor] @ unit[o]) / temperature for o in others}
        total = math.log(sum(math.exp(value) for value in exponents.values()))
        positives = [o for o in others if labels[o] == label and label >= 0]
        if positives:
            losses.append(sum(total - exponents[o] for o in positives) / len(positives))
    return sum(losses) / len(losses) * len(labels)


def test_it_is_the_formula_of_the_paper_over_anchors_with_a_positive() -> None:
    features = torch.randn(7, 5, generator=torch.Generator().manual_seed(0))
    labels = [0, 1, 0, 2, 1, 0, -1]
    loss = contrastive_loss(features, torch.tensor(labels), temperature=0.5)
    assert float(loss) == pytest.approx(by_hand(features, labels, 0.5), rel=1e-5)


def test_texts_of_a_class_that_are_alike_cost_less() -> None:
    labels = torch.tensor([0, 0, 1, 1])
    apart = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0]])
    mixed = apart[[0, 2, 1, 3]]
    assert contrastive_loss(apart, labels, temperature=0.1) < contrastive_loss(
        mixed, labels, temperature=0.1
    )


def test_a_batch_without_positives_has_no_loss_and_a_finite_gradient() -> None:
    features = torch.randn(3, 4, requires_grad=True)
    loss = contrastive_loss(features, torch.tensor([0, 1, 2]), temperature=0.1)
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert features.grad is not None
    assert bool((features.grad == 0).all())


def test_the_gradient_is_finite_where_texts_are_equal() -> None:
    features = torch.ones(4, 3, requires_grad=True)
    contrastive_loss(features, torch.tensor([0, 0, 1, 1]), temperature=0.05).backward()
    assert features.grad is not None
    assert bool(features.grad.isfinite().all())


def test_several_labels_attract_in_the_degree_to_which_they_overlap() -> None:
    features = torch.randn(3, 4, generator=torch.Generator().manual_seed(1))
    one_hot = torch.tensor([[1, 0], [1, 0], [0, 1]])
    single = contrastive_loss(features, torch.tensor([0, 0, 1]), temperature=0.3)
    torch.testing.assert_close(contrastive_loss(features, one_hot, temperature=0.3), single)
    partly = torch.tensor([[1, 1], [1, 0], [-1, -1]])
    assert float(contrastive_loss(features, partly, temperature=0.3)) > 0.0
