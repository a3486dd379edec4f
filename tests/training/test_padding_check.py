"""An encoder whose answer to a text depends on the texts beside it cannot be trained."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from transformers import AutoModel, DistilBertConfig, FNetConfig, PreTrainedConfig

from pennyweight.errors import TrainingError
from pennyweight.runs.record import load_record
from pennyweight.training.train import train
from tiny import tiny_recipe


def _base(bert: Path, folder: Path, config: PreTrainedConfig) -> Path:
    """Return a base of another architecture with the tokenizer of a tiny BERT."""
    shutil.copytree(bert, folder)
    (folder / "model.safetensors").unlink()
    AutoModel.from_config(config).save_pretrained(folder)
    return folder


def _vocabulary(bert: Path) -> int:
    return int(json.loads((bert / "config.json").read_text())["vocab_size"])


def test_an_encoder_that_mixes_padding_into_a_text_is_refused(
    bert: Path, sets: Path, tmp_path: Path
) -> None:
    config = FNetConfig(
        vocab_size=_vocabulary(bert), hidden_size=32, num_hidden_layers=2, intermediate_size=48,
        max_position_embeddings=64, pad_token_id=1,
    )  # fmt: skip
    recipe = tiny_recipe(
        _base(bert, tmp_path / "base", config),
        sets,
        base={"attention": "auto", "pooling": "mean"},
        adapter={"targets": ["intermediate.dense"], "rank": 2},
    )
    with pytest.raises(TrainingError, match=r"fnet encoders .* because they do not leave out pad"):
        train(recipe, out=tmp_path / "run")
    assert load_record(tmp_path / "run").status == "failed"


def test_an_encoder_that_leaves_out_padding_is_trained(
    bert: Path, sets: Path, tmp_path: Path
) -> None:
    config = DistilBertConfig(
        vocab_size=_vocabulary(bert), dim=32, n_layers=2, n_heads=2, hidden_dim=48,
        max_position_embeddings=64, pad_token_id=1,
    )  # fmt: skip
    recipe = tiny_recipe(
        _base(bert, tmp_path / "base", config),
        sets,
        base={"attention": "auto"},
        adapter={"targets": ["q_lin"], "rank": 2},
        train={"max_steps": 2},
    )
    assert train(recipe, out=tmp_path / "run").status == "complete"
