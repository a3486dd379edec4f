"""The `export` command: options that do not fit what is written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pennyweight.errors import RunError


def test_an_onnx_model_is_always_merged(workspace: Path, pennyweight: Callable[..., str]) -> None:
    run = str(workspace / "runs" / "one")
    with pytest.raises(RunError, match="an ONNX model is always merged"):
        pennyweight("export", run, "--to", "onnx", "--out", "x", "--merged")


def test_options_of_an_onnx_model_are_refused_for_the_hub(
    workspace: Path, pennyweight: Callable[..., str]
) -> None:
    run = str(workspace / "runs" / "one")
    for option, value in (("--precision", "int8-dynamic"), ("--minimum-agreement", "0.5")):
        with pytest.raises(RunError, match=f"^{option}: "):
            pennyweight("export", run, "--to", "hub", "--out", "x", option, value)
