"""The frozen pretrained encoder: where it is, what it is made of, and its tokenizer."""

from pennyweight.base.locate import BaseModel, locate, skeleton

__all__ = ["BaseModel", "locate", "skeleton"]
