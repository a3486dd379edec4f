"""The loss of rows that may have several labels."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn
from torch.distributions import Bernoulli, kl_divergence
from torch.nn import functional

from pennyweight.engine.batches.rows import Targets, TeacherOutputs
from pennyweight.engine.features import Features
from pennyweight.engine.train.objective import ClassBalance, Objective, ObjectiveOptions

LOGITS = torch.tensor([[2.0, 0.0, -1.0], [0.5, 0.1, 0.2]])
OTHERS = torch.tensor([[1.0, 0.3, -1.0], [0.5, 0.9, 0.2]])
LABELS = torch.tensor([[1, 0, 1], [0, 0, 0]])


def _entropy(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return functional.binary_cross_entropy_with_logits(logits, target, reduction="none")


def test_the_loss_is_the_binary_cross_entropy_summed_over_classes_and_rows() -> None:
    loss = Objective().of_rows([LOGITS], Targets(LABELS))
    torch.testing.assert_close(loss, _entropy(LOGITS, LABELS.float()).sum())


def test_label_smoothing_replaces_a_share_of_each_decision_by_a_half() -> None:
    loss = Objective(ObjectiveOptions(label_smoothing=0.2)).of_rows([LOGITS], Targets(LABELS))
    target = 0.8 * LABELS.float() + 0.1
    torch.testing.assert_close(loss, _entropy(LOGITS, target).sum())


def test_rows_count_by_their_weights_and_rows_without_labels_not_at_all() -> None:
    labels = torch.tensor([[1, 0, 1], [0, 1, 0], [-1, -1, -1]])
    logits = torch.cat([LOGITS, OTHERS[:1]])
    weights = torch.tensor([2.0, 0.5, 3.0])
    smoothing = torch.tensor([0.0, 0.4, 0.0])
    loss = Objective().of_rows([logits], Targets(labels, weights=weights, smoothing=smoothing))
    target = torch.tensor([[1.0, 0.0, 1.0], [0.2, 0.8, 0.2]])
    expected = (_entropy(LOGITS, target).sum(dim=1) * weights[:2]).sum()
    torch.testing.assert_close(loss, expected)
    alone = Objective().of_rows([logits[2:]], Targets(labels[2:]))
    assert float(alone) == 0.0


def test_r_drop_adds_the_divergences_of_every_decision() -> None:
    objective = Objective(ObjectiveOptions(r_drop=2.0, consistency=5.0))
    labels = torch.tensor([[1, 0, 1], [-1, -1, -1]])
    loss = objective.of_rows([LOGITS, OTHERS], Targets(labels))
    one, other = Bernoulli(logits=LOGITS), Bernoulli(logits=OTHERS)
    divergence = (kl_divergence(one, other) + kl_divergence(other, one)).sum(dim=1) / 2
    entropy = (_entropy(LOGITS[0], labels[0].float()) + _entropy(OTHERS[0], labels[0].float())) / 2
    torch.testing.assert_close(loss, entropy.sum() + 2.0 * divergence[0] + 5.0 * divergence[1])


def test_distillation_adds_the_divergence_from_the_teachers_decisions() -> None:
    objective = Objective(ObjectiveOptions(soft=0.25, temperature=2.0))
    loss = objective.of_rows([LOGITS], Targets(LABELS, TeacherOutputs(OTHERS)))
    divergence = kl_divergence(Bernoulli(logits=OTHERS / 2), Bernoulli(logits=LOGITS / 2)).sum()
    expected = 0.75 * _entropy(LOGITS, LABELS.float()).sum() + 0.25 * 4.0 * divergence
    torch.testing.assert_close(loss, expected, atol=1e-4, rtol=1e-4)


def test_a_teacher_that_is_certain_gives_a_finite_loss_and_gradient() -> None:
    logits = LOGITS.clone().requires_grad_()
    teacher = TeacherOutputs(torch.tensor([[300.0, -300.0, 0.0]] * 2))
    loss = Objective(ObjectiveOptions(soft=1.0)).of_rows([logits], Targets(LABELS, teacher))
    loss.backward()
    assert torch.isfinite(loss)
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


class _Head(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.out_proj = nn.Linear(5, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.out_proj(x)
        return out


def test_mixup_mixes_the_labels_as_the_rows() -> None:
    model, x = _Head().train(), torch.randn(4, 5)
    labels = torch.tensor([[1, 0, 1], [0, 0, 0], [0, 1, 0], [1, 1, 1]])
    objective = Objective(ObjectiveOptions(mixup=0.4), features=Features(model, "out_proj"))
    objective.begin(4, seed=(1, 2))
    loss = objective.of_rows([model(x)], Targets(labels))
    draw = np.random.default_rng((1, 2))
    share, partners = draw.beta(0.4, 0.4), draw.permutation(4)
    target = share * labels.float() + (1 - share) * labels[partners].float()
    mixed = share * x + (1 - share) * x[partners]
    logits = functional.linear(mixed, model.out_proj.weight, model.out_proj.bias)
    torch.testing.assert_close(loss, _entropy(logits, target).sum())


def test_weights_of_classes_multiply_the_positive_decisions() -> None:
    weights = torch.tensor([2.0, 3.0, 4.0])
    objective = Objective(balance=ClassBalance(weights=weights))
    expected = functional.binary_cross_entropy_with_logits(
        LOGITS, LABELS.float(), pos_weight=weights, reduction="sum"
    )
    torch.testing.assert_close(objective.of_rows([LOGITS], Targets(LABELS)), expected)


def test_the_focal_loss_weights_every_decision_by_its_error() -> None:
    loss = Objective(ObjectiveOptions(focal_gamma=2.0)).of_rows([LOGITS], Targets(LABELS))
    share = torch.where(LABELS == 1, LOGITS.sigmoid(), 1 - LOGITS.sigmoid())
    torch.testing.assert_close(loss, (-share.log() * (1 - share) ** 2).sum())


@pytest.mark.parametrize("labels", [torch.tensor([0, 2]), LABELS])
@pytest.mark.parametrize(
    "options",
    [
        ObjectiveOptions(),
        ObjectiveOptions(label_smoothing=0.1),
        ObjectiveOptions(r_drop=1.0),
        ObjectiveOptions(focal_gamma=0.5),
    ],
)
def test_gradients_of_extreme_logits_are_finite(
    options: ObjectiveOptions, labels: torch.Tensor
) -> None:
    logits = torch.tensor([[200.0, -200.0, 0.0], [-200.0, 0.0, 200.0]], requires_grad=True)
    objective = Objective(dataclasses.replace(options))
    loss = objective.of_rows([logits, logits][: objective.passes], Targets(labels))
    loss.backward()
    assert torch.isfinite(loss)
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


def test_the_gradient_of_a_row_does_not_shrink_with_the_number_of_classes() -> None:
    norms = []
    for classes in (4, 64):
        # Every class has the probability of its share of the rows; each row has one label.
        logits = torch.full((1, classes), 1.0 / classes).logit().requires_grad_()
        labels = torch.zeros((1, classes), dtype=torch.int64)
        labels[0, 0] = 1
        Objective().of_rows([logits], Targets(labels)).backward()
        assert logits.grad is not None
        norms.append(float(logits.grad.norm()))
    assert norms == pytest.approx([1.0, 1.0], abs=0.15)
