"""The adapter methods: a file per family, each of which lists its rows in `METHODS`.

A new file in this folder is a new method: the recipe schema, `pennyweight methods`, planning,
training, saving, counting and reloading all read the table below. Importing it loads neither torch
nor PEFT.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from types import MappingProxyType

from pennyweight.budget.methods.dial import Dial
from pennyweight.budget.methods.method import AdaptedMatrix, Choice, Method, Support, Tensors
from pennyweight.budget.methods.sections import (
    AdapterSection,
    Bias,
    Head,
    Quantization,
    TargetedSection,
)

__all__ = [
    "DEFAULT",
    "METHODS",
    "AdaptedMatrix",
    "AdapterSection",
    "Bias",
    "Choice",
    "Dial",
    "Head",
    "Method",
    "Quantization",
    "Support",
    "TargetedSection",
    "Tensors",
    "frozen_tensors",
]

# The method of a recipe that names none.
DEFAULT = "lora"


def _collect() -> Mapping[str, Method]:
    """Return all rows by name: the default's family first, full fine-tuning last."""
    families = [
        getattr(importlib.import_module(f"{__name__}.{module.name}"), "METHODS", ())
        for module in pkgutil.iter_modules(__path__)
    ]
    families.sort(key=lambda family: all(method.name != DEFAULT for method in family))
    rows = [method for family in families for method in family]
    rows.sort(key=lambda method: method.trains_every_weight)
    return MappingProxyType({method.name: method for method in rows})


METHODS: Mapping[str, Method] = _collect()


def frozen_tensors(peft_type: str) -> tuple[str, ...]:
    """Return the name parts of tensors that no method with this PEFT type trains.

    They are known for any adapter of that type, whoever saved it. Of the tensors that only some of
    the methods freeze (LoRA-FA's A) a PEFT config does not tell whether they were trained.
    """
    rows = [
        method.frozen
        for method in METHODS.values()
        if method.tensors is not None and method.tensors.peft_type == peft_type
    ]
    return tuple(part for part in (rows[0] if rows else ()) if all(part in row for row in rows))
