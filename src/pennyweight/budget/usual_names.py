"""The names that BERT and RoBERTa give to weight matrices which other architectures call otherwise.

A recipe that says `targets = ["query", "value"]` means the same matrices of every encoder.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

__all__ = ["usual_name"]

_QUERY, _KEY, _VALUE = (f"attention.self.{role}" for role in ("query", "key", "value"))
_ATTENTION_OUTPUT = "attention.output.dense"
_UP, _DOWN = "intermediate.dense", "output.dense"

_DEBERTA = {
    "attention.self.query_proj": _QUERY,
    "attention.self.key_proj": _KEY,
    "attention.self.value_proj": _VALUE,
}
# By transformers' `model_type`: the end of a layer's name, and what stands there in BERT.
_USUAL: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "albert": {
            "attention.query": _QUERY,
            "attention.key": _KEY,
            "attention.value": _VALUE,
            "attention.dense": _ATTENTION_OUTPUT,
            "ffn": _UP,
            "ffn_output": _DOWN,
        },
        "deberta": _DEBERTA,
        "deberta-v2": _DEBERTA,
        "distilbert": {
            "attention.q_lin": _QUERY,
            "attention.k_lin": _KEY,
            "attention.v_lin": _VALUE,
            "attention.out_lin": _ATTENTION_OUTPUT,
            "ffn.lin1": _UP,
            "ffn.lin2": _DOWN,
        },
        # Query, key and value are one matrix, `attn.Wqkv`, which has no other name.
        "modernbert": {"attn.Wo": _ATTENTION_OUTPUT, "mlp.Wi": _UP, "mlp.Wo": _DOWN},
        "mpnet": {
            "attention.attn.q": _QUERY,
            "attention.attn.k": _KEY,
            "attention.attn.v": _VALUE,
            "attention.attn.o": _ATTENTION_OUTPUT,
        },
    }
)


def usual_name(name: str, architecture: str | None) -> str | None:
    """Return the name of a layer in BERT and RoBERTa; None where it is the same, or unknown.

    Args:
        name: of the layer in the model, such as "mpnet.encoder.layer.0.attention.attn.q".
        architecture: `model_type` of the model's config.
    """
    for own, usual in _USUAL.get(architecture or "", {}).items():
        if name.endswith(f".{own}"):
            return name.removesuffix(own) + usual
    return None
