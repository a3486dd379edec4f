"""Training that starts from the weights of a finished run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pennyweight.errors import RecipeError
from pennyweight.inference.evaluate import evaluate
from pennyweight.recipe.schema import Evaluate
from pennyweight.runs.record import load_record
from pennyweight.settings.assemble import settings_of
from pennyweight.training.train import train
from pennyweight.training.watcher import Watcher
from tiny import tiny_recipe
from training.outcomes import interrupt_at, weights_are_equal


@pytest.fixture(scope="module")
def first(bert: Path, sets: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("first") / "run"
    train(tiny_recipe(bert, sets, train={"epochs": 6}), out=out)
    return out


def _second(first: Path, bert: Path, sets: Path, **sections: Any) -> Any:
    keys = {"start_from": str(first), "max_steps": 2, **sections.pop("train", {})}
    return tiny_recipe(bert, sets, train=keys, **sections)


def test_training_goes_on_from_the_weights_of_the_run(
    first: Path, bert: Path, sets: Path, tmp_path: Path
) -> None:
    lines: list[str] = []
    # The smallest step there is, so that what is saved is what training started from.
    recipe = _second(first, bert, sets, optimizer={"learning_rate": 1e-12})
    record = train(recipe, out=tmp_path / "run", watcher=Watcher(log=lines.append))
    assert f"weights: start from those of {first}" in lines
    assert any(line.startswith("start: validation accuracy ") for line in lines)
    before = load_record(first).metrics["validation"]
    assert record.metrics["validation"].accuracy == before.accuracy
    assert record.metrics["validation"].nll == pytest.approx(before.nll, abs=1e-6)


def test_other_validation_rows_than_those_of_the_start_are_warned_of(
    first: Path, bert: Path, sets: Path, tmp_path: Path
) -> None:
    lines: list[str] = []
    watcher = Watcher(log=lines.append)
    train(_second(first, bert, sets), out=tmp_path / "same", watcher=watcher)
    assert not any("had other validation rows" in line for line in lines)
    other = _second(first, bert, sets, data={"validation": str(sets / "test.csv")})
    train(
        other.model_copy(update={"evaluate": Evaluate()}), out=tmp_path / "other", watcher=watcher
    )
    assert any(line.startswith(f"warning: {first} had other validation rows") for line in lines)


def test_it_never_ends_below_its_start(first: Path, bert: Path, sets: Path, tmp_path: Path) -> None:
    recipe = _second(first, bert, sets, optimizer={"learning_rate": 0.5})
    record = train(recipe, out=tmp_path / "run")
    before = load_record(first).metrics["validation"]
    assert record.metrics["validation"].accuracy >= before.accuracy


def test_a_resumed_run_ends_like_one_never_interrupted(
    first: Path, bert: Path, sets: Path, tmp_path: Path
) -> None:
    recipe = _second(first, bert, sets, train={"max_steps": 4, "evaluate_every": 2})
    train(recipe, out=tmp_path / "unbroken")
    with pytest.raises(KeyboardInterrupt):
        train(recipe, out=tmp_path / "run", watcher=interrupt_at(3))
    train(recipe, out=tmp_path / "run", resume=True)
    for artifact in ("checkpoints/last", "adapter"):
        assert weights_are_equal(tmp_path / "run" / artifact, tmp_path / "unbroken" / artifact)


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"adapter": {"rank": 3}}, r"its plan has .* rank 2.*, and that of the recipe has .* 3"),
        ({"adapter": {"head": "frozen"}}, r"its plan has \d+ trained parts"),
        ({"base": {"pooling": "mean"}}, r"its base\.pooling is native, .* is mean"),
        (
            {"adapter": {"initialization": "pissa"}},
            r"its adapter.initialization is kaiming, .* than pissa",
        ),
        ({"data": {"labels": ["A", "B", "C", "D"]}}, r"its classes are World, .* are A, B, C, D"),
    ],
)
def test_a_run_that_does_not_fit_is_refused(
    first: Path, bert: Path, sets: Path, tmp_path: Path, sections: dict[str, Any], message: str
) -> None:
    with pytest.raises(RecipeError, match=rf"^train\.start_from: .*{message}.*must be the same"):
        train(_second(first, bert, sets, **sections), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_frozen_weights_that_were_drawn_from_another_seed_come_with_the_start(
    roberta: Path, sets: Path, tmp_path: Path
) -> None:
    # RoBERTa's head has a dense layer, which "output-only" leaves as the seed has drawn it.
    adapter, first, second = {"head": "output-only"}, tmp_path / "first", tmp_path / "second"
    recipe = tiny_recipe(roberta, sets, adapter=adapter).model_copy(update={"seed": 1})
    before = train(recipe, out=first).metrics["test"]
    recipe = _second(first, roberta, sets, adapter=adapter, optimizer={"learning_rate": 1e-12})

    after = train(recipe.model_copy(update={"seed": 2}), out=second).metrics["test"]

    assert after.nll == pytest.approx(before.nll, abs=1e-5)
    # The artifact holds them, so a prediction uses them too.
    assert evaluate(second, str(sets / "test.csv")).nll == pytest.approx(before.nll, abs=1e-5)


def test_another_random_base_is_refused(roberta: Path, sets: Path, tmp_path: Path) -> None:
    base, first = {"weights": "random"}, tmp_path / "first"
    recipe = tiny_recipe(roberta, sets, base=base, train={"max_steps": 1})
    train(recipe.model_copy(update={"seed": 1}), out=first)
    recipe = _second(first, roberta, sets, base=base).model_copy(update={"seed": 2})
    with pytest.raises(RecipeError, match=r"its random base has the seed 1, and the recipe 2"):
        train(recipe, out=tmp_path / "second")


def test_what_is_no_run_is_refused(bert: Path, sets: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"train\.start_from: .*nothing: not a run"):
        train(_second(tmp_path / "nothing", bert, sets), out=tmp_path / "run")


def test_a_trained_head_is_not_replaced(first: Path, bert: Path, sets: Path) -> None:
    keys = {"start_from": str(first), "head_start": "logistic"}
    recipe = tiny_recipe(bert, sets, base={"pooling": "mean"}, train=keys)
    assert not settings_of(recipe).fit.starts_head
