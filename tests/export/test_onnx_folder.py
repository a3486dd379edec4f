"""ONNX exports: they run without Pennyweight, agree with the run, and say how well."""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from tokenizers import Tokenizer, processors

from pennyweight.engine.onnx_backend import OnnxModel
from pennyweight.errors import RunError
from pennyweight.export import onnx_folder
from pennyweight.export.onnx_folder import OnnxOptions, export_to_onnx
from pennyweight.export.quantization import Precision, Scheme
from pennyweight.inference.classifier import Classifier
from pennyweight.training.train import train
from tiny import tiny_recipe, write_pairs, write_several_labels

SINGLE, PAIR = '["A text.", "Another text."]', '[("A text.", "Another text.")]'
TEXTS = ["goal coach   the season", "shares profit says new merger"]


@pytest.fixture(scope="module", autouse=True)
def need_onnx() -> None:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)


def run_readme(folder: Path, texts: Sequence[object], *, placeholder: str = SINGLE) -> str:
    """Run the README's code in its folder, for some texts, and return what it prints."""
    (code,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    assert placeholder in code
    assert len(code.splitlines()) <= 12
    code = code.replace(placeholder, repr(texts))
    code += "import sys\nassert not {'torch', 'transformers', 'pennyweight'} & set(sys.modules)\n"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("precision", ["fp32", "int8-dynamic", "int8-static"])
def test_an_exported_folder_runs_alone_and_gives_the_run_s_labels(
    pooled_run: Path, tmp_path: Path, precision: Precision
) -> None:
    out = tmp_path / "export"
    options = OnnxOptions(precision=precision, minimum_agreement=0.9, license_id="mit")
    report = export_to_onnx(pooled_run, out=out, options=options)
    names = {"README.md", "config.json", "export.json", "model.onnx", "tokenizer.json"}
    assert {file.name for file in out.iterdir()} == names
    backend = OnnxModel(out / "model.onnx", batch_rows=2, classes=4)
    exported_classifier = Classifier.load(pooled_run).with_backend(backend, is_folded=True)
    assert run_readme(out, TEXTS) == str(exported_classifier.predict(TEXTS))
    assert (report.rows, report.source) == (12, "test.csv")
    exported = report.exported
    assert exported.agrees_with_torch >= 0.9
    assert exported.accuracy is not None
    assert exported.rows_per_second > 0
    assert exported.bytes == (out / "model.onnx").stat().st_size
    if precision == "fp32":
        assert exported.relative_difference < 1e-4
        assert exported.agrees_with_torch == 1.0
    else:
        assert exported.largest_difference > 1e-4
        fp32 = report.models["fp32, ONNX Runtime"].bytes
        assert fp32 is not None
        assert exported.bytes < fp32
    values = json.loads((out / "export.json").read_text())
    assert values["models"][f"{precision}, ONNX Runtime"]["bytes"] == exported.bytes
    card = (out / "README.md").read_text()
    documentation = Path(__file__).parents[2] / "docs" / "how-to" / "export.md"
    assert "\n".join(card.split("```python\n")[1].splitlines()[:11]) in documentation.read_text()
    assert "license: mit" in card
    assert "Clean every text" in card
    assert f"| {precision}, ONNX Runtime | " in card


def test_pairs_of_texts_are_told_apart_by_token_types(bert: Path, tmp_path: Path) -> None:
    base = shutil.copytree(bert, tmp_path / "base")
    file = base / "tokenizer.json"
    tokenizer = Tokenizer.from_file(str(file))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    tokenizer.save(str(file))
    config = base / "tokenizer_config.json"
    values = json.loads(config.read_text()) | {
        "model_input_names": ["input_ids", "token_type_ids", "attention_mask"]
    }
    config.write_text(json.dumps(values))
    write_pairs(tmp_path)
    train(tiny_recipe(base, tmp_path, train={"max_steps": 2}), out=tmp_path / "run")
    report = export_to_onnx(tmp_path / "run", out=tmp_path / "export")
    assert report.exported.relative_difference < 1e-4
    pairs = [("goal coach", "shares profit"), ("chip orbit", "the goal says")]
    expected = str(Classifier.load(tmp_path / "run").predict(pairs))
    assert run_readme(tmp_path / "export", pairs, placeholder=PAIR) == expected
    assert 'inputs["token_type_ids"] = ' in (tmp_path / "export" / "README.md").read_text()


def test_several_labels_are_given_by_their_thresholds(bert: Path, tmp_path: Path) -> None:
    write_several_labels(tmp_path)
    data = {"task": "multi-label", "label_separator": "|"}
    recipe = tiny_recipe(bert, tmp_path, data=data, train={"epochs": 2})
    train(recipe, out=tmp_path / "run")
    export_to_onnx(tmp_path / "run", out=tmp_path / "export")
    printed = ast.literal_eval(run_readme(tmp_path / "export", TEXTS))
    expected = Classifier.load(tmp_path / "run").predict(TEXTS)
    assert [sorted(labels) for labels in printed] == [sorted(labels) for labels in expected]


def test_nothing_in_an_exported_folder_names_this_machine(pooled_run: Path, tmp_path: Path) -> None:
    out = tmp_path / "export"
    options = OnnxOptions(precision="int8-dynamic", minimum_agreement=0.5)
    export_to_onnx(pooled_run, out=out, options=options)
    for file in out.iterdir():
        content = file.read_bytes()
        for word in ("private-folder-of-alice", str(tmp_path), sys.prefix, "Traceback"):
            assert word.encode() not in content, (file.name, word)


def test_a_quantized_model_that_disagrees_is_not_written(
    pooled_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[Scheme] = []
    quantize = onnx_folder.quantize

    def remembered(*arguments: Path, scheme: Scheme, **options: object) -> None:
        tried.append(scheme)
        quantize(*arguments, scheme=scheme, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(onnx_folder, "quantize", remembered)
    options = OnnxOptions(precision="int8-static", minimum_agreement=1.01)
    with pytest.raises(RunError, match=r"not written: only .*% of 12 rows of test\.csv get the"):
        export_to_onnx(pooled_run, out=tmp_path / "export", options=options)
    assert list(tmp_path.iterdir()) == []
    # Everything that could help was tried before.
    assert tuple(tried) == onnx_folder.SCHEMES["int8-static"]


def test_an_export_whose_logits_differ_is_not_written(
    pooled_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain_model = Classifier.plain_model

    def damaged(self: Classifier) -> object:
        model = plain_model(self)
        model.classifier.bias.data[0] += 1.0
        return model

    monkeypatch.setattr(Classifier, "plain_model", damaged)
    with pytest.raises(RunError, match="not written: logits of the run and the exported model"):
        export_to_onnx(pooled_run, out=tmp_path / "export")
    assert list(tmp_path.iterdir()) == []
