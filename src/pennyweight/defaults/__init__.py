"""Defaults: what a recipe leaves open follows from base, rows and budget, by written rules."""

from pennyweight.defaults.allocation import Allocated, allocate
from pennyweight.defaults.complete import Completed, complete, is_completion
from pennyweight.defaults.planning import plan

__all__ = ["Allocated", "Completed", "allocate", "complete", "is_completion", "plan"]
