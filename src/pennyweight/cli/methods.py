"""`pennyweight methods`."""

from __future__ import annotations

from pennyweight.cli.options import Json, print_json, quiet_libraries

__all__ = ["command"]


def command(as_json: Json = False) -> None:
    """List the adapter methods: what each does, what it costs per matrix, and its paper."""
    quiet_libraries()
    from pennyweight.budget.methods import METHODS
    from pennyweight.cli.tables import show_table

    rows = [
        {
            "method": method.name,
            "what": method.summary,
            "parameters": method.formula,
            "paper": method.paper,
        }
        for method in METHODS.values()
    ]
    if as_json:
        print_json(rows)
        return
    show_table(("method", "what", "parameters per matrix", "paper"), [[*r.values()] for r in rows])
