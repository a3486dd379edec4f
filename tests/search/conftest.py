"""Trainings that are simulated."""

from __future__ import annotations

from pathlib import Path

import pytest

from pennyweight.search import search, worker
from search.simulated import simulated_train


@pytest.fixture
def simulated(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Simulate all trainings, without held-out sets; return the directory of a search."""
    monkeypatch.setattr(worker, "train", simulated_train)
    monkeypatch.setattr("pennyweight.search.held_out.compare_on_held_out", lambda *_: {})
    monkeypatch.setattr(search, "plan", lambda recipe: recipe)
    return tmp_path / "out"
