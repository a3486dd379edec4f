"""Fixtures for tests of defaults: the tiny bases and datasets."""

from tiny import bert, own_cache, roberta, sets

__all__ = ["bert", "own_cache", "roberta", "sets"]
