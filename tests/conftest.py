"""Fixtures for every test."""

from __future__ import annotations

import os
from pathlib import Path

import hypothesis
import pytest
import threadpoolctl
import torch

from tiny import bert, own_cache, roberta, sets

__all__ = ["bert", "own_cache", "roberta", "sets"]

# How long an example takes says more about the machine than about the code.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")

# The files that take longest, in seconds to a minute, are run first, so that no worker is left with
# one of them at the end.
_LONG_FILES = (
    "end_to_end/test_embedded.py",
    "test_readme.py",
    "training/test_faults.py",
    "cli/test_verbs.py",
    "report/test_paper.py",
    "training/test_two_processes.py",
    "cli/test_demo.py",
    "export/test_onnx_folder.py",
    "search/test_search.py",
    "export/test_hub_folder.py",
    "serve/test_real_runs.py",
    "inference/test_several_labels.py",
    "inference/test_pairs.py",
    "report/test_notebook.py",
    "end_to_end/test_new_method.py",
    "test_documentation.py",
    "test_wheel.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first; see `_LONG_FILES`."""
    folder = Path(__file__).parent
    places = {folder / name: place for place, name in enumerate(_LONG_FILES)}
    items.sort(key=lambda item: places.get(item.path, len(places)))


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
