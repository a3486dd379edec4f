"""Defaults: what a recipe leaves open follows from base, rows and budget, by written rules."""

from pennyweight.defaults.complete import Completed, complete, is_completion
from pennyweight.defaults.planning import plan

__all__ = ["Completed", "complete", "is_completion", "plan"]
