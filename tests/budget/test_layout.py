"""Layer numbers and roles are read from names in one place."""

from __future__ import annotations

import pytest

from pennyweight.budget.layout import WeightMatrix, layer_of, role_of


@pytest.mark.parametrize(
    ("name", "layer", "role"),
    [
        ("roberta.encoder.layer.3.attention.self.query", 3, "attention.self.query"),
        ("base_model.model.bert.encoder.layer.11.output.dense.bias", 11, "output.dense.bias"),
        ("model.layers.0.attn.Wqkv", 0, "attn.Wqkv"),
        (
            "albert.encoder.albert_layer_groups.0.albert_layers.2.attention.query",
            0,
            "albert_layers.2.attention.query",
        ),
        ("classifier.dense", None, "classifier.dense"),
        ("bert.embeddings.word_embeddings.weight", None, "bert.embeddings.word_embeddings.weight"),
        ("layer1.query", None, "layer1.query"),
    ],
)
def test_layer_and_role_of_a_name(name: str, layer: int | None, role: str) -> None:
    assert (layer_of(name), role_of(name)) == (layer, role)
    matrix = WeightMatrix(name, 2, 3)
    assert (matrix.layer, matrix.role) == (layer, role)
