"""The frozen pretrained encoder: its location, its config, and a skeleton without weights."""

from pennyweight.base.locate import BaseModel, ConfigChanges, locate, skeleton

__all__ = ["BaseModel", "ConfigChanges", "locate", "skeleton"]
