"""Messages between processes that train together, and how long they wait."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from pennyweight.errors import RunError, TerminatedError, TrainingError
from pennyweight.training.processes import (
    TIMEOUT,
    explaining_lost_processes,
    gradient_bytes,
    share_model,
    waiting,
)


@pytest.fixture
def group() -> Iterator[None]:
    """Make this process a group of one."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


class _Model(torch.nn.Module):
    """A frozen matrix and buffer, as of a base, and a trained matrix and vector."""

    def __init__(self) -> None:
        super().__init__()
        self.frozen = torch.nn.Linear(64, 32).requires_grad_(False)
        self.register_buffer("positions", torch.ones(1000))
        self.trained = torch.nn.Linear(32, 3)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.trained(self.frozen(inputs)) + self.positions.sum()


def test_only_the_gradients_of_trained_parameters_travel(group: None) -> None:
    model = _Model()
    accelerator: Any = SimpleNamespace(prepare=DistributedDataParallel)
    shared = share_model(accelerator, model)
    sizes: list[int] = []

    # Without annotations, which torch compares as objects.
    def count(_, bucket):
        sizes.append(bucket.buffer().nbytes)
        future: torch.futures.Future[torch.Tensor] = torch.futures.Future()
        future.set_result(bucket.buffer())
        return future

    shared.register_comm_hook(None, count)
    with torch.profiler.profile() as profile:
        shared(torch.ones(2, 64)).sum().backward()
    assert sum(sizes) == gradient_bytes(model) == 4 * (3 * 32 + 3)
    names = {event.key for event in profile.key_averages()}
    assert "DistributedDataParallel.forward" in names
    # No buffer is sent before the forward pass.
    assert not [name for name in names if "broadcast" in name]


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "soon"])
def test_a_timeout_is_a_whole_number_of_seconds(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TIMEOUT, raising=False)
    assert waiting().timeout.total_seconds() == 1800
    monkeypatch.setenv(TIMEOUT, "60")
    assert waiting().timeout.total_seconds() == 60
    monkeypatch.setenv(TIMEOUT, text)
    with pytest.raises(RunError, match=f"{TIMEOUT}: given '{text}'; allowed: a whole number"):
        waiting()


def test_an_error_of_one_process_alone_is_no_lost_process() -> None:
    def fail(processes: int) -> None:
        accelerator: Any = SimpleNamespace(num_processes=processes, process_index=1)
        with explaining_lost_processes(accelerator, rest=lambda: "go on"):
            raise RuntimeError(
                "[/gloo/pair.cc:537] Read error [::1]:28: Connection closed by peer. Good luck."
            )

    with pytest.raises(RuntimeError, match="Connection closed"):
        fail(1)
    with pytest.raises(
        TrainingError, match=r"^process 1 .*: Read error \[::1\]:28: Connection closed by peer; go"
    ):
        fail(2)


def test_a_signal_that_follows_the_end_of_another_process_is_a_lost_process() -> None:
    def stop(processes: int, *ended: int) -> None:
        accelerator: Any = SimpleNamespace(num_processes=processes, process_index=0)
        with explaining_lost_processes(accelerator, rest=lambda: "go on"):
            raise TerminatedError(signal.SIGTERM, ended)

    with pytest.raises(
        TrainingError,
        match=r"^process 0 cannot go on without another process of this training, which has ended: "
        "process 1; go on$",
    ):
        stop(2, 1)
    for processes in (1, 2):
        with pytest.raises(TerminatedError, match="stopped by SIGTERM"):
            stop(processes)
