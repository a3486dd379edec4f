"""`pennyweight demo`: what it prints, what it refuses, and that an installed package can run it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pennyweight.errors import RunError

SHORT = (
    *("--set", "train.max_steps=1"),
    *("--set", "data.train_rows=48"),
    *("--set", "data.max_tokens=16"),
)
# Nothing but the shifted rows is evaluated.
SHORTER = (
    *SHORT,
    *("--set", "evaluate.test=sample:shifted"),
    *("--set", "evaluate.also={}"),
    *("--set", "evaluate.baselines=[]"),
)


def test_the_demo_prints_results_predictions_and_the_next_commands(
    pennyweight: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    output = pennyweight("demo", *SHORT)
    results, _, rest = output.partition("\nPredictions:\n")
    predictions, _, following = rest.partition("\nNext:\n")
    assert results.endswith(
        "trainable parameters 996,868 of 1,000,000 allowed, verified in runs/demo/adapter\n"
    )
    assert "shifted accuracy " in results
    assert "\n  baselines on shifted: embeddings " in results
    classes = [line.split()[0] for line in predictions.splitlines()]
    assert len(classes) == 2
    assert set(classes) <= {"World", "Sports", "Business", "Sci/Tech"}
    assert "pennyweight evaluate runs/demo --data sample:shifted" in following
    with pytest.raises(RunError, match=r"--out runs/demo: .* pennyweight demo --out runs/demo-2"):
        pennyweight("demo", *SHORTER)


def test_the_demo_works_from_an_installed_package_in_an_empty_directory(tmp_path: Path) -> None:
    # tests/test_wheel.py holds that a wheel contains exactly these files.
    site, empty = tmp_path / "site", tmp_path / "empty"
    source = Path(__file__).parents[2] / "src" / "pennyweight"
    shutil.copytree(source, site / "pennyweight", ignore=shutil.ignore_patterns("__pycache__"))
    empty.mkdir()
    environment = {
        **os.environ,
        "PYTHONPATH": str(site),
        "PENNYWEIGHT_CACHE": str(tmp_path / "cache"),
        "HF_HUB_OFFLINE": "1",
    }
    code = (
        f"import pennyweight, sys; assert pennyweight.__file__.startswith({str(site)!r}); "
        "from pennyweight.cli import main; main()"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, "demo", *SHORTER],
        cwd=empty,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    assert "996,868 of 1,000,000 allowed" in result.stdout
    assert [file.name for file in empty.iterdir()] == ["runs"]
