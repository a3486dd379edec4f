"""A finished run learns from unlabelled text of where it will be used."""

from __future__ import annotations

from pathlib import Path

import pytest

from pennyweight.cli.adapt import parse_shares
from pennyweight.data.source import Source
from pennyweight.defaults.rules import accuracy_noise
from pennyweight.errors import RecipeError, RunError
from pennyweight.recipe import with_overrides
from pennyweight.runs.record import load_record
from pennyweight.settings.assemble import settings_of
from pennyweight.training.adapt import adaptation_recipe
from pennyweight.training.train import train
from tiny import LABELS, news, tiny_recipe, write_news


@pytest.fixture
def target(tmp_path: Path) -> Source:
    return Source(str(write_news(tmp_path / "target.csv", news(120, seed=5))))


def test_the_adapter_of_a_run_is_trained_further_with_the_probabilities_of_all_target_rows(
    roberta: Path, sets: Path, target: Source, tmp_path: Path
) -> None:
    first = tmp_path / "first"
    before = train(tiny_recipe(roberta, sets, train={"epochs": 4}), out=first)
    shares = dict.fromkeys(LABELS, 0.25)
    recipe = adaptation_recipe(first, target, name="adapted", shares=shares)
    assert recipe.train.start_from == str(first)
    assert recipe.adapter == before.recipe.adapter
    assert recipe.optimizer == before.recipe.optimizer
    record = train(with_overrides(recipe, ["train.epochs=2"]), out=tmp_path / "second")
    assert record.parameters is not None
    assert before.parameters is not None
    assert record.parameters.file == before.parameters.file
    assert record.transductive == (
        "self-training on the target",
        "predictions matched to stated class shares of the target",
    )
    assert record.data is not None
    assert before.data is not None
    validation = record.data.sets["validation"]
    assert recipe.train.keep_within == accuracy_noise(validation.rows)
    options = settings_of(record.recipe).fit.options
    assert options.below_start == options.keep_within
    assert validation.fingerprint == before.data.sets["validation"].fingerprint
    training = record.data.training
    assert training is not None
    # A small target is seen several times in an epoch.
    assert training.rows == record.data.sets["train"].rows + 5 * 120


def test_without_shares_the_answers_of_the_run_are_not_corrected(
    roberta: Path, sets: Path, target: Source, tmp_path: Path
) -> None:
    train(tiny_recipe(roberta, sets, train={"max_steps": 1}), out=tmp_path / "first")
    recipe = adaptation_recipe(tmp_path / "first", target, name="adapted")
    assert recipe.transduction is not None
    assert recipe.transduction.prior is None
    both = (str(tmp_path / "first"), str(tmp_path / "other"))
    recipe = adaptation_recipe(tmp_path / "first", target, name="adapted", teachers=both)
    assert recipe.transduction is not None
    assert recipe.transduction.self_training is not None
    assert recipe.transduction.self_training.teachers == both


def test_a_run_without_validation_rows_can_be_adapted(
    roberta: Path, sets: Path, target: Source, tmp_path: Path
) -> None:
    recipe = tiny_recipe(roberta, sets, train={"max_steps": 1})
    data = recipe.data.model_copy(update={"validation": None, "validation_fraction": 0.0})
    train(recipe.model_copy(update={"data": data}), out=tmp_path / "first")

    adapted = adaptation_recipe(tmp_path / "first", target, name="adapted")

    record = train(with_overrides(adapted, ["train.epochs=1"]), out=tmp_path / "second")
    assert record.status == "complete"


def test_shares_of_other_classes_and_unfinished_runs_are_refused(
    roberta: Path, sets: Path, target: Source, tmp_path: Path
) -> None:
    first = tmp_path / "first"
    record = train(tiny_recipe(roberta, sets, train={"max_steps": 1}), out=first)
    shares: dict[str, float]
    for shares, message in (
        ({"Weather": 1.0}, r'^--shares: "Weather" is not a class; the classes are World, '),
        ({"World": 1.0}, r"^--shares: no share of Sports.*; give each class one, such as Sports=0"),
        (dict.fromkeys(LABELS, 0.3), r"^--shares: they add up to 1.2, and not to 1"),
    ):
        with pytest.raises(RecipeError, match=message):
            adaptation_recipe(first, target, name="adapted", shares=shares)
    unfinished = record.model_copy(update={"status": "running"})
    (first / "record.json").write_text(unfinished.model_dump_json())
    assert load_record(first).status == "running"
    with pytest.raises(RunError, match="the run's status is running"):
        adaptation_recipe(first, target, name="adapted")


def test_shares_on_the_command_line() -> None:
    assert parse_shares("uniform") == "uniform"
    assert parse_shares("World=0.25, Sci/Tech = 0.75") == {"World": 0.25, "Sci/Tech": 0.75}
    assert parse_shares("a=b=1") == {"a=b": 1.0}
    for text in ("World", "World=much", "", "World=0.5,,"):
        with pytest.raises(RecipeError, match="is not CLASS=NUMBER"):
            parse_shares(text)
