"""Where the trainable parameters go: matrices, ranks, counts, and the Plan that ties them."""

from pennyweight.budget.count import AdapterFile, read_adapter
from pennyweight.budget.plan import Matrix, Plan, make_plan

__all__ = ["AdapterFile", "Matrix", "Plan", "make_plan", "read_adapter"]
