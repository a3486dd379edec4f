"""For each key of `[adapter]`, a change that a run must show; see `live_keys.py`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from small_adapters import SMALL

__all__ = ["ADAPTER_CHANGES", "Change", "Settings"]

Settings = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Change:
    """A change of one key.

    Attributes:
        value: the key's other value; None removes the key.
        besides: keys that both runs have, in the order in which they are set.
        element: of a list of tables, the one whose key is changed.
    """

    value: Any
    besides: Settings = field(default_factory=dict)
    element: int = 0


_ADALORA: Settings = {
    "adapter": {
        "method": "adalora",
        "rank": 3,
        "target_rank": 1,
        "start_steps": 1,
        "final_steps": 2,
        "every": 1,
    },
    "train.epochs": 3,
}
_VERA: Settings = {"adapter": {"method": "vera", "rank": 4}}
# So few parameters that not every matrix gets a rank.
_ALLOCATED: Settings = {
    "adapter.rank": "allocate",
    "adapter.alpha": "auto",
    "adapter.targets": ["*"],
    "adapter.head": "output-only",
    "budget.trainable_parameters": 1000,
}


def _allocated(**keys: Any) -> Settings:
    return {**_ALLOCATED, "adapter.allocate": keys}


_PILOT: Settings = _allocated(method="adalora", rows=40, steps=4, batch_rows=8)


def _adapter(method: str) -> Settings:
    return {"adapter": {"method": method, **SMALL[method]}}


_LOKR: Settings = {"adapter": {"method": "lokr", "rank": 1, "alpha": 4, "factor": 8}}
_LOW_RANK: Settings = {"adapter.head": "low-rank"}

ADAPTER_CHANGES: dict[str, Change] = {
    "adapter.method": Change("rslora"),
    "adapter.targets": Change(["key"]),
    "adapter.rank": Change(3),
    "adapter.alpha": Change(1.0),
    "adapter.dropout": Change(0.5),
    "adapter.bias": Change("all"),
    "adapter.head": Change("low-rank"),
    "adapter.head_rank": Change(2, _LOW_RANK),
    "adapter.plan": Change("{plan}"),
    "adapter.allocate": Change({"method": "fill"}, _ALLOCATED),
    "adapter.allocate.method": Change("activation", _ALLOCATED),
    "adapter.allocate.rows": Change(2, _ALLOCATED),
    "adapter.allocate.seed": Change(1, _ALLOCATED),
    "adapter.allocate.ratios": Change({"*": 1.0, "query": 9.0}, _allocated(method="by-type")),
    "adapter.allocate.measures": Change(["activation"], _allocated(method="knapsack")),
    "adapter.allocate.steps": Change(1, _PILOT),
    "adapter.allocate.batch_rows": Change(2, _PILOT),
    "adapter.allocate.learning_rate": Change(0.5, _PILOT),
    "adapter.top_layers": Change(1),
    "adapter.initialization": Change("gaussian"),
    "adapter.target_rank": Change(2, _ADALORA),
    "adapter.start_steps": Change(2, _ADALORA),
    "adapter.final_steps": Change(1, _ADALORA),
    "adapter.every": Change(3, _ADALORA),
    "adapter.betas": Change([0.1, 0.1], _ADALORA),
    "adapter.orthogonality": Change(0.0, _ADALORA),
    "adapter.d_initial": Change(1.0, _VERA),
    "adapter.variant": Change(4, _adapter("road")),
    "adapter.group_size": Change(8, _adapter("road")),
    "adapter.frequencies": Change(50, _adapter("fourierft")),
    "adapter.scaling": Change(10.0, _adapter("fourierft")),
    "adapter.vector_length": Change(40, _adapter("unilora")),
    "adapter.inner_rank": Change(2, _adapter("unilora")),
    "adapter.vectors": Change(10, _adapter("vblora")),
    "adapter.top_k": Change(3, _adapter("vblora")),
    "adapter.weight_tying": Change(0.5, _adapter("tinylora")),
    "adapter.block_size": Change(4, _adapter("oft")),
    "adapter.orthonormal": Change(True, _adapter("hra")),
    "adapter.bound": Change(2.0, _adapter("delora")),
    "adapter.scale_inputs": Change([], _adapter("ia3")),
    "adapter.factor": Change(2, _LOKR),
    "adapter.decompose_both": Change(True, _LOKR),
    "adapter.blocks": Change(4, _adapter("gralora")),
    "adapter.depth": Change(1, _adapter("peanut")),
    "adapter.projection": Change("qr", _adapter("deft")),
}
