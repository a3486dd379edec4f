"""A working directory with a tiny recipe, its data, a finished run and a language model."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pennyweight.cli.main import app
from pennyweight.recipe import dump_recipe
from tiny import tiny_recipe


def run_command(*arguments: str) -> str:
    """Run a command line in this process, and return its standard output."""
    result = CliRunner().invoke(app, list(arguments))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture(scope="session")
def pennyweight() -> Callable[..., str]:
    """Runs a command line in the test's process, and returns its standard output."""
    return run_command


@pytest.fixture(scope="session")
def language_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A language model of one layer, trained by the command line."""
    out = tmp_path_factory.mktemp("language_model") / "lm"
    sizes = ["--layers", "1", "--width", "32", "--vocabulary", "600", "--epochs", "0.3"]
    output = run_command("data", "language-model", "sample:train", "--out", str(out), *sizes)
    assert output == f"language model in {out}\n"
    return out


@pytest.fixture(scope="session")
def workspace(bert: Path, sets: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds tiny.toml, study.toml, train.csv, test.csv, the finished run runs/one and a copy."""
    folder = tmp_path_factory.mktemp("workspace")
    recipe = tiny_recipe(bert, sets, train={"max_steps": 2})
    (folder / "tiny.toml").write_text(dump_recipe(recipe), encoding="utf-8")
    (folder / "study.toml").write_text(
        f'recipe = "{folder}/tiny.toml"\nseeds = [1]\n'
        '[[rows]]\nname = "one"\n[[rows]]\nname = "two"\nset = ["adapter.rank=1"]\n'
    )
    for name in ("train.csv", "test.csv"):
        (folder / name).write_bytes((sets / name).read_bytes())
    run_command("train", str(folder / "tiny.toml"), "--out", str(folder / "runs" / "one"))
    shutil.copytree(folder / "runs" / "one", folder / "copies" / "one")
    return folder


@pytest.fixture
def in_workspace(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The workspace, as the working directory."""
    monkeypatch.chdir(workspace)
    return workspace
