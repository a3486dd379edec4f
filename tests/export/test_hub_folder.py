"""Folders for the hub: plain libraries load them, and they say nothing about this machine."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from pennyweight.base import BaseModel, ConfigChanges, locate
from pennyweight.cli.main import app
from pennyweight.errors import RunError
from pennyweight.export.hub_folder import HubOptions, export_to_hub
from pennyweight.inference import load
from pennyweight.inference.classifier import Classifier
from pennyweight.recipe import Recipe
from pennyweight.runs.record import BaseRecord, load_record, save_record
from pennyweight.training.train import train
from tiny import tiny_recipe

TEXTS = ["goal coach the season", "shares profit says new merger"]
OPTIONS = HubOptions(base_id="me/tiny-bert", license_id="mit", datasets=("me/news",))
_PRINT = """
import sys, json
assert "pennyweight" not in sys.modules
inputs = tokenizer({texts!r}, padding=True, return_tensors="pt")
print(json.dumps(model(**inputs).logits.tolist()))
"""


def front_matter(folder: Path) -> dict[str, Any]:
    values: dict[str, Any] = yaml.safe_load((folder / "README.md").read_text().split("---")[1])
    return values


def run_card(folder: Path, *, with_word: str, changes: dict[str, str]) -> np.ndarray:
    """Run the card's code that contains a word in another process, and return its logits."""
    blocks = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    (code,) = (block for block in blocks if with_word in block)
    for old, new in {"DIRECTORY": str(folder), **changes}.items():
        code = code.replace(old, new)
    command = [sys.executable, "-c", code + _PRINT.format(texts=TEXTS)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return np.array(json.loads(done.stdout.splitlines()[-1]))


def reference(run: Path) -> np.ndarray:
    return Classifier.load(run).unmerged()._predictor.texts(TEXTS).logits


@pytest.fixture(scope="module")
def folder(pooled_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("private-hub") / "folder"
    record = load_record(pooled_run)
    report = export_to_hub(pooled_run, out=out, options=OPTIONS)
    assert record.parameters is not None
    assert report.parameters == record.parameters.file
    assert [file.name for file in report.files] == sorted(file.name for file in out.iterdir())
    return out


def test_plain_transformers_and_peft_load_an_exported_adapter(
    folder: Path, pooled_run: Path, bert: Path
) -> None:
    logits = run_card(folder, with_word="peft", changes={"'me/tiny-bert'": repr(str(bert))})
    np.testing.assert_allclose(logits, reference(pooled_run), atol=1e-5)


def test_an_adapter_with_transformers_own_head_is_loaded_as_its_card_says(
    bert: Path, sets: Path, tmp_path: Path
) -> None:
    train(tiny_recipe(bert, sets, train={"max_steps": 2}), out=tmp_path / "run")
    out = tmp_path / "hub"
    export_to_hub(tmp_path / "run", out=out, options=OPTIONS)
    logits = run_card(out, with_word="peft", changes={"'me/tiny-bert'": repr(str(bert))})
    np.testing.assert_allclose(logits, reference(tmp_path / "run"), atol=1e-5)
    assert "vLLM cannot load this adapter" in (out / "README.md").read_text()
    assert "vllm serve DIRECTORY" in (out / "README.md").read_text()


def test_pennyweight_loads_the_folder_as_a_run(
    folder: Path, pooled_run: Path, bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def find(recipe: Recipe, *, config_only: bool) -> BaseModel:
        assert recipe.base.name == "me/tiny-bert"
        labels = recipe.data.label_names
        return locate(str(bert), labels=labels, changes=ConfigChanges(pooling="mean"))

    expected = Classifier.load(pooled_run).predict(TEXTS)
    monkeypatch.setattr(load, "find_base", find)
    loaded = Classifier.load(folder)
    assert loaded.predict(TEXTS) == expected
    record = load_record(folder)
    assert record.mistakes == {}
    assert record.recipe.data.train is not None
    assert record.recipe.data.train.location == "train.csv"
    assert record.artifact is not None
    assert "README.md" not in record.artifact.files


def test_the_adapter_s_config_and_the_card_name_the_base_on_the_hub(folder: Path) -> None:
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "me/tiny-bert"
    values = front_matter(folder)
    assert values["base_model"] == "me/tiny-bert"
    assert values["base_model_relation"] == "adapter"
    assert (values["license"], values["library_name"]) == ("mit", "peft")
    assert values["datasets"] == ["me/news"]
    results = values["model-index"][0]["results"]
    assert [each["metrics"][0]["type"] for each in results] == ["accuracy"] * 2
    assert "interval_95" in results[0]["metrics"][0]["args"]
    card = (folder / "README.md").read_text()
    for part in ("Intended use", "Trainable parameters. Planned by formula: ", 'method = "lora"'):
        assert part in card


def test_nothing_in_the_folder_names_this_machine(
    folder: Path, pooled_run: Path, bert: Path, sets: Path
) -> None:
    words = ["private-folder-of-alice", "private-hub", str(bert), str(sets), sys.prefix]
    words += (
        [str(Path.home()) + "/x"[:1], socket.gethostname()] if len(str(Path.home())) > 3 else []
    )
    assert str(sets).encode() in (pooled_run / "record.json").read_bytes()
    for file in folder.iterdir():
        content = file.read_bytes()
        for word in words:
            assert word.encode() not in content, (file.name, word)


def test_a_merged_folder_is_loaded_by_plain_transformers(pooled_run: Path, tmp_path: Path) -> None:
    out = tmp_path / "merged"
    options = HubOptions(base_id="me/tiny-bert", merged=True)
    report = export_to_hub(pooled_run, out=out, options=options)
    assert report.merge is not None
    assert report.parameters is None
    code = (
        "from transformers import AutoModelForSequenceClassification, AutoTokenizer\n"
        f"model = AutoModelForSequenceClassification.from_pretrained({str(out)!r}, "
        "trust_remote_code=True)\n"
        f"tokenizer = AutoTokenizer.from_pretrained({str(out)!r})\n"
    )
    command = [sys.executable, "-c", code + _PRINT.format(texts=TEXTS)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    logits = np.array(json.loads(done.stdout.splitlines()[-1]))
    np.testing.assert_allclose(logits, reference(pooled_run), atol=1e-5)
    values = front_matter(out)
    assert (values["library_name"], values["base_model_relation"]) == ("transformers", "merge")
    assert not (out / "record.json").exists()


def test_a_base_without_an_id_on_the_hub_is_refused(pooled_run: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"local directory, .*--base-id OWNER/NAME"):
        export_to_hub(pooled_run, out=tmp_path / "hub")
    with pytest.raises(RunError, match=r"--base-id /a/b/c: expected an id on the hub"):
        export_to_hub(pooled_run, out=tmp_path / "hub", options=HubOptions(base_id="/a/b/c"))
    options = HubOptions(base_id="me/bert", datasets=("a b",))
    with pytest.raises(RunError, match="--dataset a b: expected an id"):
        export_to_hub(pooled_run, out=tmp_path / "hub", options=options)
    assert list(tmp_path.iterdir()) == []


def test_the_id_of_another_base_is_refused(pooled_run: Path, tmp_path: Path) -> None:
    run = shutil.copytree(pooled_run, tmp_path / "run")
    record = load_record(run)
    on_hub = BaseRecord(name="me/bert", reference="me/bert", revision=None, origin="hub")
    named = record.recipe.base.model_copy(update={"name": "me/bert"})
    recipe = record.recipe.model_copy(update={"base": named})
    save_record(run, record.with_changes(recipe=recipe, base=on_hub))
    with pytest.raises(RunError, match="--base-id me/other: the base of this run is me/bert"):
        export_to_hub(run, out=tmp_path / "hub", options=HubOptions(base_id="me/other"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--to", "hub", "--rows", "3"], "--data and --rows: an adapter is copied as it is"),
        (["--to", "onnx", "--base-id", "me/bert"], "--base-id and --dataset: for the hub only"),
    ],
)
def test_options_without_effect_are_refused(
    arguments: list[str], message: str, pooled_run: Path, tmp_path: Path
) -> None:
    command = ["export", str(pooled_run), *arguments, "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(app, command)
    assert message in str(result.exception)
    assert list(tmp_path.iterdir()) == []
