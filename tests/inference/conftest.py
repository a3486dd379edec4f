"""Fixtures: the tiny bases and sets, a finished run, and unlabelled texts."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import pytest

from pennyweight.training.train import train
from tiny import BASELINES, news, tiny_recipe


@pytest.fixture(scope="session")
def run(bert: Path, sets: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a finished run, which tests must not change."""
    out = tmp_path_factory.mktemp("inference") / "run"
    train(tiny_recipe(bert, sets, evaluate=BASELINES), out=out)
    return out


@pytest.fixture
def copied_run(run: Path, tmp_path: Path) -> Path:
    """Return a copy of the finished run, for tests that change it."""
    return shutil.copytree(run, tmp_path / "run")


@pytest.fixture
def texts(tmp_path: Path) -> list[str]:
    """Return 21 texts, one of which occurs twice; `unlabelled.csv` holds them without labels."""
    texts = [text for _, text in news(20, seed=11)]
    texts.append(texts[0])
    with (tmp_path / "unlabelled.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("text",), *((text,) for text in texts)])
    return texts
