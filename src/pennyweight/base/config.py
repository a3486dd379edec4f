"""Read a base's `config.json` without ever running code that comes with it."""

from __future__ import annotations

import json
from pathlib import Path

from transformers import AutoConfig, PreTrainedConfig

from pennyweight.errors import BaseModelError

__all__ = ["read_config"]


def read_config(directory: Path, *, name: str) -> PreTrainedConfig:
    """Return the config in a model directory.

    Args:
        directory: a local directory in the hub's format.
        name: what an error calls the base.

    Raises:
        BaseModelError: the directory has no config, or one that transformers cannot read or that
            needs code of its own.
    """
    path = directory / "config.json"
    if not path.is_file():
        raise BaseModelError(
            f"base.name: {name}: not a model directory in the hub's format; it must hold "
            "config.json, model.safetensors and the tokenizer's files"
        )
    try:
        # Without an explicit False, transformers asks on the terminal whether to run such code.
        return AutoConfig.from_pretrained(directory, trust_remote_code=False)
    except (ValueError, KeyError, OSError) as error:
        if _has_own_code(path):
            raise BaseModelError(
                f"base.name: {name}: its config.json needs Python code that comes with the model, "
                "which is never run; choose a base whose architecture transformers includes"
            ) from None
        reason = str(error).splitlines()[0]
        raise BaseModelError(f"base.name: {name}: config.json cannot be used: {reason}") from None


def _has_own_code(path: Path) -> bool:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and "auto_map" in config
