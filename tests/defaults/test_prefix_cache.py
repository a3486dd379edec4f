"""When the outputs of the layers below all adapters are cached."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pennyweight.defaults import complete
from pennyweight.defaults.prefix_cache import LARGEST_CACHE, Cache, prefix_cache
from pennyweight.recipe import load_recipe
from tiny import tiny_recipe

CACHE = Cache(layers=6, frozen_layers=4, epochs=3, size=10**9, free=10**10)


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


@pytest.mark.parametrize(("top", "cache"), [("all", "off"), (2, "disk"), (5, "off")])
def test_the_quickstart_caches_where_the_user_leaves_enough_layers_out(
    top: object, cache: str
) -> None:
    overrides = ["data.train=sample:train", "train.epochs=4", f"adapter.top_layers={top}"]
    completed = complete(load_recipe("quickstart", overrides=overrides))
    assert completed.recipe.train.prefix_cache == cache
    assert any(line.startswith(f"train.prefix_cache = {cache}  (") for line in completed.lines())


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
