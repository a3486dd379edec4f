"""Python code that comes with a base is never run, and nobody is asked whether it should be."""

from __future__ import annotations

import builtins
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from transformers import BertConfig, BertModel

from pennyweight.base import locate
from pennyweight.errors import BaseModelError
from pennyweight.model import BaseOptions, load_base, load_tokenizer

LABELS = ("ham", "spam")
_CODE = """
from pathlib import Path
from transformers import PreTrainedConfig
Path({marker!r}).write_text("executed")
class OwnConfig(PreTrainedConfig):
    model_type = "own"
"""
_AUTO_MAP = {
    "AutoConfig": "own.OwnConfig",
    "AutoModelForSequenceClassification": "own.OwnModel",
    "AutoTokenizer": ["own.OwnTokenizer", None],
}


@pytest.fixture
def marker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The file that the base's code would write if the user answered "y" to a prompt."""
    prompts: list[object] = []

    def answer(*prompt: object) -> str:
        prompts.append(prompt)
        return "y"

    monkeypatch.setattr(builtins, "input", answer)
    # Where transformers would copy the code to.
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "m"))
    yield tmp_path / "marker"
    assert not prompts
    assert not (tmp_path / "marker").exists()


def _base(tmp_path: Path, marker: Path, config: dict[str, Any]) -> Path:
    directory = tmp_path / "base"
    directory.mkdir(exist_ok=True)
    (directory / "own.py").write_text(_CODE.format(marker=str(marker)))
    (directory / "config.json").write_text(json.dumps({**config, "auto_map": _AUTO_MAP}))
    return directory


def test_a_config_that_needs_its_own_code_is_refused_in_one_line(
    tmp_path: Path, marker: Path
) -> None:
    directory = _base(tmp_path, marker, {"model_type": "own"})
    with pytest.raises(BaseModelError, match=r"base\.name: .*which is never run") as caught:
        locate(str(directory), labels=LABELS)
    assert len(str(caught.value).splitlines()) == 1


def test_a_known_architecture_is_loaded_without_the_code_beside_it(
    tmp_path: Path, marker: Path
) -> None:
    config = BertConfig(
        vocab_size=50,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=48,
        max_position_embeddings=40,
    )
    BertModel(config).save_pretrained(tmp_path / "base")
    directory = _base(tmp_path, marker, json.loads((tmp_path / "base/config.json").read_text()))
    base = locate(str(directory), labels=LABELS)
    for weights in ("pretrained", "random"):
        model, _ = load_base(base, BaseOptions(seed=0, weights=weights))
        assert type(model).__module__.startswith("transformers.")


def test_a_tokenizer_that_needs_its_own_code_is_refused_in_one_line(
    tmp_path: Path, marker: Path
) -> None:
    directory = _base(tmp_path, marker, BertConfig().to_dict())
    tokenizer = {"tokenizer_class": "OwnTokenizer", "auto_map": _AUTO_MAP}
    (directory / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    base = locate(str(directory), labels=LABELS)
    with pytest.raises(BaseModelError, match=r"base\.tokenizer: .*cannot be loaded") as caught:
        load_tokenizer(base, tokenizer=None)
    assert len(str(caught.value).splitlines()) == 1
