"""Base, adapters and head built from a Plan; saved and loaded as a standard PEFT adapter."""

from pennyweight.model.artifact import (
    ArtifactFacts,
    load_adapter,
    read_artifact_facts,
    save_artifact,
)
from pennyweight.model.build import BaseOptions, build_model, load_base, load_tokenizer
from pennyweight.model.merge import load_merged, merge_adapter, save_merged

__all__ = [
    "ArtifactFacts",
    "BaseOptions",
    "build_model",
    "load_adapter",
    "load_base",
    "load_merged",
    "load_tokenizer",
    "merge_adapter",
    "read_artifact_facts",
    "save_artifact",
    "save_merged",
]
