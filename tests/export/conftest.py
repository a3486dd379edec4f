"""Fixtures: the tiny bases and sets, and finished runs of each kind of head."""

from __future__ import annotations

from pathlib import Path

import pytest

from pennyweight.training.train import train
from tiny import tiny_recipe


@pytest.fixture(scope="session")
def pooled_run(bert: Path, sets: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a finished run with a pooled head, which tests must not change."""
    # A name that must not be found in anything that leaves this machine.
    out = tmp_path_factory.mktemp("private-folder-of-alice") / "run"
    recipe = tiny_recipe(
        bert,
        sets,
        base={"pooling": "mean"},
        data={"clean": ["whitespace"]},
        train={"epochs": 12},
    )
    train(recipe, out=out)
    return out
