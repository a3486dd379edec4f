"""The frozen pretrained encoder: its location, its config, and a skeleton without weights."""

from pennyweight.base.locate import BaseModel, locate, skeleton

__all__ = ["BaseModel", "locate", "skeleton"]
