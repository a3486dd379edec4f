"""Every adapter method and optimizer trains, is counted, and reloads in plain PEFT."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from pennyweight.budget.count import read_adapter
from pennyweight.budget.inspect import inspect_adapter
from pennyweight.budget.methods import METHODS
from pennyweight.budget.methods.lora import Initialization, LoraAdapter
from pennyweight.errors import RecipeError
from pennyweight.inference.classifier import Classifier
from pennyweight.recipe import resolve_recipe
from pennyweight.recipe.optimizers import Optimizer
from pennyweight.training.train import train
from small_adapters import SMALL
from tiny import news, tiny_recipe

TEXTS = [text for _, text in news(12, seed=9)]
# PEFT's warnings when it loads an AdaLoRA adapter that has dropped ranks.
_ADALORA_NOISE = pytest.mark.filterwarnings("ignore:.*have invalid shape")
_ADALORA_RANKS = pytest.mark.filterwarnings("ignore:.*rank_pattern keys did not match")
# PEFT's warnings about layers that are not linear, and about a CUDA extension that is not needed.
_OTHER_LAYERS = pytest.mark.filterwarnings("ignore:.*Unsupported layer type")
_EXTENSION = pytest.mark.filterwarnings("ignore:.*CUDA extension", "ignore:Setting boft_n")
# torch's warning when SHiRA makes a sparse matrix.
_SPARSE = pytest.mark.filterwarnings("ignore:Sparse invariant checks")
SHORT = {"start_steps": 2, "final_steps": 5, "every": 1}
METHOD_OPTIONS = SMALL | {"adalora": {**SMALL["adalora"], **SHORT}}
_D, _LABELS = 32, 4
_NORMS = 5  # of the embeddings, and two in each layer
# What the adapters of 4 square matrices with 32 rows, the queries and values, train.
_COSTS: dict[str, int] = {
    "lora": 4 * 2 * 2 * _D,
    "rslora": 4 * 2 * 2 * _D,
    "dora": 4 * (2 * 2 * _D + _D),
    "rsdora": 4 * (2 * 2 * _D + _D),
    "lora-fa": 4 * 2 * _D,
    "adalora": 4 * 2 * (2 * _D + 1),
    "vera": 4 * (_D + 2),
    "pvera": 4 * (_D + 2 * 2),
    "loha": 4 * 2 * 2 * 2 * _D,
    "beft": 2 * _D,  # values only
    "bitfit": 2 * (5 * _D + 48),
    "c3a": 4 * _D * _D // 8,
    "deft": 4 * 2 * 2 * _D,
    "delora": 4 * (2 * 2 * _D + 1),
    "fourierft": 4 * 60,
    "waveft": 4 * 60,
    "glora": 4 * (2 * 2 * 2 * _D + 2 * (_D + 1) + 2),
    "gralora": 4 * 4 * 2 * _D,
    "hira": 4 * 4 * 2 * _D,
    "hra": 4 * 2 * _D,
    "ia3": 2 * (2 * _D + _D + 48),  # keys, values, and the inputs of both output matrices
    "ln-tuning": _NORMS * 2 * _D,
    "lokr": 4 * (4 * 4 + 2 * (8 + 8)),
    "miss": 4 * 3 * _D,
    "oft": 4 * _D * 7 // 2,
    "boft": 4 * (_D * 4 + _D),
    "psoft": 4 * (15 + 6 + 6),
    "osf": 4 * 4 * (2 * _D + 1),
    "peanut": 4 * 2 * 2 * _D,
    "randlora": 4 * 4 * (10 + _D),
    "road": 4 * 2 * _D,
    "shira": 4 * 2 * 2 * _D,
    "tinylora": 4 * 9,
    "unilora": 50,
    "vblora": 4 * 4 * (2 * _D // 16) * 12 + 12 * 16,
}


def _train(
    base: Path, sets: Path, out: Path, *, optimizer: dict[str, Any] | None = None, **adapter: Any
) -> Any:
    recipe = tiny_recipe(
        base,
        sets,
        base={"attention": "packed"},
        adapter=adapter,
        optimizer={"learning_rate": 0.01, **(optimizer or {})},
        train={"epochs": 6},
    )
    return train(recipe, out=out)


def _same_in_plain_peft(base: Path, out: Path) -> None:
    plain = AutoModelForSequenceClassification.from_pretrained(base, num_labels=4)
    model = peft.PeftModel.from_pretrained(plain, str(out / "adapter")).eval()
    batch = AutoTokenizer.from_pretrained(out / "adapter")(TEXTS, padding=True, return_tensors="pt")
    batch.pop("token_type_ids", None)
    classifier = Classifier.load(out)
    with torch.inference_mode():
        logits = model(**batch).logits / classifier.temperature
    probabilities = torch.softmax(logits, dim=1).numpy()
    expected = classifier.predict_probabilities(TEXTS)
    np.testing.assert_allclose(probabilities, expected, atol=1e-5)


def _has_learned(record: Any) -> None:
    losses = [step.loss for step in record.history]
    assert np.mean(losses[-6:]) < 0.9 * np.mean(losses[:6])


def test_every_adapter_method_is_covered() -> None:
    adapters = {name for name, method in METHODS.items() if not method.trains_every_weight}
    assert set(METHOD_OPTIONS) == set(_COSTS) == adapters


@_ADALORA_NOISE
@_ADALORA_RANKS
@_OTHER_LAYERS
@_EXTENSION
@_SPARSE
@pytest.mark.parametrize("method", METHOD_OPTIONS)
def test_a_method_trains_as_counted_and_reloads_in_plain_peft(
    roberta: Path, sets: Path, tmp_path: Path, method: str
) -> None:
    out = tmp_path / "run"
    record = _train(roberta, sets, out, method=method, **METHOD_OPTIONS[method])
    _has_learned(record)
    head = _D * _D + _D + _D * _LABELS + _LABELS
    assert record.parameters.planned == record.parameters.model == _COSTS[method] + head
    report = inspect_adapter(out / "adapter")
    assert report["trainable_parameters"] == record.parameters.file
    assert report["method"] == method
    adapters = [matrix for matrix in report["matrices"] if matrix["kind"] == method]
    if method == "adalora":  # ranks were dropped
        assert len(adapters) == 4
    else:
        planned = [matrix for matrix in record.plan.matrices if matrix.kind == method]
        counts = {matrix.name: matrix.parameters for matrix in planned if matrix.parameters}
        assert {matrix["name"]: matrix["parameters"] for matrix in adapters} == counts
    if METHODS[method].section is LoraAdapter:  # others do not tell their rank in the file
        assert {(matrix["rank"], matrix["alpha"]) for matrix in adapters} == {(2, 4)}
    _same_in_plain_peft(roberta, out)


# LoftQ needs a quantized base: see test_quantized.py.
@pytest.mark.parametrize("initialization", sorted({*Initialization.__args__} - {"loftq"}))
def test_an_initialization_trains_and_reloads_in_plain_peft(
    roberta: Path, sets: Path, tmp_path: Path, initialization: str
) -> None:
    out = tmp_path / "run"
    _has_learned(_train(roberta, sets, out, rank=2, alpha=4, initialization=initialization))
    _same_in_plain_peft(roberta, out)


@_ADALORA_NOISE
@_ADALORA_RANKS
def test_adalora_reaches_its_target_rank_and_the_file_holds_the_remaining_ranks(
    roberta: Path, sets: Path, tmp_path: Path
) -> None:
    adapter = {"method": "adalora", "rank": 4, "alpha": 4, "target_rank": 1, **SHORT}
    record = _train(roberta, sets, tmp_path / "run", **adapter)
    head = 32 * 32 + 32 + 32 * 4 + 4
    assert record.parameters.planned == 4 * 4 * 65 + head

    def kept(directory: str) -> int:
        config = read_adapter(tmp_path / "run" / directory).config
        return sum(sum(ranks) for ranks in config["rank_pattern"].values())

    # Four matrices: a mean rank of 1 at the end, after 4 in the beginning.
    assert kept("checkpoints/last") == 4
    # The best checkpoint may be an earlier one; its file holds the ranks that it had.
    assert 4 <= kept("adapter") <= 16
    assert record.parameters.file == kept("adapter") * 65 + head
    _same_in_plain_peft(roberta, tmp_path / "run")


def test_adalora_in_a_run_that_is_too_short_is_refused(
    roberta: Path, sets: Path, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match=r"leave no step to reallocate ranks in a run of 36"):
        _train(roberta, sets, tmp_path / "run", method="adalora", rank=12)


def _optimizers() -> list[str]:
    union = Optimizer.__origin__
    return [member.model_fields["method"].default for member in union.__args__]


@pytest.mark.parametrize("method", _optimizers())
def test_an_optimizer_learns(roberta: Path, sets: Path, tmp_path: Path, method: str) -> None:
    rate = {"sgd": 0.03, "adafactor": 0.03, "lion": 0.005}.get(method, 0.01)
    optimizer = {"method": method, "learning_rate": rate}
    if method == "muon":
        optimizer["rest_learning_rate"] = 0.01
    adapter = {"rank": 2, "alpha": 4}
    _has_learned(_train(roberta, sets, tmp_path / "run", optimizer=optimizer, **adapter))


def test_the_default_adapter_is_lora() -> None:
    assert resolve_recipe({}).adapter == resolve_recipe({"adapter": {}}).adapter
    assert resolve_recipe({}).adapter.method == "lora"
