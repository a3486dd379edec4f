"""The allocation of trainable parameters: matrices, ranks, exact counts, and the Plan.

Importing any part of it loads neither torch nor PEFT.
"""

from pennyweight.budget.count import AdapterFile, read_adapter
from pennyweight.budget.plan import Plan, Spending, make_plan
from pennyweight.budget.prove import prove_artifact
from pennyweight.budget.summary import Matrix, PlanSummary

__all__ = [
    "AdapterFile",
    "Matrix",
    "Plan",
    "PlanSummary",
    "Spending",
    "make_plan",
    "prove_artifact",
    "read_adapter",
]
