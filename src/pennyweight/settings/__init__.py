"""Settings: a recipe taken apart into plain values, and planned."""

from pennyweight.settings.planning import find_base, plan

__all__ = ["find_base", "plan"]
