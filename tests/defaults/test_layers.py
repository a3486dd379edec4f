"""Which layers get adapters under a time limit, and when the outputs below are cached."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pennyweight.defaults import complete, layers
from pennyweight.defaults.complete import Completed
from pennyweight.defaults.layers import (
    LARGEST_CACHE,
    Cache,
    LimitedRun,
    prefix_cache,
    top_layers,
)
from pennyweight.engine.device import choose_compute
from pennyweight.engine.train.speed import Speed
from pennyweight.recipe import load_recipe
from tiny import tiny_recipe

CACHE = Cache(layers=6, frozen_layers=4, epochs=3, size=10**9, free=10**10)
# A batch goes forward and backward through 1,000 tokens in a second.
SPEED = Speed(training=1_000.0, prediction=2_000.0)
# All layers train an epoch in 100 seconds.
RUN = LimitedRun(seconds=100.0, epochs=3, tokens=100_000.0, validation_tokens=0.0, evaluations=3)


def test_outputs_of_enough_frozen_layers_are_cached_where_they_fit() -> None:
    derived = prefix_cache(CACHE)
    assert derived.value == "disk"
    assert "lowest 4 of 6 layers have no adapter" in derived.reason
    assert "without dropout, take about 1.00 GB" in derived.reason


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"frozen_layers": 0}, "the lowest layer has adapters"),
        ({"frozen_layers": 1}, "only the lowest 1 of 6 layers"),
        ({"epochs": 1}, "seen once only"),
        ({"size": LARGEST_CACHE + 1, "free": 10**13}, "16.00 GB, more than 16.00 GB"),
        ({"free": 19 * 10**8}, "1.00 GB of the 1.90 GB free"),
        ({"refusal": "of packed batches"}, "have no adapter, but of packed batches"),
    ],
)
def test_a_cache_that_does_not_pay_or_fit_is_off(changes: dict[str, Any], reason: str) -> None:
    derived = prefix_cache(replace(CACHE, **changes))
    assert derived.value == "off"
    assert reason in derived.reason


def test_a_third_of_the_layers_is_enough() -> None:
    assert prefix_cache(replace(CACHE, frozen_layers=2)).value == "disk"
    assert prefix_cache(replace(CACHE, layers=12, frozen_layers=3)).value == "off"


def test_a_limit_that_is_too_short_for_all_layers_goes_to_the_top_third() -> None:
    # 90 of 100 seconds: 0.9 epochs of all layers. Two thirds of a prediction of 100,000 tokens take
    # 33 seconds, and what is left trains at 1 / (1/3 + 0.06) of the cost.
    assert RUN.epochs_at(SPEED) == pytest.approx(0.9)
    top = RUN.epochs_at(SPEED, cached_share=2 / 3)
    assert top == pytest.approx((90.0 - 100_000 * 2 / 3 / 2_000) / (100.0 * (1 / 3 + 0.06)))
    derived = top_layers(RUN, layers=6, top=2, speed=SPEED)
    assert derived.value == 2
    assert "all 6 layers would train about 0.9 of 3 epochs" in derived.reason
    assert "in the top 2, with the outputs of the others cached, about 1.4" in derived.reason


@pytest.mark.parametrize(
    ("seconds", "value"),
    [
        # Computing the outputs takes most of the time.
        (50.0, "all"),
        (100.0, 2),
        # Nearly everything that is planned can be trained.
        (300.0, "all"),
        (1_000.0, "all"),
    ],
)
def test_all_layers_are_kept_where_fewer_would_gain_little(seconds: float, value: object) -> None:
    run = replace(RUN, seconds=seconds)
    assert top_layers(run, layers=6, top=2, speed=SPEED).value == value


@given(
    seconds=st.floats(1.0, 1e5),
    validation=st.floats(0.0, 1e6),
    share=st.floats(0.0, 0.9),
    refit=st.floats(0.0, 1e6),
)
def test_estimated_epochs_are_between_none_and_those_planned(
    seconds: float, validation: float, share: float, refit: float
) -> None:
    run = replace(RUN, seconds=seconds, validation_tokens=validation, refit_tokens=refit)
    assert 0.0 <= run.epochs_at(SPEED, cached_share=share) <= run.epochs


Derive = Callable[..., Completed]


@pytest.fixture
def derive(monkeypatch: pytest.MonkeyPatch) -> Derive:
    """Return a function that completes the quickstart on the sample, at a given speed."""

    def completed(*, tokens_per_second: float, **overrides: Any) -> Completed:
        speed = Speed(tokens_per_second, 2.0 * tokens_per_second)
        monkeypatch.setattr(layers, "speed_of", lambda *_, **__: speed)
        settings = {"data.train": "sample:train", "train.epochs": 4, **overrides}
        return complete(
            load_recipe("quickstart", overrides=[f"{k}={v}" for k, v in settings.items()])
        )

    return completed


def test_a_short_time_limit_changes_plan_and_cache_of_the_quickstart(derive: Derive) -> None:
    # About 24,000 tokens; the head is fitted on them twice.
    completed = derive(tokens_per_second=900.0, **{"train.minutes": 1.5})
    adapter: Any = completed.recipe.adapter
    assert (adapter.top_layers, completed.recipe.train.prefix_cache) == (2, "disk")
    lines = list(completed.lines())
    assert any(line.startswith("adapter.top_layers = 2  (in 1.5 min, ") for line in lines)
    assert any(line.startswith("train.prefix_cache = disk  (the lowest 4 of 6") for line in lines)


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        ({"adapter.rank": 8}, 'only the size "fill"'),
        ({"train.minutes": 0.5}, "shorter than a minute"),
        ({"train.prefix_cache": "off"}, 'train.prefix_cache is "off"'),
        ({"adapter.targets": '["layer.0.output.dense"]'}, "no target is in the top 2 layers"),
        ({"base.attention": "eager"}, "only packed batches"),
        ({"train.epochs": 1}, "seen once only"),
        ({"adapter.bias": "all"}, "trains every layer"),
    ],
)
def test_what_the_user_has_decided_is_not_changed_by_a_limit(
    derive: Derive, overrides: dict[str, Any], reason: str
) -> None:
    completed = derive(tokens_per_second=900.0, **{"train.minutes": 1.5, **overrides})
    adapter: Any = completed.recipe.adapter
    assert adapter.top_layers == "all"
    (line,) = [each for each in completed.lines() if each.startswith("adapter.top_layers = all")]
    assert reason in line


def test_without_a_limit_every_layer_has_adapters_unless_the_user_says_otherwise(
    derive: Derive,
) -> None:
    for top, cache in (("auto", "off"), (2, "disk"), (5, "off")):
        completed = derive(tokens_per_second=1.0, **{"adapter.top_layers": top})
        adapter: Any = completed.recipe.adapter
        assert adapter.top_layers == ("all" if top == "auto" else top)
        assert completed.recipe.train.prefix_cache == cache


@pytest.mark.parametrize(
    ("adapter", "cache"),
    [
        ({"rank": {"*": 2, "layer.0": 0}}, "disk"),
        ({"rank": {"*": 2}}, "off"),
        ({"rank": "allocate", "top_layers": 1}, "disk"),
        ({"rank": "allocate"}, "off"),
        ({"method": "ln-tuning", "targets": ["*"]}, "off"),
        ({"method": "ln-tuning", "targets": ["*"], "top_layers": 1}, "disk"),
        ({"method": "full"}, "off"),
    ],
)
def test_the_cache_follows_from_the_lowest_layer_with_an_adapter(
    roberta: Path, sets: Path, adapter: dict[str, Any], cache: str
) -> None:
    recipe = tiny_recipe(
        roberta,
        sets,
        base={"attention": "auto"},
        adapter=adapter,
        train={"prefix_cache": "auto", "epochs": 2},
    )
    if adapter.get("rank") == "allocate":
        values = recipe.adapter.model_copy(update={"alpha": "auto"})
        recipe = recipe.model_copy(update={"adapter": values})
    assert complete(recipe).recipe.train.prefix_cache == cache


def test_the_speed_of_a_recipe_is_measured_without_its_weights_or_rows(
    roberta: Path, sets: Path
) -> None:
    recipe = tiny_recipe(roberta, sets, base={"attention": "packed"})
    compute = choose_compute(precision="fp32", attention="packed")
    speed = layers.speed_of(recipe, compute=compute, tokens=12)
    assert speed.training > 0.0
    assert speed.prediction > 0.0
    assert speed.whole_prediction is None
