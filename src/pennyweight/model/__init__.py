"""Base plus adapters plus head, built from a Plan, saved and loaded as a standard PEFT adapter."""

from pennyweight.model.build import build_model, load_tokenizer
from pennyweight.model.store import (
    load_adapter,
    load_labels,
    load_whole,
    merge_adapter,
    save_adapter,
    save_merged,
)

__all__ = [
    "build_model",
    "load_adapter",
    "load_labels",
    "load_tokenizer",
    "load_whole",
    "merge_adapter",
    "save_adapter",
    "save_merged",
]
