"""The contents of any PEFT adapter directory, read from its files alone."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pennyweight.budget.count import AdapterFile, read_adapter
from pennyweight.budget.facts import read_artifact_facts
from pennyweight.budget.methods import METHODS
from pennyweight.budget.summary import SHARED

__all__ = ["inspect_adapter"]

_PREFIX = "base_model.model."


def inspect_adapter(directory: str | Path) -> dict[str, Any]:
    """Return method, base and every trained tensor of an adapter, counted from the saved file.

    Raises:
        RunError: the directory does not hold a readable adapter.
    """
    directory = Path(directory)
    file, facts = read_adapter(directory), read_artifact_facts(directory)
    method = facts.method if facts else str(file.config["peft_type"]).lower()
    return {
        "adapter": str(directory),
        "file": file.path.name,
        "bytes": file.bytes,
        "method": method,
        "base": file.config.get("base_model_name_or_path"),
        "trainable_parameters": file.parameters,
        "frozen_parameters": sum(map(math.prod, file.shapes.values())) - file.parameters,
        "repeated_tensors_left_out": len(file.aliases),
        "matrices": _matrices(file, method),
    }


def _matrices(file: AdapterFile, method: str) -> list[dict[str, Any]]:
    """Return the trained parameters by module, with rank and alpha of LoRA's matrices."""
    rows = [
        tensors
        for row in METHODS.values()
        if (tensors := row.tensors) is not None
        and tensors.peft_type == str(file.config["peft_type"])
    ]
    adapter = _adapter_pattern({tensors.prefix for tensors in rows})
    shared = {tensors.shared for tensors in rows if tensors.shared is not None}
    matrices: dict[str, dict[str, Any]] = {}
    for name, shape in file.trained.items():
        match = adapter.match(name.removeprefix(_PREFIX))
        module = match["module"] if match else name.removeprefix(_PREFIX)
        kind = method if match else ("bias" if ".base_layer.bias" in name else "trained in full")
        if any(part in name for part in shared):
            module, kind = SHARED, method
        entry = matrices.setdefault(
            module, {"name": module, "kind": kind, "rank": None, "alpha": None, "parameters": 0}
        )
        entry["parameters"] += math.prod(shape)
    for name, shape in file.shapes.items():
        module, is_a, _ = name.removeprefix(_PREFIX).rpartition(".lora_A")
        if is_a and shape and module in matrices:
            matrices[module] |= {"rank": shape[0], "alpha": _alpha(file.config, module)}
    return list(matrices.values())


def _adapter_pattern(prefixes: Iterable[str]) -> re.Pattern[str]:
    """Return the pattern of the names of adapter tensors, with the adapted module as a group."""
    alternatives = "|".join(sorted(map(re.escape, prefixes))) or "(?!)"
    return re.compile(rf"(?P<module>.+)\.(?:{alternatives})")


def _alpha(config: Mapping[str, Any], module: str) -> Any:
    """Return the module's alpha: that of the first matching pattern, or the config's own."""
    patterns = config.get("alpha_pattern") or {}
    for pattern, alpha in patterns.items():
        try:
            if re.match(rf"(.*\.)?({pattern})$", module):
                return alpha
        except re.error:
            continue
    return config.get("lora_alpha")
