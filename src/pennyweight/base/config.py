"""Read a base's `config.json` without ever running code that comes with it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import AutoConfig, PreTrainedConfig

from pennyweight.documents import DocumentError, printable, read_json_table
from pennyweight.errors import BaseModelError, first_line

__all__ = ["load_config", "read_config"]

# Far above any encoder, and few enough to be built on the meta device within seconds.
_MOST_LAYERS = 512
_MOST_UNITS = 2**40


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
    if (directory / "adapter_config.json").exists():
        raise BaseModelError(
            f"base.name: {name}: holds an adapter, whose own base would be loaded instead; name "
            "that base, or write a plain model with pennyweight merge"
        )
    try:
        return load_config(directory)
    except DocumentError as error:
        raise BaseModelError(f"base.name: {name}: config.json cannot be used: {error}") from None


def load_config(directory: Path) -> PreTrainedConfig:
    """Return the config of a local model; the only place that reads one.

    Raises:
        DocumentError: transformers cannot read it, it needs code of its own, or it describes a
            model that is larger than any encoder.
    """
    path = directory / "config.json"
    try:
        values = read_json_table(path)
    except OSError as error:
        raise DocumentError(error.strerror or first_line(error)) from None
    _check_sizes(values)
    try:
        # Without an explicit False, transformers asks on the terminal whether to run such code.
        config = AutoConfig.from_pretrained(directory, trust_remote_code=False)
    except Exception as error:  # noqa: BLE001 - transformers raises many kinds for a wrong value
        if "auto_map" in values:
            raise DocumentError(
                "it needs Python code that comes with the model, which is never run; choose a base "
                "whose architecture transformers includes"
            ) from None
        raise DocumentError(printable(first_line(error))) from None
    _check_sizes(config.to_dict())
    # The config could name an attention implementation that is code from the hub.
    config._attn_implementation = None
    return config


def _check_sizes(values: Mapping[str, Any]) -> None:
    """Check the numbers of a config before a module is made for each layer.

    Raises:
        DocumentError: a number is larger than that of any encoder.
    """
    for key, value in values.items():
        most = _MOST_LAYERS if "layers" in key or key == "n_layer" else _MOST_UNITS
        if isinstance(value, int | float) and not abs(value) <= most:
            raise DocumentError(f"{printable(key)}: given {value:g}; allowed: at most {most:,}")
