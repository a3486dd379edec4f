"""Adapters on one shared encoder give the same logits in mixed batches as each of them alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification

from engine.families import CONFIGS, DEBERTA, rows_of
from pennyweight.base import BaseModel, ConfigChanges, locate, skeleton
from pennyweight.budget import Spending, make_plan
from pennyweight.budget.methods import METHODS
from pennyweight.engine.batches.rows import TokenizedRows
from pennyweight.engine.device import Compute
from pennyweight.engine.kernels.attention import PACKED
from pennyweight.engine.kernels.prepare import prepare_model
from pennyweight.engine.predictor import Predictions, TorchBackend
from pennyweight.engine.shared_encoder import SharedEncoder
from pennyweight.errors import RunError
from pennyweight.model import BaseOptions, build_model, load_base, load_merged, save_artifact
from pennyweight.model.shared_adapter import SharedAdapter, load_shared_adapter, load_shared_base
from pennyweight.recipe import resolve_recipe
from small_adapters import SMALL

ATTENTIONS = [PACKED, "eager"]


@dataclass(frozen=True)
class Case:
    """An adapter: its number of classes, its `[adapter]` section, and changes of the base."""

    classes: int
    adapter: dict[str, Any]
    changes: ConfigChanges = field(default_factory=ConfigChanges)
    seed: int = 0


EVERYWHERE = {"query": 3, "key": 2, "value": 5, "dense": 4}
CASES = {
    "query and value": Case(4, {"targets": ["query", "value"], "rank": 2, "alpha": 7}),
    "ranks by pattern": Case(3, {"targets": ["*"], "rank": EVERYWHERE, "alpha": 9, "seed": 1}),
    "low-rank head": Case(2, {"method": "rslora", "rank": 3, "head": "low-rank"}, seed=5),
    "output only": Case(
        7, {"targets": ["layer.0.attention.self.value"], "rank": 1, "head": "output-only"}, seed=3
    ),
    "frozen head": Case(4, {"rank": 2, "head": "frozen"}, seed=8),
    "dora": Case(5, {"method": "dora", "targets": ["*"], "rank": 2}),
    "biases": Case(4, {"rank": 2, "bias": "all"}),
    "dora with biases": Case(4, {"method": "dora", "rank": 2, "bias": "lora_only"}),
    "pissa": Case(3, {"rank": 2, "initialization": "pissa"}),
    "olora": Case(3, {"rank": 3, "initialization": "olora", "targets": ["*"]}),
    "adalora": Case(3, SMALL["adalora"] | {"method": "adalora"}),
    "lora-fa": Case(3, {"method": "lora-fa", "rank": 2}),
    "bitfit": Case(6, {"method": "bitfit"}),
    "mean": Case(4, {"rank": 2}, ConfigChanges(pooling="mean")),
    "mean of low rank": Case(
        9,
        {"rank": 4, "head": "low-rank", "head_rank": 2},
        ConfigChanges(pooling="mean", head_rank=2),
    ),
    "first token": Case(3, {"rank": 2, "targets": ["*"]}, ConfigChanges(pooling="first")),
}


@dataclass(frozen=True)
class Saved:
    base: BaseModel
    method: str
    directory: Path
    options: BaseOptions


def save(folder: Path, base_directory: Path, case: Case) -> Saved:
    """Save an adapter with random weights, so that each has logits of its own."""
    labels = [f"class {number}" for number in range(case.classes)]
    base = locate(str(base_directory), labels=labels, changes=case.changes)
    section = {name: value for name, value in case.adapter.items() if name != "seed"}
    adapter = resolve_recipe({"adapter": section}).adapter
    spending = Spending.of(adapter.model_dump())
    plan = make_plan(skeleton(base), spending, labels=case.classes, budget=1_000_000)
    options = BaseOptions(seed=case.seed)
    model, fresh = build_model(base, plan, options)
    generator = torch.Generator().manual_seed(len(str(case)))
    for parameter in model.parameters():
        if parameter.requires_grad:
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.data.add_(0.1 * noise)
    folder.mkdir()
    save_artifact(model, folder / "adapter", plan.artifact_facts(labels), fresh_weights=fresh)
    return Saved(base, adapter.method, folder / "adapter", options)


def alone(saved: Saved, compute: Compute, rows: TokenizedRows) -> Predictions:
    """Return the predictions of an adapter that is merged into a base of its own."""
    options = BaseOptions(seed=saved.options.seed, attention=compute.attention)
    method = METHODS[saved.method]
    model = load_merged(saved.base, saved.directory, method=method, options=options)
    batcher = prepare_model(model, compute, max_tokens=256)
    layers = [name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)]
    backend = TorchBackend(model, batcher, compute, batch_rows=16, output_layer=layers[-1])
    return backend.predict(rows, features=True)


def shared(saved: list[Saved], compute: Compute) -> tuple[SharedEncoder, list[SharedAdapter], int]:
    """Return an encoder, adapters loaded for it, and the bytes of the base."""
    options = BaseOptions(seed=0, attention=compute.attention)
    base = load_shared_base(saved[0].base, options)
    encoder = SharedEncoder(base.model, compute, batch_rows=16, max_tokens=256)
    adapters = [
        load_shared_adapter(
            base, one.base, one.directory, method=METHODS[one.method], options=one.options
        )
        for one in saved
    ]
    return encoder, adapters, sum(p.nbytes for p in base.model.parameters())


def mixed_rows(count: int, adapters: int) -> tuple[TokenizedRows, np.ndarray]:
    owners = np.random.default_rng(1).integers(0, adapters, size=count)
    return rows_of(count, vocabulary=30), owners


def check(
    saved: list[Saved], compute: Compute, *, tolerance: float, count: int = 60
) -> list[SharedAdapter]:
    encoder, adapters, _ = shared(saved, compute)
    rows, owners = mixed_rows(count, len(saved))
    predictions = encoder.predict(rows, owners, adapters, features=True)
    for number, (one, prediction) in enumerate(zip(saved, predictions, strict=True)):
        own = rows.take(np.flatnonzero(owners == number))
        expected = alone(one, compute, own)
        nobody_else = np.zeros(len(own), dtype=np.int64)
        [folded] = encoder.predict(own, nobody_else, [adapters[number]], features=True, folded=True)
        # The weights of a folded adapter are added up in another order.
        for given, allowed in ((prediction, tolerance), (folded, 3 * tolerance)):
            np.testing.assert_allclose(
                given.logits, expected.logits, atol=allowed, rtol=allowed, err_msg=str(one)
            )
            assert given.features is not None
            np.testing.assert_allclose(
                given.features, expected.features, atol=allowed, rtol=allowed
            )
    # The last folded adapter has left no trace.
    again = encoder.predict(rows, owners, adapters)
    for first, second in zip(predictions, again, strict=True):
        np.testing.assert_array_equal(first.logits, second.logits)
    return adapters


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_mixed_batches_equal_each_adapter_alone(
    family: str, attention: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    directory = request.getfixturevalue(family)
    saved = [save(tmp_path / name, directory, case) for name, case in CASES.items()]
    check(saved, Compute("cpu", "fp32", attention, ""), tolerance=1e-5, count=120)


def _save_family(folder: Path, family: str) -> Path:
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(CONFIGS[family])
    model.base_model.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("family", ["electra", "mpnet", "modernbert-cls", "modernbert-mean"])
def test_mixed_batches_work_for_every_architecture(
    family: str, attention: str, tmp_path: Path
) -> None:
    directory = _save_family(tmp_path / "base", family)
    first = {"modernbert-cls": "Wqkv", "modernbert-mean": "mlp.Wo", "mpnet": "attn.v"}
    cases = {
        "everywhere": Case(4, {"targets": ["*"], "rank": 2, "bias": "all"}),
        "one matrix": Case(3, {"targets": [first.get(family, "value")], "rank": 3}, seed=4),
        "mean": Case(5, {"targets": ["*"], "rank": 1}, ConfigChanges(pooling="mean")),
    }
    saved = [save(tmp_path / name, directory, case) for name, case in cases.items()]
    check(saved, Compute("cpu", "fp32", attention, ""), tolerance=1e-5)


def test_adapters_of_layers_that_also_read_positions_run_one_after_another(
    tmp_path: Path,
) -> None:
    directory = tmp_path / "base"
    torch.manual_seed(0)
    AutoModelForSequenceClassification.from_config(DEBERTA).base_model.save_pretrained(directory)
    cases = {
        "everywhere": Case(4, {"targets": ["*"], "rank": 2}),
        "mean": Case(5, {"targets": ["*"], "rank": 1}, ConfigChanges(pooling="mean"), seed=4),
    }
    saved = [save(tmp_path / name, directory, case) for name, case in cases.items()]
    check(saved, Compute("cpu", "fp32", "eager", ""), tolerance=1e-5)


def test_in_half_precision_mixed_batches_are_as_close_as_rounding_allows(
    bert: Path, tmp_path: Path
) -> None:
    names = ("query and value", "dora", "biases", "pissa", "mean")
    saved = [save(tmp_path / name, bert, CASES[name]) for name in names]
    check(saved, Compute("cpu", "bf16", PACKED, ""), tolerance=0.1)


def test_only_one_adapter_can_be_folded(bert: Path, tmp_path: Path) -> None:
    saved = [save(tmp_path / name, bert, CASES[name]) for name in ("dora", "biases")]
    encoder, adapters, _ = shared(saved, Compute("cpu", "fp32", PACKED, ""))
    with pytest.raises(ValueError, match="folded: given 2 adapters"):
        encoder.predict(*mixed_rows(4, 2), adapters, folded=True)


def test_adapters_share_the_weights_of_the_base(bert: Path, tmp_path: Path) -> None:
    names = ("query and value", "low-rank head", "output only")
    saved = [save(tmp_path / name, bert, CASES[name]) for name in names]
    _, adapters, _ = shared(saved, Compute("cpu", "fp32", PACKED, ""))
    for one, adapter in zip(saved, adapters, strict=True):
        tensors = load_file(one.directory / "adapter_model.safetensors")
        assert adapter.bytes == sum(tensor.nbytes for tensor in tensors.values())


def test_an_adapter_that_trains_more_than_outputs_is_refused(bert: Path, tmp_path: Path) -> None:
    labels = ["a", "b"]
    base = locate(str(bert), labels=labels)
    options = BaseOptions(seed=0)
    config = peft.LoraConfig(
        task_type="SEQ_CLS", target_modules=["query"], modules_to_save=["intermediate"]
    )
    model = peft.get_peft_model(load_base(base, options)[0], config)
    model.save_pretrained(tmp_path / "run" / "adapter", save_embedding_layers=False)
    with pytest.raises(RunError, match=r"intermediate is trained in full.*pennyweight merge"):
        load_shared_adapter(
            load_shared_base(base, options),
            base,
            tmp_path / "run" / "adapter",
            method=METHODS["lora"],
            options=options,
        )
