"""The number of parameters that a choice of ranks, head and biases trains, by arithmetic alone."""

from __future__ import annotations

from pennyweight.budget.layout import Layout
from pennyweight.budget.methods.method import Choice, Method, trained_head_modules

__all__ = ["count_by_formula", "trained_biases"]


def count_by_formula(layout: Layout, choice: Choice, *, method: Method) -> int:
    """Return the number of parameters that a choice trains, by arithmetic alone."""
    modules = trained_head_modules(layout, choice.head)
    head = [size for module in modules for size in layout.elements_in(module).values()]
    adapters = [method.parameters(a.matrix, a.rank, choice.options) for a in choice.adapted]
    biases = trained_biases(layout, choice)
    return sum(head) + sum(adapters) + method.shared(choice) + sum(biases.values())


def trained_biases(layout: Layout, choice: Choice) -> dict[str, int]:
    """Return the sizes of the trained biases, without those of head modules trained in full."""
    in_head = tuple(f"{module}." for module in trained_head_modules(layout, choice.head))
    biases = {
        name: size
        for name, size in layout.sizes.items()
        if name.endswith(".bias") and not name.startswith(in_head)
    }
    if choice.bias == "all":
        return biases
    targeted = {f"{a.matrix.name}.bias" for a in choice.adapted} if choice.bias != "none" else set()
    return {name: size for name, size in biases.items() if name in targeted}
