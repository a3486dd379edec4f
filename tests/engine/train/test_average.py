"""The moving average of the trained parameters."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from pennyweight.engine.train.average import MovingAverage
from pennyweight.engine.train.checkpoint import load_state, save_state
from pennyweight.engine.train.progress import Progress
from pennyweight.errors import RunError


def _model() -> nn.Module:
    """A frozen layer below a trained one."""
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1, bias=False))
    model[0].requires_grad_(False)
    with torch.no_grad():
        model[1].weight.zero_()
    return model


def _averaged(model: nn.Module, *, steps: int) -> tuple[torch.optim.Optimizer, MovingAverage]:
    """Steps that add 1 to every trained weight."""
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1.0)
    average = MovingAverage(model, optimizer, decay=0.9)
    for _ in range(steps):
        model[1].weight.grad = torch.full((1, 2), -1.0)
        optimizer.step()
    return optimizer, average


def test_the_average_follows_the_weights_and_gives_them_back() -> None:
    model = _model()
    _, average = _averaged(model, steps=3)
    expected = 0.0
    for step in range(1, 4):
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * step
    with average.in_place():
        assert model[1].weight.tolist() == [[pytest.approx(expected)] * 2]
    assert model[1].weight.tolist() == [[3.0, 3.0]]


def test_frozen_parameters_are_not_copied() -> None:
    _, average = _averaged(_model(), steps=0)
    sizes = [value.numel() for value in average.state_dict().values()]
    assert sorted(sizes) == [1, 2]


def _scheduler(optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
    return torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)


def test_an_average_from_a_checkpoint_continues_as_if_it_had_not_stopped(tmp_path: Path) -> None:
    whole, first, second = _model(), _model(), _model()
    _, expected = _averaged(whole, steps=5)
    optimizer, average = _averaged(first, steps=2)
    save_state(
        tmp_path,
        optimizer=optimizer,
        scheduler=_scheduler(optimizer),
        progress=Progress(step=2),
        average=average,
    )
    second.load_state_dict(first.state_dict())
    optimizer, average = _averaged(second, steps=0)
    progress = load_state(
        tmp_path, optimizer=optimizer, scheduler=_scheduler(optimizer), average=average
    )
    assert progress == Progress(step=2)
    for _ in range(3):
        second[1].weight.grad = torch.full((1, 2), -1.0)
        optimizer.step()
    with expected.in_place(), average.in_place():
        assert torch.equal(whole[1].weight, second[1].weight)


def test_an_average_of_an_older_version_is_refused_in_one_line(tmp_path: Path) -> None:
    optimizer, average = _averaged(_model(), steps=1)
    scheduler = _scheduler(optimizer)
    save_state(tmp_path, optimizer=optimizer, scheduler=scheduler, progress=Progress())
    path = tmp_path / "training_state.pt"
    state = torch.load(path, weights_only=True)
    torch.save({**state, "average": {"average": [torch.zeros(1, 2)], "steps": 1}}, path)
    with pytest.raises(RunError) as caught:
        load_state(tmp_path, optimizer=optimizer, scheduler=scheduler, average=average)
    assert str(caught.value) == (
        f"{tmp_path}: the checkpoint cannot be read: the moving average was saved by an older "
        "version of Pennyweight; train again into a new directory"
    )


def test_an_average_of_another_model_is_refused() -> None:
    _, average = _averaged(_model(), steps=1)
    other = nn.Linear(3, 1)
    larger = MovingAverage(other, torch.optim.SGD(other.parameters()), decay=0.9)
    with pytest.raises(RunError, match="a model of another shape"):
        average.load_state_dict(larger.state_dict())
