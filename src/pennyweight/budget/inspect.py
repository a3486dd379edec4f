"""The contents of any PEFT adapter directory, read from its files alone."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict
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
        "frozen_parameters": sum(
            one.parameters for one in file.left_out if one.name not in file.aliases
        ),
        "repeated_tensors_left_out": len(file.aliases),
        "elements_in_file": file.parameters + sum(one.parameters for one in file.left_out),
        "left_out": [asdict(one) for one in file.left_out],
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
    alphas = _Alphas(file.config)
    for name, rank in file.ranks.items():
        module = name.removeprefix(_PREFIX)
        if module in matrices:
            matrices[module] |= {"rank": rank, "alpha": alphas.of(module)}
    return list(matrices.values())


def _adapter_pattern(prefixes: Iterable[str]) -> re.Pattern[str]:
    """Return the pattern of the names of adapter tensors, with the adapted module as a group."""
    alternatives = "|".join(sorted(map(re.escape, prefixes))) or "(?!)"
    return re.compile(rf"(?P<module>.+)\.(?:{alternatives})")


class _Alphas:
    """The alphas of an adapter's modules: that of the first matching pattern, or the config's own.

    PEFT reads the keys of `alpha_pattern` as regular expressions for the end of a module's name.
    Some expressions take practically forever, so matching is given up after a second in all.

    Args:
        config: the adapter's `adapter_config.json`.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        patterns = config.get("alpha_pattern")
        self._default = config.get("lora_alpha")
        self._seconds = 1.0
        self._literals: dict[str, Any] = {}
        self._expressions: dict[str, Any] = {}
        for pattern, alpha in patterns.items() if isinstance(patterns, dict) else ():
            name = pattern.replace("\\.", ".")
            is_literal = re.fullmatch(r"[\w.-]*", name) is not None
            (self._literals if is_literal else self._expressions)[
                name if is_literal else pattern
            ] = alpha

    def of(self, module: str) -> Any:
        """Return the alpha of a module; None if the patterns cannot be matched in time."""
        parts = module.split(".")
        for first in range(len(parts)):
            alpha = self._literals.get(".".join(parts[first:]))
            if alpha is not None:
                return alpha
        return self._by_expression(module) if self._expressions else self._default

    def _by_expression(self, module: str) -> Any:
        import regex

        for pattern, alpha in self._expressions.items():
            began = time.monotonic()
            try:
                if self._seconds <= 0.0:
                    return None
                if regex.match(rf"(.*\.)?({pattern})$", module, timeout=self._seconds):
                    return alpha
            except regex.error:
                continue
            except (TimeoutError, RecursionError):
                return None
            finally:
                self._seconds -= time.monotonic() - began
        return self._default
