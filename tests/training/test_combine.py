"""Finished runs combined into one run, which is used like any other."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from inference.damage import record_hashes
from pennyweight.errors import BudgetError, PennyweightError, RunError
from pennyweight.inference.classifier import Classifier
from pennyweight.inference.merge import merge
from pennyweight.model.combinations import COMBINATIONS
from pennyweight.recipe import resolve_recipe
from pennyweight.report.write import write_report
from pennyweight.runs.directory import verify_artifact
from pennyweight.runs.record import load_record, save_record
from pennyweight.training.combine import combine
from pennyweight.training.combine_options import CombineOptions
from pennyweight.training.train import train
from pennyweight.training.watcher import Watcher
from tiny import LABELS, news, tiny_recipe

TEXTS = [text for _, text in news(6, seed=9)]


@pytest.fixture(scope="module")
def trained(bert: Path, sets: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with runs: one and two start alike; three has another seed, four another order."""
    folder = tmp_path_factory.mktemp("combined")

    def run(name: str, seed: int, steps: int, **sections: Any) -> None:
        recipe = tiny_recipe(bert, sets, train={"max_steps": steps}, **sections)
        train(recipe.model_copy(update={"seed": seed}), out=folder / name)

    run("one", 1, 12)
    run("two", 1, 6)
    run("three", 3, 12)
    named = {name: _with_names(sets / f"{name}.csv", folder) for name in ("train", "validation")}
    run("four", 3, 12, data={"labels": list(reversed(LABELS)), "max_tokens": 24, **named})
    return folder


def _with_names(file: Path, folder: Path) -> str:
    """Write a set of news with the names of the labels, and return its path."""
    lines = file.read_text().splitlines()
    rows = (line.partition(",") for line in lines[1:])
    named = [lines[0], *(f"{LABELS[int(label)]},{text}" for label, _, text in rows)]
    (folder / file.name).write_text("\n".join(named))
    return str(folder / file.name)


def _logits(run: Path) -> torch.Tensor:
    """Return the logits of a run in plain PEFT, unmerged."""
    record = load_record(run)
    base = AutoModelForSequenceClassification.from_pretrained(
        record.recipe.base.name, num_labels=4, attn_implementation="eager"
    )
    model = peft.PeftModel.from_pretrained(base, str(run / "adapter")).eval()
    tokenizer = AutoTokenizer.from_pretrained(str(run / "adapter"))
    with torch.no_grad():
        logits: torch.Tensor = model(**tokenizer(TEXTS, padding=True, return_tensors="pt")).logits
    return logits


def _combine(folder: Path, out: Path, *names: str, **options: Any) -> Any:
    return combine([folder / name for name in names], out=out, options=CombineOptions(**options))


def test_a_combined_run_is_complete_and_used_like_any_other(trained: Path, tmp_path: Path) -> None:
    out, lines = tmp_path / "run", list[str]()
    runs = [trained / "one", trained / "two"]
    record = combine(runs, out=out, watcher=Watcher(log=lines.append))
    assert record == load_record(out)
    assert record.status == "complete"
    assert record.parameters is not None
    assert record.parameters.file == load_record(trained / "one").parameters.file  # type: ignore[union-attr]
    verify_artifact(out, record, out / "adapter")
    combination = record.combination
    assert combination is not None
    assert combination.space == "factors"
    assert [each.share for each in combination.runs] == [0.5, 0.5]
    for each, run in zip(combination.runs, runs, strict=True):
        own = load_record(run).metrics
        assert each.results == {name: own[name].accuracy for name in ("validation", "test")}
    assert any("the runs started from the same weights" in line for line in lines)
    assert "**Combined from:** `one` (seed 1" in (out / "adapter" / "README.md").read_text()
    classifier = Classifier.load(out)
    logits = classifier._predictor.texts(TEXTS).logits
    torch.testing.assert_close(torch.tensor(logits), _logits(out), atol=1e-4, rtol=1e-4)
    merge(out, out=tmp_path / "merged")
    assert (tmp_path / "merged" / "model.safetensors").is_file()


def test_factors_of_runs_that_started_alike_are_averaged(trained: Path, tmp_path: Path) -> None:
    _combine(trained, tmp_path / "run", "one", "two", method="weighted", weights=(3, 1))
    states = [
        peft.load_peft_weights(str(run / "adapter"), device="cpu")
        for run in (trained / "one", trained / "two", tmp_path / "run")
    ]
    for name, tensor in states[2].items():
        torch.testing.assert_close(tensor, 0.75 * states[0][name] + 0.25 * states[1][name])


def _delta_logits(trained: Path, names: list[str], weights: list[float]) -> torch.Tensor:
    """Return the logits of the base with the weighted sums of deltas, and with average heads."""
    recipe = load_record(trained / names[0]).recipe
    base = AutoModelForSequenceClassification.from_pretrained(
        recipe.base.name, num_labels=4, attn_implementation="eager"
    ).eval()
    parameters = dict(base.named_parameters())
    parameters["classifier.weight"].data.zero_()
    parameters["classifier.bias"].data.zero_()
    for name, weight in zip(names, weights, strict=True):
        state = peft.load_peft_weights(str(trained / name / "adapter"), device="cpu")
        for key, tensor in state.items():
            place = key.removeprefix("base_model.model.")
            if place.startswith("classifier"):
                parameters[place].data += weight * tensor
            elif ".lora_A" in key:
                delta = 16 / 2 * state[key.replace("lora_A", "lora_B")] @ tensor
                parameters[place.replace("lora_A.", "")].data += weight * delta
    tokenizer = AutoTokenizer.from_pretrained(str(trained / names[0] / "adapter"))
    with torch.no_grad():
        logits: torch.Tensor = base(**tokenizer(TEXTS, padding=True, return_tensors="pt")).logits
    return logits


def test_concatenated_ranks_give_exactly_the_weighted_sum_of_deltas(
    trained: Path, tmp_path: Path
) -> None:
    options = {"method": "concatenated", "weights": (1.0, 3.0)}
    record = _combine(trained, tmp_path / "run", "one", "three", **options)
    assert {part.rank for part in record.plan.matrices if part.rank} == {4}
    assert record.recipe.adapter.model_dump()["rank"] == 4
    assert record.combination.space == "ranks"
    expected = _delta_logits(trained, ["one", "three"], [0.25, 0.75])
    torch.testing.assert_close(_logits(tmp_path / "run"), expected, atol=1e-5, rtol=1e-5)


def test_deltas_of_runs_that_started_differently_are_averaged(
    trained: Path, tmp_path: Path
) -> None:
    record = _combine(trained, tmp_path / "run", "one", "three")
    assert record.combination.space == "deltas"
    assert "started from different weights" in record.combination.reason
    assert 0.0 < record.combination.error < 1.0
    assert record.combination.largest_error >= record.combination.error
    assert record.plan == load_record(trained / "one").plan
    # Twice the same run needs no more than its own ranks.
    shutil.copytree(trained / "one", tmp_path / "copy")
    options = CombineOptions(space="deltas")
    same = combine([trained / "one", tmp_path / "copy"], out=tmp_path / "same", options=options)
    assert same.combination is not None
    assert same.combination.error == pytest.approx(0.0, abs=1e-5)
    torch.testing.assert_close(_logits(tmp_path / "same"), _logits(trained / "one"))


def test_classes_in_another_order_are_mapped_by_their_names(trained: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    watcher, options = Watcher(log=lines.append), CombineOptions(method="greedy", head="first")
    runs = [trained / "three", trained / "four"]
    record = combine(runs, out=tmp_path / "run", options=options, watcher=watcher)
    assert record.recipe.data.label_names == LABELS
    assert record.combination is not None
    assert any("mapped by name" in line for line in lines)
    for each in record.combination.runs:
        own = load_record(each.run).metrics["validation"].accuracy
        assert each.results["validation"] == own
    reordered = _logits(trained / "four")[:, [3, 2, 1, 0]]
    options = CombineOptions(method="weighted", weights=(0.0, 1.0))
    combine(runs, out=tmp_path / "all", options=options)
    torch.testing.assert_close(_logits(tmp_path / "all"), reordered, atol=1e-5, rtol=1e-5)


def test_greedy_tries_the_best_first_and_never_ends_below_it(trained: Path, tmp_path: Path) -> None:
    record = _combine(trained, tmp_path / "run", "two", "one", "three", method="greedy")
    own = [load_record(each.run).metrics["validation"].accuracy for each in record.combination.runs]
    assert own == sorted(own, reverse=True)
    kept = [each.score for each in record.combination.runs if each.share > 0]
    assert kept == sorted(kept)
    assert record.metrics["validation"].accuracy == kept[-1] >= own[0]


def test_a_run_is_interpolated_with_its_untrained_start(trained: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"method": "interpolate"}
    record = _combine(trained, tmp_path / "half", "one", toward=0.5, **options)
    assert record.combination.toward == 0.5
    states = [
        peft.load_peft_weights(str(run / "adapter"), device="cpu")
        for run in (trained / "one", tmp_path / "half")
    ]
    for name in states[0]:
        if "lora_A" in name:
            other = name.replace("lora_A", "lora_B")
            full, half = (state[other] @ state[name] for state in states)
            torch.testing.assert_close(half, 0.5 * full)
        elif "lora_B" not in name:
            torch.testing.assert_close(states[1][name], states[0][name])


@pytest.mark.parametrize("method", ["ties", "dare"])
def test_sparse_deltas_are_brought_back_to_the_ranks_of_the_first(
    method: str, trained: Path, tmp_path: Path
) -> None:
    record = _combine(trained, tmp_path / "run", "one", "two", method=method, density=0.8)
    assert record.combination.space == "deltas"
    assert record.combination.density == 0.8
    assert (record.combination.seed == 1) == (method == "dare")
    assert record.parameters.file == record.plan.trainable_parameters


def _with_record(run: Path, folder: Path, change: Callable[[Any], Any]) -> Path:
    """Copy a run and change its record."""
    copy = Path(shutil.copytree(run, folder / "changed"))
    save_record(copy, change(load_record(copy)))
    return copy


def _recipe(record: Any, section: str, **keys: Any) -> Any:
    changed = getattr(record.recipe, section).model_copy(update=keys)
    return record.with_changes(recipe=record.recipe.model_copy(update={section: changed}))


def _with_vera(record: Any) -> Any:
    values = {**record.recipe.model_dump(), "adapter": {"method": "vera"}}
    return record.with_changes(recipe=resolve_recipe(values))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r.with_changes(status="interrupted"), "the run's status is interrupted"),
        (
            lambda r: r.with_changes(base=r.base.model_copy(update={"reference": "other"})),
            "its base is other, and that of the first run is",
        ),
        (lambda r: _recipe(r, "base", pooling="mean"), "its base.pooling is mean, and that of"),
        (lambda r: _recipe(r, "base", quantization="nf4"), "its base.quantization is nf4"),
        (lambda r: _recipe(r, "data", labels=("A", "B")), "its classes are A, B, and those of"),
        (lambda r: _recipe(r, "data", task="multi-label"), "its task is multi-label"),
        (lambda r: _with_vera(r), "adapters of vera cannot be combined"),
        (lambda r: _recipe(r, "adapter", method="dora"), "its adapter.method is dora, and that of"),
    ],
)
def test_a_run_that_does_not_fit_the_first_is_refused(
    change: Callable[[Any], Any], message: str, trained: Path, tmp_path: Path
) -> None:
    changed = _with_record(trained / "two", tmp_path, change)
    with pytest.raises(RunError) as caught:
        combine([trained / "one", changed], out=tmp_path / "out")
    assert str(caught.value).startswith(str(changed))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("names", "options", "message"),
    [
        (["one"], {}, "--method average: given 1 run; give at least 2"),
        (["one", "one"], {}, "given twice"),
        (["one", "nothing"], {}, "nothing: not a run"),
        (["one", "two", "three"], {"method": "interpolate", "toward": 0.5}, "give at most 2"),
        (["one", "two"], {"method": "sum"}, "--method sum: unknown; the methods are average,"),
        (["one", "two"], {"method": "weighted"}, "--weights: missing; weighted needs it"),
        (["one", "two"], {"method": "weighted", "weights": (1.0,)}, "given 1 for 2 runs"),
        (["one", "two"], {"method": "weighted", "weights": (-1.0, 1.0)}, "numbers from 0"),
        (["one", "two"], {"density": 0.5}, "--density: average does not use it"),
        (["one", "two"], {"method": "ties", "density": 0.0}, "--density: given 0; expected"),
        (["one", "two"], {"method": "interpolate", "toward": 2.0}, "--toward: given 2; expected"),
        (["one", "two"], {"method": "ties", "space": "factors"}, "ties works on deltas only"),
    ],
)
def test_what_cannot_be_combined_is_refused(
    names: list[str], options: dict[str, Any], message: str, trained: Path, tmp_path: Path
) -> None:
    with pytest.raises(PennyweightError) as caught:
        _combine(trained, tmp_path / "out", *names, **options)
    assert message in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_ranks_over_the_smallest_budget_are_refused(trained: Path, tmp_path: Path) -> None:
    small = _with_record(
        trained / "two", tmp_path, lambda r: _recipe(r, "budget", trainable_parameters=700)
    )
    options = CombineOptions(method="concatenated")
    with pytest.raises(BudgetError, match=r"^--method concatenated: .*1,156.*more than the 700"):
        combine([trained / "one", small], out=tmp_path / "out", options=options)
    assert not (tmp_path / "out").exists()


def test_greedy_refuses_runs_with_other_validation_rows(trained: Path, tmp_path: Path) -> None:
    def change(record: Any) -> Any:
        sets = record.data.sets
        sets = {**sets, "validation": replace(sets["validation"], fingerprint="other")}
        return record.with_changes(data=record.data.model_copy(update={"sets": sets}))

    changed, lines = _with_record(trained / "two", tmp_path, change), list[str]()
    with pytest.raises(RunError, match="its validation rows are not those that greedy would"):
        combine(
            [trained / "one", changed],
            out=tmp_path / "out",
            options=CombineOptions(method="greedy"),
        )
    record = combine(
        [trained / "one", changed], out=tmp_path / "out", watcher=Watcher(log=lines.append)
    )
    assert any(line.startswith(f"warning: {changed} had other validation") for line in lines)
    assert record.combination is not None
    assert set(record.combination.runs[1].results) == {"test"}


def test_a_correction_of_a_run_is_dropped_and_said_to_be(trained: Path, tmp_path: Path) -> None:
    copy, lines = Path(shutil.copytree(trained / "two", tmp_path / "copy")), list[str]()
    (copy / "adapter" / "correction.json").write_text("{}")
    record_hashes(copy)
    combine([trained / "one", copy], out=tmp_path / "out", watcher=Watcher(log=lines.append))
    assert any("its correction for class shares is not taken over" in line for line in lines)
    assert not (tmp_path / "out" / "adapter" / "correction.json").exists()


def test_a_combined_run_is_not_resumed(
    trained: Path, tmp_path: Path, bert: Path, sets: Path
) -> None:
    record = _combine(trained, tmp_path / "run", "one", "two")
    save_record(tmp_path / "run", record.with_changes(status="interrupted"))
    with pytest.raises(RunError, match="was made by pennyweight combine and cannot be resumed"):
        train(tmp_path / "run", out=tmp_path / "run", resume=True)


def test_the_table_names_every_option_that_methods_take() -> None:
    options = {name for row in COMBINATIONS.values() for name in row.options}
    assert options <= set(CombineOptions.__dataclass_fields__)
    assert all(set(row.needs) <= set(row.options) for row in COMBINATIONS.values())


def test_a_combined_run_is_reported_without_curves(trained: Path, tmp_path: Path) -> None:
    _combine(trained, tmp_path / "run", "one", "three")
    write_report([tmp_path / "run"], out=tmp_path / "report", parts=("figures", "paper"))
    figures = {file.stem for file in (tmp_path / "report" / "figures").glob("*.svg")}
    assert "curves" not in figures
    assert "confusion" in figures
    text = (tmp_path / "report" / "paper.tex").read_text()
    assert "it combines the adapters of" in text
    assert "select the checkpoint" not in text
