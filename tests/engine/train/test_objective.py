"""The loss of a step."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from pennyweight.engine.batches.rows import Targets, TeacherOutputs
from pennyweight.engine.features import Features
from pennyweight.engine.train.objective import Objective, ObjectiveOptions

LOGITS = torch.tensor([[2.0, 0.0, -1.0], [0.5, 0.1, 0.2]])
OTHERS = torch.tensor([[1.0, 0.3, -1.0], [0.5, 0.9, 0.2]])
LABELS = torch.tensor([0, 2])


def test_one_pass_is_the_summed_cross_entropy() -> None:
    loss = Objective().of_rows([LOGITS], Targets(LABELS))
    chosen = LOGITS.log_softmax(1)[torch.arange(2), LABELS]
    torch.testing.assert_close(loss, -chosen.sum())
    assert Objective().passes == 1


def test_soft_labels_take_the_place_of_labels() -> None:
    soft = torch.tensor([[0.7, 0.2, 0.1], [0.0, 1.0, 0.0], [0.2, 0.3, 0.5]])[: len(LABELS)]
    weights = torch.tensor([1.0, 0.5, 2.0])[: len(LABELS)]
    targets = Targets(LABELS, weights=weights, soft_labels=soft)
    expected = -(weights * (soft * LOGITS.log_softmax(dim=1)).sum(dim=1)).sum()
    torch.testing.assert_close(Objective().of_rows([LOGITS], targets), expected)


def test_label_smoothing_spreads_a_share_over_all_classes() -> None:
    log = LOGITS.log_softmax(1)
    target = torch.full((2, 3), 0.3 / 3)
    target[torch.arange(2), LABELS] += 0.7
    loss = Objective(ObjectiveOptions(label_smoothing=0.3)).of_rows([LOGITS], Targets(LABELS))
    torch.testing.assert_close(loss, -(target * log).sum())


def test_r_drop_adds_the_mean_of_both_divergences() -> None:
    objective = Objective(ObjectiveOptions(r_drop=2.0))
    assert objective.passes == 2
    p, q = LOGITS.softmax(1), OTHERS.softmax(1)
    divergence = (p * (p / q).log()).sum() + (q * (q / p).log()).sum()
    entropy = (
        functional.cross_entropy(LOGITS, LABELS, reduction="sum")
        + functional.cross_entropy(OTHERS, LABELS, reduction="sum")
    ) / 2
    loss = objective.of_rows([LOGITS, OTHERS], Targets(LABELS))
    torch.testing.assert_close(loss, entropy + 2.0 * divergence / 2)
    torch.testing.assert_close(
        objective.of_rows([LOGITS, LOGITS], Targets(LABELS)),
        Objective().of_rows([LOGITS], Targets(LABELS)),
    )


class _Head(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.out_proj = nn.Linear(5, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.out_proj(x)
        return out


def test_mixup_mixes_rows_before_the_output_layer_and_their_targets_alike() -> None:
    model, x = _Head().train(), torch.randn(4, 5)
    labels = torch.tensor([0, 1, 2, 2])
    objective = Objective(ObjectiveOptions(mixup=0.4), features=Features(model, "out_proj"))
    objective.begin(4, seed=(1, 2))
    loss = objective.of_rows([model(x)], Targets(labels))
    draw = np.random.default_rng((1, 2))
    share, partners = draw.beta(0.4, 0.4), draw.permutation(4)
    assert 0.0 < share < 1.0
    mixed = share * x + (1 - share) * x[partners]
    one_hot = functional.one_hot(labels, 3).float()
    target = share * one_hot + (1 - share) * one_hot[partners]
    logits = functional.linear(mixed, model.out_proj.weight, model.out_proj.bias)
    torch.testing.assert_close(loss, -(target * logits.log_softmax(1)).sum())
    plain = functional.linear(x, model.out_proj.weight, model.out_proj.bias)
    torch.testing.assert_close(model.eval()(x), plain)


def test_the_hidden_loss_is_one_minus_the_cosine_to_the_teacher() -> None:
    model, x, theirs = _Head().train(), torch.randn(2, 5), torch.randn(2, 5)
    objective = Objective(ObjectiveOptions(hidden=3.0), features=Features(model, "out_proj"))
    objective.begin(2, seed=(0,))
    taught = TeacherOutputs(torch.zeros(2, 3), theirs)
    loss = objective.of_rows([model(x)], Targets(LABELS, taught))
    entropy = functional.cross_entropy(model.out_proj(x), LABELS, reduction="sum")
    distance = 1 - (x * theirs).sum(1) / (x.norm(dim=1) * theirs.norm(dim=1))
    torch.testing.assert_close(loss, entropy + 3.0 * distance.sum())


def test_rows_count_by_their_weights_and_with_their_own_smoothing() -> None:
    targets = Targets(LABELS, weights=torch.tensor([2.0, 0.5]), smoothing=torch.tensor([0.0, 0.3]))
    log = LOGITS.log_softmax(1)
    expected = -2.0 * log[0, 0] - 0.5 * (0.7 * log[1, 2] + 0.1 * log[1].sum())
    torch.testing.assert_close(Objective().of_rows([LOGITS], targets), expected)


def test_rows_without_a_label_give_their_consistency_alone() -> None:
    objective = Objective(ObjectiveOptions(consistency=3.0))
    assert objective.passes == 2
    labels = torch.tensor([0, -1])
    p, q = LOGITS[1].softmax(0), OTHERS[1].softmax(0)
    divergence = (p * (p / q).log()).sum() + (q * (q / p).log()).sum()
    entropy = -(LOGITS[0].log_softmax(0)[0] + OTHERS[0].log_softmax(0)[0]) / 2
    loss = objective.of_rows([LOGITS, OTHERS], Targets(labels))
    torch.testing.assert_close(loss, entropy + 3.0 * divergence / 2)
    weighted = Targets(labels, weights=torch.ones(2))
    torch.testing.assert_close(objective.of_rows([LOGITS, OTHERS], weighted), loss)


def test_penalties_are_summed() -> None:
    objective = Objective(penalties=(lambda: torch.tensor(1.0), lambda: torch.tensor(2.5)))
    assert float(objective.penalty()) == 3.5
    assert objective.penalty() is not None
    assert Objective().penalty() == 0.0
