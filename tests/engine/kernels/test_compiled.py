"""torch.compile on feed-forward blocks."""

from __future__ import annotations

import shutil

import pytest

from engine.families import adapted
from pennyweight.engine.kernels import compiled
from pennyweight.engine.kernels.attention import PACKED
from pennyweight.engine.kernels.compiled import choose_compile, compile_blocks
from pennyweight.errors import TrainingError


def test_blocks_with_an_adapter_are_not_compiled() -> None:
    assert compile_blocks(adapted("roberta", attention=PACKED).get_base_model()) == 0
    only_queries = adapted("roberta", attention=PACKED, targets=["query"])
    # Two blocks in each of three layers.
    assert compile_blocks(only_queries.get_base_model()) == 6


def test_compile_is_for_gpus_unless_requested(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_compile("off", device="cuda") == (False, "")
    assert choose_compile("auto", device="cpu") == (False, "")
    monkeypatch.setattr(compiled.shutil, "which", lambda _: None)
    with pytest.raises(TrainingError, match=r"train\.compile: .* C\+\+ compiler"):
        choose_compile("on", device="cpu")
    monkeypatch.setattr(compiled.shutil, "which", shutil.which)
