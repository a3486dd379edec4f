"""Consequences of a recipe's task: the checkpoint's metric, and the methods it excludes."""

from __future__ import annotations

from typing import Any

import pytest

from pennyweight.errors import RecipeError
from pennyweight.recipe import Recipe, resolve_recipe
from pennyweight.settings.assemble import settings_of

_MULTI_LABEL = {"task": "multi-label"}


def _recipe(**sections: Any) -> Recipe:
    data = {
        "train": "train.csv",
        "labels": ["a", "b"],
        "task": "single-label",
        **sections.pop("data", {}),
    }
    return resolve_recipe({"data": data, **sections})


def test_the_checkpoint_is_selected_by_accuracy_unless_the_recipe_says_otherwise() -> None:
    settings = settings_of(_recipe())
    assert (settings.task, settings.fit.options.keep_best) == ("single-label", "accuracy")
    settings = settings_of(_recipe(train={"keep_best": "macro_f1"}))
    assert settings.fit.options.keep_best == "macro_f1"


def test_the_checkpoint_of_a_multi_label_run_is_selected_by_mean_average_precision() -> None:
    settings = settings_of(_recipe(data=_MULTI_LABEL))
    assert settings.task == "multi-label"
    assert settings.fit.options.keep_best == "mean_average_precision"
    settings = settings_of(_recipe(data=_MULTI_LABEL, train={"keep_best": "micro_f1"}))
    assert settings.fit.options.keep_best == "micro_f1"


@pytest.mark.parametrize("metric", ["micro_f1", "mean_average_precision"])
def test_a_metric_of_multi_label_tasks_is_refused_for_a_single_label(metric: str) -> None:
    with pytest.raises(RecipeError, match=f'train.keep_best: given "{metric}", which is a metric'):
        settings_of(_recipe(train={"keep_best": metric}))


_TARGET = {"target": "target.csv"}


@pytest.mark.parametrize(
    ("key", "sections"),
    [
        ("train.sampling", {"train": {"sampling": "balanced"}}),
        ("train.loss.method", {"train": {"loss": {"method": "logit-adjusted"}}}),
        ("generate", {"data": _TARGET, "generate": {"model": "gpt2"}}),
        ("transduction.prior", {"data": _TARGET, "transduction": {"prior": {}}}),
        (
            "transduction.self_training",
            {
                "data": _TARGET,
                "transduction": {
                    "self_training": {"method": "confident", "teachers": ["runs/one"]}
                },
            },
        ),
        ("data.filters", {"data": {"filters": [{"method": "agreement"}]}}),
    ],
)
def test_methods_for_one_class_per_row_are_refused_by_their_key(
    key: str, sections: dict[str, Any]
) -> None:
    data = {**sections.get("data", {}), **_MULTI_LABEL}
    with pytest.raises(RecipeError) as caught:
        settings_of(_recipe(**{**sections, "data": data}))
    message = str(caught.value)
    assert message.startswith(f"{key}: not possible with several labels per row: ")
    assert "\n" not in message


@pytest.mark.parametrize(
    ("train", "pair"),
    [
        (
            {"class_weights": "balanced", "sampling": "balanced"},
            'train.class_weights = "balanced" and train.sampling = "balanced"',
        ),
        (
            {"sampling": "balanced", "loss": {"method": "logit-adjusted"}},
            'train.sampling = "balanced" and train.loss.method = "logit-adjusted"',
        ),
    ],
)
def test_two_corrections_for_uneven_classes_are_refused(train: dict[str, Any], pair: str) -> None:
    with pytest.raises(RecipeError) as caught:
        _recipe(train=train)
    assert f"{pair} correct for the same uneven classes; choose one" in str(caught.value)


def test_a_key_of_another_loss_is_unknown() -> None:
    with pytest.raises(RecipeError, match=r"train\.loss\.gamma: unknown key"):
        _recipe(train={"loss": {"method": "logit-adjusted", "gamma": 1.0}})


def test_the_loss_reaches_the_objective() -> None:
    options = settings_of(_recipe()).fit.objective
    assert (options.focal_gamma, options.logit_adjustment, options.balance) == (0.0, 0.0, False)
    options = settings_of(_recipe(train={"loss": {"method": "focal"}})).fit.objective
    assert (options.focal_gamma, options.logit_adjustment) == (2.0, 0.0)
    loss = {"method": "logit-adjusted", "tau": 0.5}
    assert settings_of(_recipe(train={"loss": loss})).fit.objective.logit_adjustment == 0.5
    balanced = _recipe(train={"class_weights": "balanced"})
    assert settings_of(balanced).fit.objective.balance
    sampled = settings_of(_recipe(train={"sampling": "balanced"}))
    assert sampled.fit.options.sampling == "balanced"
