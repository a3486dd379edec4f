"""The tiny bases and sets."""

from runs.tiny import bert, own_cache, roberta, sets

__all__ = ["bert", "own_cache", "roberta", "sets"]
