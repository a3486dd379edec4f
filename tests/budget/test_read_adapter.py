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
from pennyweight.budget.facts import ArtifactFacts, read_artifact_facts, write_artifact_facts
from pennyweight.budget.inspect import inspect_adapter
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
def test_file_holds_exactly_the_trained_parameters(
    tmp_path: Path, bias: str, seq_cls: bool
) -> None:
    trained = _saved(tmp_path, bias=bias, seq_cls=seq_cls)
    file = read_adapter(tmp_path)
    assert file.parameters == trained
    assert file.path == tmp_path / "adapter_model.safetensors"
    assert file.bytes == file.path.stat().st_size
    assert file.config["r"] == 2
    assert bool(file.aliases) == (bias == "all" and seq_cls)


def test_pickled_adapter_is_read_as_tensors_only(tmp_path: Path) -> None:
    trained = _saved(tmp_path, bias="all")
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_model.safetensors").unlink()
    torch.save(tensors, tmp_path / "adapter_model.bin")
    file = read_adapter(tmp_path)
    assert file.parameters == trained
    assert file.path.name == "adapter_model.bin"


def test_foreign_adapter_is_counted_too(tmp_path: Path) -> None:
    config = {"peft_type": "IA3", "base_model_name_or_path": "somebody/model"}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    save_file(
        {"base_model.model.h.0.ia3_l": torch.zeros(7, 1)}, tmp_path / "adapter_model.safetensors"
    )
    file = read_adapter(tmp_path)
    assert (file.parameters, file.aliases) == (7, ())


class _Malicious:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("raise SystemExit('executed')",)


@pytest.mark.parametrize("content", [_Malicious(), [1, 2], {"a": "text"}, torch.zeros(3)])
def test_pickle_other_than_a_table_of_tensors_is_refused(tmp_path: Path, content: object) -> None:
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
    with pytest.raises(RunError, match=r"has neither adapter_model\.safetensors nor"):
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


@pytest.mark.parametrize("with_facts", [True, False])
def test_inspect_counts_frozen_tensors_apart_from_trained_ones(
    tmp_path: Path, with_facts: bool
) -> None:
    trained = _saved(tmp_path, bias="none")
    a = 4 * 2 * 32  # of four matrices with 32 columns at rank 2
    if with_facts:
        facts = ArtifactFacts(("a", "b", "c", "d"), "lora-fa", (".lora_A.",))
        write_artifact_facts(tmp_path, facts)
        assert read_artifact_facts(tmp_path) == facts
    frozen = a if with_facts else 0
    report = inspect_adapter(tmp_path)
    assert report["trainable_parameters"] == trained - frozen
    assert report["frozen_parameters"] == frozen
    assert sum(matrix["parameters"] for matrix in report["matrices"]) == trained - frozen
    adapters = [matrix for matrix in report["matrices"] if matrix["rank"] == 2]
    assert {matrix["kind"] for matrix in adapters} == {"lora-fa" if with_facts else "lora"}
    assert {matrix["parameters"] for matrix in adapters} == {2 * 32 if with_facts else 2 * 64}


def test_veras_random_matrices_are_not_counted_in_a_foreign_adapter(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "VERA"}))
    tensors = {
        "base_model.vera_A": torch.zeros(4, 8),
        "base_model.vera_B": torch.zeros(8, 4),
        "base_model.model.x.vera_lambda_b": torch.zeros(8),
        "base_model.model.x.vera_lambda_d": torch.zeros(4),
    }
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    report = inspect_adapter(tmp_path)
    assert (report["trainable_parameters"], report["frozen_parameters"]) == (12, 64)


def test_facts_of_older_artifacts_are_of_a_single_label_task(tmp_path: Path) -> None:
    (tmp_path / "pennyweight.json").write_text('{"labels": ["a", "b"], "method": "lora"}')
    facts = read_artifact_facts(tmp_path)
    assert facts is not None
    assert (facts.task, facts.thresholds) == ("single-label", None)


@pytest.mark.parametrize("text", ["{", "[]", '{"labels": ["a"]}', '{"labels": 3, "method": "x"}'])
def test_broken_facts_are_refused_in_one_line(tmp_path: Path, text: str) -> None:
    _saved(tmp_path, bias="none")
    assert read_artifact_facts(tmp_path) is None
    (tmp_path / "pennyweight.json").write_text(text)
    with pytest.raises(RunError, match=r"pennyweight\.json: cannot be read: ") as caught:
        read_adapter(tmp_path)
    assert len(str(caught.value).splitlines()) == 1
