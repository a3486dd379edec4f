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
from pennyweight.budget.methods.lora import Initialization
from pennyweight.errors import RecipeError
from pennyweight.inference.classifier import Classifier
from pennyweight.recipe import resolve_recipe
from pennyweight.recipe.optimizers import Optimizer
from pennyweight.training.train import train
from tiny import news, tiny_recipe

TEXTS = [text for _, text in news(12, seed=9)]
# PEFT's warnings when it loads an AdaLoRA adapter that has dropped ranks.
_ADALORA_NOISE = pytest.mark.filterwarnings("ignore:.*have invalid shape")
_ADALORA_RANKS = pytest.mark.filterwarnings("ignore:.*rank_pattern keys did not match")
SHORT = {"start_steps": 2, "final_steps": 5, "every": 1}
METHOD_OPTIONS: dict[str, dict[str, Any]] = {
    "lora": {"rank": 2},
    "rslora": {"rank": 2},
    "dora": {"rank": 2},
    "rsdora": {"rank": 2},
    "lora-fa": {"rank": 2},
    "adalora": {"rank": 2, "target_rank": 1, **SHORT},
    "vera": {"rank": 2},
    "loha": {"rank": 2},
}


def _train(
    base: Path, sets: Path, out: Path, *, optimizer: dict[str, Any] | None = None, **adapter: Any
) -> Any:
    recipe = tiny_recipe(
        base,
        sets,
        adapter={"rank": 2, **({} if adapter.get("method") == "vera" else {"alpha": 4}), **adapter},
        optimizer={"learning_rate": 0.01, **(optimizer or {})},
        train={"epochs": 6},
    )
    return train(recipe, out=out)


def _same_in_plain_peft(base: Path, out: Path) -> None:
    plain = AutoModelForSequenceClassification.from_pretrained(base, num_labels=4)
    model = peft.PeftModel.from_pretrained(plain, str(out / "adapter")).eval()
    batch = AutoTokenizer.from_pretrained(out / "adapter")(TEXTS, padding=True, return_tensors="pt")
    batch.pop("token_type_ids", None)
    with torch.inference_mode():
        probabilities = torch.softmax(model(**batch).logits, dim=1).numpy()
    expected = Classifier.load(out).predict_probabilities(TEXTS)
    np.testing.assert_allclose(probabilities, expected, atol=1e-5)


def _has_learned(record: Any) -> None:
    losses = [step.loss for step in record.history]
    assert np.mean(losses[-6:]) < 0.9 * np.mean(losses[:6])


def test_every_adapter_method_is_covered() -> None:
    adapters = {name for name, method in METHODS.items() if not method.trains_every_weight}
    assert set(METHOD_OPTIONS) == adapters


@_ADALORA_NOISE
@_ADALORA_RANKS
@pytest.mark.parametrize("method", METHOD_OPTIONS)
def test_a_method_trains_as_counted_and_reloads_in_plain_peft(
    roberta: Path, sets: Path, tmp_path: Path, method: str
) -> None:
    out = tmp_path / "run"
    record = _train(roberta, sets, out, method=method, **METHOD_OPTIONS[method])
    _has_learned(record)
    head = 32 * 32 + 32 + 32 * 4 + 4
    rows = columns = 32
    expected = {
        "lora": 2 * (rows + columns),
        "rslora": 2 * (rows + columns),
        "dora": 2 * (rows + columns) + rows,
        "rsdora": 2 * (rows + columns) + rows,
        "lora-fa": 2 * rows,
        "adalora": 2 * (rows + columns + 1),
        "vera": rows + 2,
        "loha": 2 * 2 * (rows + columns),
    }[method]
    assert record.parameters.planned == 4 * expected + head
    report = inspect_adapter(out / "adapter")
    assert report["trainable_parameters"] == record.parameters.file
    assert report["method"] == method
    adapters = [matrix for matrix in report["matrices"] if matrix["kind"] == method]
    assert len(adapters) == 4
    if method not in ("adalora", "vera", "loha"):  # ranks fall, or are not told by the file
        assert {(matrix["rank"], matrix["alpha"]) for matrix in adapters} == {(2, 4)}
    _same_in_plain_peft(roberta, out)


# LoftQ needs a quantized base: see test_quantized.py.
@pytest.mark.parametrize("initialization", sorted({*Initialization.__args__} - {"loftq"}))
def test_an_initialization_trains_and_reloads_in_plain_peft(
    roberta: Path, sets: Path, tmp_path: Path, initialization: str
) -> None:
    out = tmp_path / "run"
    _has_learned(_train(roberta, sets, out, initialization=initialization))
    _same_in_plain_peft(roberta, out)


@_ADALORA_NOISE
@_ADALORA_RANKS
def test_adalora_reaches_its_target_rank_and_the_file_holds_the_remaining_ranks(
    roberta: Path, sets: Path, tmp_path: Path
) -> None:
    adapter = {"method": "adalora", "rank": 4, "target_rank": 1, **SHORT}
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
    rate = {"sgd": 0.03, "adafactor": 0.03, "lion": 0.003}.get(method, 0.01)
    optimizer = {"method": method, "learning_rate": rate}
    if method == "muon":
        optimizer["rest_learning_rate"] = 0.01
    _has_learned(_train(roberta, sets, tmp_path / "run", optimizer=optimizer))


def test_the_default_adapter_is_lora() -> None:
    assert resolve_recipe({}).adapter == resolve_recipe({"adapter": {}}).adapter
    assert resolve_recipe({}).adapter.method == "lora"
