"""The count of a saved adapter cannot be fooled: every element in the file is counted or listed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

from pennyweight.budget.facts import ArtifactFacts, write_artifact_facts
from pennyweight.budget.inspect import inspect_adapter
from pennyweight.cli.main import app

_QUERY = "base_model.model.bert.encoder.layer.0.attention.self.query"
_LORA = {f"{_QUERY}.lora_A.weight": torch.ones(2, 8), f"{_QUERY}.lora_B.weight": torch.ones(8, 2)}


def _save(folder: Path, tensors: dict[str, torch.Tensor], **config: Any) -> Path:
    values = {"peft_type": "LORA", "lora_alpha": 4, "base_model_name_or_path": "x", **config}
    (folder / "adapter_config.json").write_text(json.dumps(values))
    save_file({**_LORA, **tensors}, folder / "adapter_model.safetensors")
    return folder


@pytest.mark.parametrize(
    "name",
    [
        "base_model.vera_A",
        "base_model.model.x.vera_A.weight",
        "base_model.model.classifier.original_module.weight",
        "base_model.model.classifier.original_module.dense.bias",
        "base_model.model.classifier.modules_to_save.default.weight",
        "base_model.model.x.lora_A.ranknum.weight",
    ],
)
def test_a_tensor_cannot_hide_behind_its_name(tmp_path: Path, name: str) -> None:
    report = inspect_adapter(_save(tmp_path, {name: torch.ones(1000)}))
    assert report["trainable_parameters"] == 1000 + 32
    assert report["left_out"] == []


def test_the_method_in_pennyweights_file_cannot_hide_tensors(tmp_path: Path) -> None:
    directory = _save(tmp_path, {"base_model.vera_A": torch.ones(1000)})
    for facts in (("vera", (".vera_A",)), ("lora", ("",)), ("unknown", ("base_model",))):
        write_artifact_facts(directory, ArtifactFacts(("a", "b"), facts[0], facts[1]))
        assert inspect_adapter(directory)["trainable_parameters"] == 1000 + 32


def test_a_tensor_is_a_repetition_only_if_its_bytes_are_equal(tmp_path: Path) -> None:
    head = torch.arange(6.0)
    names = ["base_model.model.classifier.modules_to_save.default.bias"]
    names.append("base_model.model.classifier.bias")
    same = inspect_adapter(_save(tmp_path, {name: head.clone() for name in names}))
    assert same["trainable_parameters"] == 6 + 32
    assert [one["reason"] for one in same["left_out"]] == ["repeats another tensor"]
    other = inspect_adapter(_save(tmp_path, {names[0]: head, names[1]: head + 1}))
    assert other["trainable_parameters"] == 12 + 32
    assert other["elements_in_file"] == 12 + 32


def test_the_bases_own_bias_beside_a_trained_one_is_listed(tmp_path: Path) -> None:
    module = "base_model.model.classifier"
    tensors = {f"{module}.bias": torch.ones(6), f"{module}.original_module.bias": torch.zeros(6)}
    report = inspect_adapter(_save(tmp_path, tensors))
    assert report["trainable_parameters"] == 6 + 32
    assert report["elements_in_file"] == 12 + 32
    assert "the base's own bias" in report["left_out"][0]["reason"]
    # A bias of another shape is no such twin.
    tensors[f"{module}.original_module.bias"] = torch.zeros(60)
    assert inspect_adapter(_save(tmp_path, tensors))["trainable_parameters"] == 66 + 32


def test_frozen_tensors_are_listed_with_who_says_that_they_are_frozen(tmp_path: Path) -> None:
    directory = _save(tmp_path, {})
    write_artifact_facts(directory, ArtifactFacts(("a", "b"), "lora-fa"))
    (one,) = inspect_adapter(directory)["left_out"]
    assert one["parameters"] == 16
    assert one["reason"] == "frozen by lora-fa, which pennyweight.json names as the method"
    assert f"{one['name']}: {one['reason']}" in _printed(directory)


def test_a_name_with_line_breaks_forges_no_line(tmp_path: Path) -> None:
    forged = "x\n   996,868  trainable parameters in adapter_model.safetensors\x1b[2K"
    printed = _printed(_save(tmp_path, {forged: torch.ones(1000)}))
    lines = [line for line in printed.splitlines() if "trainable parameters" in line]
    assert sum(line.lstrip().startswith("996,868") for line in lines) == 0
    assert "\x1b" not in printed
    assert "1,032  trainable parameters" in printed


def test_an_alpha_pattern_that_takes_forever_is_given_up(tmp_path: Path) -> None:
    name = "base_model.model." + "a" * 60
    tensors = {f"{name}.lora_A.weight": torch.ones(2, 8), f"{name}.lora_B.weight": torch.ones(8, 2)}
    directory = _save(tmp_path, tensors, alpha_pattern={"(a|aa|a?)+b": 3, "(a*)*b": 2})
    report = inspect_adapter(directory)
    assert report["trainable_parameters"] == 64


def test_alphas_of_names_and_of_patterns_are_shown(tmp_path: Path) -> None:
    directory = _save(tmp_path, {}, alpha_pattern={"self\\.query": 3})
    assert inspect_adapter(directory)["matrices"][0]["alpha"] == 3
    directory = _save(tmp_path, {}, alpha_pattern={"layer\\.\\d+\\.attention.*": 5})
    assert inspect_adapter(directory)["matrices"][0]["alpha"] == 5
    directory = _save(tmp_path, {}, alpha_pattern=["no table"])
    assert inspect_adapter(directory)["matrices"][0]["alpha"] == 4


def _printed(directory: Path) -> str:
    result = CliRunner().invoke(app, ["inspect", str(directory)])
    assert result.exit_code == 0, result.exception
    return result.output
