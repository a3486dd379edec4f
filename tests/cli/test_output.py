"""What commands do before they import the libraries."""

from __future__ import annotations

import gc
import os

import pytest

from pennyweight.cli.output import preload


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
