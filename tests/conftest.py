"""Fixtures for every test."""

from __future__ import annotations

import os
from pathlib import Path

import hypothesis
import pytest
import threadpoolctl
import torch

# How long an example takes says more about the machine than about the code.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


@pytest.fixture(scope="session", autouse=True)
def share_of_the_cores() -> None:
    """Let workers that run side by side share the cores: waiting threads slow each other down."""
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    cores = int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1)
    share = max(1, cores // workers)
    torch.set_num_threads(share)
    threadpoolctl.threadpool_limits(share)
    # For the processes that tests start.
    os.environ["OMP_NUM_THREADS"] = str(share)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data beside the checkout; tests that need it are skipped without it."""
    folder = Path(__file__).resolve().parents[1].parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the real data is not on this machine: no folder ../shared/data")
    return folder
