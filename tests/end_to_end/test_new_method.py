"""A new adapter method is one new file: everything else reads its row.

The test copies the package without the file of one method (HRA, Yuan et al. 2024,
arXiv:2405.17484), adds another file for it, and uses it from the recipe to the merged model.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pennyweight

TESTS = Path(__file__).parents[1]

_METHOD = """
from typing import Literal

from pydantic import Field, PositiveInt

from pennyweight.budget.methods.method import Method, Support, Tensors, peft_options
from pennyweight.budget.methods.sections import LowRankSection


class HraAdapter(LowRankSection):
    method: Literal["hra"] = "hra"
    rank: PositiveInt = Field(4, description="number of Householder reflections")
    gram_schmidt: bool = Field(False, description="apply the Gram-Schmidt process")


def _config(layout, choice):
    from peft import HRAConfig

    return HRAConfig(
        **peft_options(layout, choice),
        r=choice.adapted[0].rank,
        apply_GS=choice.options["gram_schmidt"],
        bias=choice.bias,
    )


METHODS = (
    Method(
        name="hra",
        summary="W H1 ... Hr, a product of Householder reflections",
        formula="r columns",
        paper="Yuan et al. 2024, arXiv:2405.17484",
        section=HraAdapter,
        parameters=lambda matrix, rank, options: rank * matrix.columns,
        config=_config,
        tensors=Tensors(peft_type="HRA", prefix="hra_"),
        support=Support(rank_per_matrix=False, low_rank_head=False),
    ),
)
"""

_USE = """
import json
import sys
from pathlib import Path

import numpy as np
import peft
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import pennyweight
from pennyweight.inference.classifier import Classifier
from tiny import news, save_base, tiny_recipe, write_news

folder = Path(sys.argv[1])
assert Path(pennyweight.__file__).is_relative_to(folder)
base, rows = save_base(folder / "base", "roberta"), news(76, seed=1)
for name, part in (("train", rows[:48]), ("validation", rows[48:64]), ("test", rows[64:])):
    write_news(folder / f"{name}.csv", part)
adapter = {"method": "hra", "targets": ["query", "value"], "rank": 2, "gram_schmidt": True}
recipe = tiny_recipe(base, folder, adapter=adapter, train={"epochs": 6})

plan = pennyweight.plan(recipe)
head = 32 * 32 + 32 + 32 * 4 + 4
assert plan.trainable_parameters == 4 * 2 * 32 + head
assert [matrix.rank for matrix in plan.matrices if matrix.kind == "hra"] == [2] * 4

record = pennyweight.train(recipe, out=folder / "run")
losses = [step.loss for step in record.history]
assert np.mean(losses[-6:]) < 0.9 * np.mean(losses[:6])
assert record.parameters.planned == record.parameters.file == plan.trainable_parameters
report = pennyweight.inspect_adapter(folder / "run" / "adapter")
assert (report["method"], report["trainable_parameters"]) == ("hra", plan.trainable_parameters)

texts = [text for _, text in news(12, seed=9)]
plain = AutoModelForSequenceClassification.from_pretrained(base, num_labels=4)
model = peft.PeftModel.from_pretrained(plain, str(folder / "run" / "adapter")).eval()
tokenizer = AutoTokenizer.from_pretrained(folder / "run" / "adapter")
batch = tokenizer(texts, padding=True, return_tensors="pt")
batch.pop("token_type_ids", None)
classifier = Classifier.load(folder / "run")
with torch.inference_mode():
    probabilities = torch.softmax(model(**batch).logits / classifier.temperature, dim=1).numpy()
ours = classifier.predict_probabilities(texts)
np.testing.assert_allclose(probabilities, ours, atol=1e-5)
print(json.dumps({"done": True}))
"""


def _run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(folder / "src"), str(TESTS)])
    environment = os.environ | {
        "PYTHONPATH": path,
        "PENNYWEIGHT_CACHE": str(folder / "cache"),
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, *arguments]
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=600, check=False
    )


def _methods(folder: Path) -> set[str]:
    listed = _run(folder, "-m", "pennyweight", "methods", "--json")
    assert listed.returncode == 0, listed.stderr
    return {row["method"] for row in json.loads(listed.stdout)}


def test_a_method_in_a_file_of_its_own_is_planned_trained_saved_counted_and_reloaded(
    tmp_path: Path,
) -> None:
    source = Path(pennyweight.__file__).parent
    package = tmp_path / "src" / "pennyweight"
    shutil.copytree(source, package, ignore=shutil.ignore_patterns("__pycache__"))
    file = package / "budget" / "methods" / "hra.py"
    file.unlink()
    assert "hra" not in _methods(tmp_path)
    file.write_text(_METHOD)
    assert "hra" in _methods(tmp_path)

    wrong = ("plan", "quickstart", "--set", "adapter.method=hra", "--set", "adapter.gram_schmit=1")
    refused = _run(tmp_path, "-m", "pennyweight", *wrong)
    assert refused.returncode == 2
    assert 'did you mean "gram_schmidt"?' in refused.stderr

    used = _run(tmp_path, "-c", _USE, str(tmp_path))
    assert used.returncode == 0, used.stderr
    assert '{"done": true}' in used.stdout
