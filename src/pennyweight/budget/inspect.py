"""What any PEFT adapter directory holds, ours or not, read from the files alone."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pennyweight.budget.count import AdapterFile, read_adapter

__all__ = ["inspect_adapter"]

_LORA = re.compile(
    r"^(?:base_model\.model\.)?(?P<module>.+)\.lora_(?:A|B|embedding_A|embedding_B|magnitude_vector)\b"
)
_PREFIX = "base_model.model."


def inspect_adapter(directory: str | Path) -> dict[str, Any]:
    """Method, base, and every trained tensor of an adapter, with the count proved from the file.

    Raises:
        RunError: the directory holds no adapter that can be read.
    """
    found = read_adapter(Path(directory))
    return {
        "adapter": str(directory),
        "file": found.path.name,
        "bytes": found.bytes,
        "method": str(found.config["peft_type"]).lower(),
        "base": found.config.get("base_model_name_or_path"),
        "trainable_parameters": found.parameters,
        "repeated_tensors_left_out": len(found.aliases),
        "matrices": _matrices(found),
    }


def _matrices(found: AdapterFile) -> list[dict[str, Any]]:
    method = str(found.config["peft_type"]).lower()
    matrices: dict[str, dict[str, Any]] = {}
    for name, shape in found.shapes.items():
        match = _LORA.match(name)
        module = match["module"] if match else name.removeprefix(_PREFIX)
        kind = method if match else ("bias" if ".base_layer.bias" in name else "trained whole")
        entry = matrices.setdefault(
            module, {"name": module, "kind": kind, "rank": None, "alpha": None, "parameters": 0}
        )
        entry["parameters"] += math.prod(shape)
        if ".lora_A" in name and shape:
            entry["rank"] = shape[0]
            entry["alpha"] = _alpha(found.config, module)
    return list(matrices.values())


def _alpha(config: Mapping[str, Any], module: str) -> Any:
    """The module's alpha: PEFT's pattern for the end of its name, or the config's own."""
    patterns = config.get("alpha_pattern") or {}
    for pattern, alpha in patterns.items():
        try:
            if re.match(rf"(.*\.)?({pattern})$", module):
                return alpha
        except re.error:
            continue
    return config.get("lora_alpha")
