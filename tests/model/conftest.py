"""The tiny bases and sets."""

from tiny import bert, own_cache, roberta, sets

__all__ = ["bert", "own_cache", "roberta", "sets"]
