"""The table of adapter methods is complete, and every row is consistent with PEFT."""

from __future__ import annotations

from typing import Any, get_args

import peft
import pytest
import torch
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from transformers import AutoModelForSequenceClassification, RobertaConfig

from pennyweight.budget.layout import WeightMatrix, layout_of
from pennyweight.budget.methods import DEFAULT, METHODS, AdaptedMatrix, Choice, frozen_tensors
from pennyweight.budget.methods.unsupported import UNSUPPORTED
from pennyweight.budget.peft_warnings import ignore_expected_warnings
from pennyweight.recipe import resolve_recipe
from small_adapters import SMALL

ADAPTERS = [name for name, method in METHODS.items() if not method.trains_every_weight]


def _base() -> Any:
    config = RobertaConfig(
        vocab_size=50,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=48,
        max_position_embeddings=40,
        num_labels=4,
    )
    with torch.device("meta"):
        return AutoModelForSequenceClassification.from_config(config)


def test_the_default_comes_first_and_full_fine_tuning_last() -> None:
    first, *_, last = METHODS
    assert (first, last) == (DEFAULT, "full") == ("lora", "full")
    assert [*ADAPTERS, last] == [*METHODS]
    assert [METHODS["lora"].artifact, METHODS["full"].artifact] == ["adapter", "model"]


@pytest.mark.parametrize("name", METHODS)
def test_a_row_is_complete_and_its_section_is_part_of_the_schema(name: str) -> None:
    method = METHODS[name]
    assert method.name == name
    assert all((method.summary, method.formula, method.paper))
    assert name in get_args(method.section.model_fields["method"].annotation)
    section = resolve_recipe({"adapter": {"method": name}}).adapter
    assert type(section) is method.section
    assert section.method == name
    assert (method.tensors is None) == method.trains_every_weight


@pytest.mark.parametrize("name", ADAPTERS)
def test_a_row_counts_and_names_the_tensors_that_peft_trains(name: str) -> None:
    method = METHODS[name]
    base = _base()
    layout = layout_of(base, labels=4)
    section = resolve_recipe({"adapter": {"method": name, **SMALL[name]}}).adapter
    options = section.model_dump()
    size = options[method.dial.key] if method.dial else 1
    matrices = [
        m
        for m in method.targets(layout)
        if m.role.endswith(("query", "intermediate.dense", "LayerNorm"))
    ]
    adapted = tuple(AdaptedMatrix(matrix, size, 4.0) for matrix in matrices)
    choice = Choice(adapted, 0.0, "none", "frozen", options)
    assert method.config is not None
    assert method.tensors is not None
    config = method.config(layout, choice)
    assert config.peft_type == method.tensors.peft_type
    with ignore_expected_warnings():
        model = peft.get_peft_model(base, method.shapes_only(config))
    trained = {
        parameter_name: parameter.numel()
        for parameter_name, parameter in model.named_parameters()
        if parameter.requires_grad and not any(part in parameter_name for part in method.frozen)
    }
    counts = [method.parameters(matrix, size, options) for matrix in matrices]
    for matrix, count in zip(matrices, counts, strict=True):
        own = [number for key, number in trained.items() if method.owns(key, matrix=matrix.name)]
        assert sum(own) == count
    shared = [number for key, number in trained.items() if method.is_shared(key)]
    assert sum(shared) == method.shared(choice)
    assert sum(trained.values()) == sum(counts) + sum(shared) > 0


def test_tensors_that_every_method_of_a_peft_type_freezes_are_known_for_foreign_adapters() -> None:
    assert frozen_tensors("VERA") == (".vera_A", ".vera_B")
    assert frozen_tensors("LORA") == ()
    assert frozen_tensors("POLY") == ()


def test_every_method_of_peft_is_in_the_table_or_has_a_reason_not_to_be() -> None:
    rows = {method.tensors.peft_type for method in METHODS.values() if method.tensors}
    assert not rows & set(UNSUPPORTED)
    assert rows | set(UNSUPPORTED) == {each.value for each in PEFT_TYPE_TO_CONFIG_MAPPING}


def test_full_fine_tuning_costs_every_element_of_a_matrix() -> None:
    assert METHODS["full"].parameters(WeightMatrix("x", 3, 5), 1, {}) == 15
