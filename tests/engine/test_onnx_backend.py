"""The ONNX backend: torch's logits in the rows' order, and refusals in one line."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification

from engine.families import CONFIGS, rows_of
from pennyweight.engine import onnx_backend
from pennyweight.engine.batches.rows import collate
from pennyweight.engine.onnx_backend import OnnxModel, export_onnx, require_onnx
from pennyweight.errors import RunError


def _model() -> Any:
    torch.manual_seed(0)
    return AutoModelForSequenceClassification.from_config(
        CONFIGS["roberta"], attn_implementation="eager"
    ).eval()


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    directory = tmp_path_factory.mktemp("onnx") / "export"
    export_onnx(_model(), directory)
    return directory


def test_an_exported_model_has_torch_s_logits_in_the_order_of_the_rows(exported: Path) -> None:
    rows = rows_of(11)
    model = OnnxModel(exported, batch_rows=4, classes=4)
    predictions = model.predict(rows)
    with torch.inference_mode():
        expected = _model()(**collate(rows, np.arange(11))).logits.numpy()
    np.testing.assert_allclose(predictions.logits, expected, atol=1e-5, rtol=1e-5)
    assert predictions.features is None
    assert model.predict(rows.take(np.arange(0))).logits.shape == (0, 4)


def test_an_exported_file_holds_weights_and_operators_alone(exported: Path) -> None:
    import onnx

    (file,) = exported.iterdir()
    content = file.read_bytes()
    paths = [exported, Path(sys.prefix), Path(torch.__file__).parents[1]]
    for word in (*map(str, paths), "pennyweight", "Traceback", 'File "', ".py", "site-packages"):
        assert word.encode() not in content, word
    model = onnx.load(file)
    onnx.checker.check_model(model, full_check=True)
    assert [each.name for each in model.graph.output] == ["logits"]
    assert not any(node.metadata_props or node.doc_string for node in model.graph.node)


def test_features_are_refused(exported: Path) -> None:
    model = OnnxModel(exported, batch_rows=4, classes=4)
    with pytest.raises(RunError, match="returns logits only, no features; use --backend torch"):
        model.predict(rows_of(2), features=True)


def test_a_failed_export_leaves_the_old_one_and_a_file_that_cannot_be_read_is_named(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("no such operator\nand a long story")

    before = sorted(exported.iterdir())
    with monkeypatch.context() as patch:
        patch.setattr(torch.onnx, "export", fail)
        with pytest.raises(RunError, match=r"cannot be exported to ONNX \(no such operator\); use"):
            export_onnx(_model(), exported)
    assert sorted(exported.iterdir()) == before
    (tmp_path / "model.onnx").write_bytes(b"no model")
    with pytest.raises(RunError, match=r"cannot be read by ONNX Runtime .*; delete it"):
        OnnxModel(tmp_path, batch_rows=4, classes=4)


def test_a_missing_package_is_an_instruction(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_backend.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        RunError,
        match=r"onnx, onnxscript, onnxruntime are not installed; pip install 'pennyweight\[onnx\]'",
    ):
        require_onnx()


def test_rows_with_token_types_need_a_model_that_reads_them(exported: Path) -> None:
    model = OnnxModel(exported, batch_rows=4, classes=4)
    rows = rows_of(2)
    with pytest.raises(RunError, match="reads no token types, unlike these rows"):
        model.predict(replace(rows, token_types=rows.store))
