"""Settings of commands before they import the libraries."""

from __future__ import annotations

import gc
import os
import subprocess
import sys

import pytest

from pennyweight.cli.output import preload, share_cores


@pytest.mark.parametrize("given", [None, "0"])
def test_preloading_leaves_environment_and_collector_as_they_were(
    given: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TORCHDYNAMO_DISABLE", raising=False)
    if given is not None:
        monkeypatch.setenv("TORCHDYNAMO_DISABLE", given)
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        preload("json", "no_such_module")
    assert os.environ.get("TORCHDYNAMO_DISABLE") == given
    assert gc.isenabled()


def test_waiting_threads_sleep_soon_unless_the_user_decides(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Set and deleted, so that both are restored.
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    share_cores()
    assert os.environ["GOMP_SPINCOUNT"] == "2000"
    monkeypatch.delenv("GOMP_SPINCOUNT")
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    share_cores()
    assert "GOMP_SPINCOUNT" not in os.environ


def test_the_interpreter_does_not_search_for_garbage_when_a_command_ends() -> None:
    # What is registered first runs last.
    code = (
        "import atexit, gc; atexit.register(lambda: print('left', len(gc.get_objects()) < 100)); "
        "from pennyweight.cli import main; main()"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code, "--version"], capture_output=True, text=True, check=True
    )
    assert ended.stdout.splitlines()[-1] == "left True"
