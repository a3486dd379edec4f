"""Defaults: what a recipe leaves open follows from base, rows and budget, by written rules."""

from pennyweight.defaults.complete import Completed, complete

__all__ = ["Completed", "complete"]
