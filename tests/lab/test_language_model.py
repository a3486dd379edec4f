"""Language models are trained repeatably, and loading one never runs foreign code."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from pennyweight.errors import DataError
from pennyweight.lab.fine_tuning import FineTuning
from pennyweight.lab.language_model import LanguageModel, ModelSize
from tiny import news

TEXTS = [text for _, text in news(200, seed=5)]
SIZE = ModelSize(vocabulary=400, layers=1, width=32, heads=2, context=64)


def test_training_lowers_perplexity_and_is_repeatable(tmp_path: Path) -> None:
    tuning = FineTuning(epochs=12, learning_rate=3e-3, batch_tokens=1024)
    perplexities = []
    for _ in range(2):
        model = LanguageModel.untrained(TEXTS, SIZE)
        before = model.perplexities(TEXTS[:20]).mean()
        model.fit(TEXTS, tuning)
        perplexities.append(model.perplexities(TEXTS[:20]))
        assert perplexities[-1].mean() < 0.5 * before
    assert np.array_equal(*perplexities)
    model.save(tmp_path / "lm")
    reloaded = LanguageModel.load(tmp_path / "lm").perplexities(TEXTS[:20])
    np.testing.assert_allclose(reloaded, perplexities[1], rtol=1e-5)


def test_the_error_for_a_missing_model_says_how_to_train_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DataError, match="pennyweight data language-model"):
        LanguageModel.load(tmp_path / "nothing")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("pennyweight.hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(DataError, match=r"cannot be reached \(HF_HUB_OFFLINE is set"):
        LanguageModel.load("nobody/such-a-model")
    with pytest.raises(DataError, match="neither a directory nor a hub id"):
        LanguageModel.load("a b c")


# A model's own code, which would leave a file behind if it were run.
_CODE = """
from pathlib import Path

from transformers import GPT2Config, GPT2LMHeadModel

Path({marker!r}).touch()


class Config(GPT2Config):
    model_type = "stranger"


class Model(GPT2LMHeadModel):
    config_class = Config
"""


@pytest.mark.parametrize("tokenizer_is_loaded", [False, True])
def test_a_model_that_needs_its_own_code_is_refused_in_one_line_and_the_code_is_not_run(
    tokenizer_is_loaded: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, marker = tmp_path / "lm", tmp_path / "code-was-run"
    model = LanguageModel.untrained(TEXTS, SIZE)
    model.save(folder)
    (folder / "stranger.py").write_text(_CODE.format(marker=str(marker)))
    auto_map = {"AutoConfig": "stranger.Config", "AutoModelForCausalLM": "stranger.Model"}
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "stranger", "auto_map": auto_map}
    (folder / "config.json").write_text(json.dumps(config))
    # Transformers asks on the terminal before it runs code; agree.
    monkeypatch.setattr("builtins.input", lambda _prompt="": "y")
    if tokenizer_is_loaded:
        # The tokenizer is loaded first and refuses; let the model's turn come too.
        monkeypatch.setattr(AutoTokenizer, "from_pretrained", lambda *_, **__: model.tokenizer)
    with pytest.raises(DataError, match="its own repository, which is never run") as refusal:
        LanguageModel.load(folder)
    assert "\n" not in str(refusal.value)
    assert "trust_remote_code" not in str(refusal.value)
    assert not marker.exists()


def test_pickled_weights_are_refused_in_one_line(tmp_path: Path) -> None:
    model = LanguageModel.untrained(TEXTS, SIZE)
    model.save(tmp_path / "lm")
    (tmp_path / "lm" / "model.safetensors").unlink()
    torch.save(model.model.state_dict(), tmp_path / "lm" / "pytorch_model.bin")
    with pytest.raises(DataError, match="pickled weights could run code") as refusal:
        LanguageModel.load(tmp_path / "lm")
    assert "\n" not in str(refusal.value)


def test_a_width_that_the_heads_do_not_divide_is_refused() -> None:
    with pytest.raises(DataError, match=r"width: given 30, but it must be a multiple of .* 4"):
        ModelSize(width=30)


def test_too_little_text_is_refused() -> None:
    size = ModelSize(vocabulary=300, layers=1, width=32, heads=2)
    model = LanguageModel.untrained(["a b"], size)
    with pytest.raises(DataError, match="needs at least 256"):
        model.fit(["a b"], FineTuning(epochs=1, learning_rate=1e-3))
