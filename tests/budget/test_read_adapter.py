"""Saved adapters are counted from the file itself, whoever wrote it."""

from __future__ import annotations

import json
from pathlib import Path

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, RobertaConfig

from pennyweight.budget import read_adapter
from pennyweight.budget.count import trainable_sizes
from pennyweight.errors import RunError


def _saved(folder: Path, *, bias: str, seq_cls: bool = True) -> int:
    """A real PEFT adapter of a tiny RoBERTa in `folder`; its number of trained parameters."""
    config = RobertaConfig(
        vocab_size=50,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=48,
        max_position_embeddings=40,
        num_labels=4,
    )
    model = peft.get_peft_model(
        AutoModelForSequenceClassification.from_config(config),
        peft.LoraConfig(
            task_type="SEQ_CLS" if seq_cls else None,
            r=2,
            target_modules=["query", "value"],
            bias=bias,
        ),
    )
    model.save_pretrained(folder)
    return sum(trainable_sizes(model).values())


@pytest.mark.parametrize("bias", ["none", "all", "lora_only"])
@pytest.mark.parametrize("seq_cls", [True, False])
def test_file_holds_what_is_trained(tmp_path: Path, bias: str, seq_cls: bool) -> None:
    trained = _saved(tmp_path, bias=bias, seq_cls=seq_cls)
    found = read_adapter(tmp_path)
    assert found.parameters == trained
    assert found.path == tmp_path / "adapter_model.safetensors"
    assert found.bytes == found.path.stat().st_size
    assert found.config["r"] == 2
    assert bool(found.aliases) == (bias == "all" and seq_cls)


def test_pickled_adapter_is_read_as_tensors_only(tmp_path: Path) -> None:
    trained = _saved(tmp_path, bias="all")
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_model.safetensors").unlink()
    torch.save(tensors, tmp_path / "adapter_model.bin")
    found = read_adapter(tmp_path)
    assert found.parameters == trained
    assert found.path.name == "adapter_model.bin"


def test_foreign_adapter_is_counted_too(tmp_path: Path) -> None:
    config = {"peft_type": "IA3", "base_model_name_or_path": "somebody/model"}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    save_file(
        {"base_model.model.h.0.ia3_l": torch.zeros(7, 1)}, tmp_path / "adapter_model.safetensors"
    )
    found = read_adapter(tmp_path)
    assert (found.parameters, found.aliases) == (7, ())


class _Malicious:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("raise SystemExit('executed')",)


@pytest.mark.parametrize("content", [_Malicious(), [1, 2], {"a": "text"}, torch.zeros(3)])
def test_pickle_that_is_no_table_of_tensors_is_refused(tmp_path: Path, content: object) -> None:
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    torch.save(content, tmp_path / "adapter_model.bin")
    with pytest.raises(RunError, match=r"adapter_model\.bin: cannot be read as tensors"):
        read_adapter(tmp_path)


def test_directory_without_an_adapter_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"adapter_config\.json is missing"):
        read_adapter(tmp_path)
    config = tmp_path / "adapter_config.json"
    for text in (b"{", b"\xff", b"[]", b"{}"):
        config.write_bytes(text)
        with pytest.raises(RunError, match=r"adapter_config\.json"):
            read_adapter(tmp_path)
    config.write_text('{"peft_type": "LORA"}')
    with pytest.raises(RunError, match="neither"):
        read_adapter(tmp_path)


def test_truncated_files_are_refused(tmp_path: Path) -> None:
    _saved(tmp_path, bias="none")
    weights = tmp_path / "adapter_model.safetensors"
    content = weights.read_bytes()
    for length in (0, 4, 100, len(content) - 1):
        weights.write_bytes(content[:length])
        with pytest.raises(RunError, match="not a safetensors file"):
            read_adapter(tmp_path)
    weights.unlink()
    (tmp_path / "adapter_model.bin").write_bytes(b"not a pickle")
    with pytest.raises(RunError, match="cannot be read as tensors"):
        read_adapter(tmp_path)
