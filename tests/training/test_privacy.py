"""A run directory that is shared tells nothing about whose machine it comes from."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
from pathlib import Path

import pytest

from pennyweight.recipe import load_recipe
from pennyweight.runs.record import load_record
from pennyweight.training.train import train
from tiny import tiny_recipe

_SECRET = "sk-0a1b2c3d4e5f"


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Return the home directory of a user named alice-q7, on a machine named laptop-of-q7."""
    home = tmp_path / "alice-q7"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("API_KEY", _SECRET)
    monkeypatch.setattr(socket, "gethostname", lambda: "laptop-of-q7")
    return home


def _files_with(run: Path, text: str) -> list[str]:
    """Return the files whose name or content has a text, in any case."""
    sought = text.lower().encode()
    return [
        str(path.relative_to(run))
        for path in run.rglob("*")
        if path.is_file() and (sought in path.read_bytes().lower() or sought in str(path).encode())
    ]


@pytest.mark.parametrize("base", ["bert", "embedded"])
def test_a_run_names_neither_its_user_nor_home_nor_host_nor_secrets(
    base: str, bert: Path, sets: Path, home: Path, tmp_path: Path
) -> None:
    if base == "bert":
        base = str(shutil.copytree(bert, home / "bert"))
    data = shutil.copytree(sets, home / "data")
    with (data / "train.csv").open("a", encoding="utf-8") as file:
        file.write("no-such-label,a bad row\n")
    recipe = tiny_recipe(
        base,
        data,
        data={"filters": [{"method": "length", "longest": 10}], "on_bad_row": "set-aside"},
        train={"max_steps": 2, "evaluate_every": 1, "trackers": ["tensorboard"]},
        **({"base": {"name": "embedded"}} if base == "embedded" else {}),
    )
    run = tmp_path / "run"
    record = train(recipe, out=run)
    assert list((run / "logs").rglob("events.out.tfevents.*"))
    assert list((run / "bad_rows").iterdir())
    for text in (str(home), "alice-q7", "laptop-of-q7", _SECRET):
        assert _files_with(run, text) == []
    installation = Path(os.__file__).parent
    for text in (str(installation), "site-packages"):
        assert _files_with(run, text) == []
    if getpass.getuser() != "root":  # a word that is in every tokenizer
        assert _files_with(run, getpass.getuser()) == []
    # It can be repeated nevertheless, from any directory.
    assert load_recipe(run) == record.recipe == load_record(run).recipe
    assert train(load_recipe(run), out=tmp_path / "again").metrics == record.metrics
