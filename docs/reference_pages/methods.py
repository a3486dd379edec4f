"""The reference of the methods that a recipe or a command can name, from their tables."""

from __future__ import annotations

import textwrap

from pennyweight.budget.methods.unsupported import UNSUPPORTED
from pennyweight.cli.methods import MethodKind, list_methods
from reference_pages.markdown import GENERATED, table

__all__ = ["methods_page"]

_METHOD_SECTIONS = {
    MethodKind.adapters: (
        "Adapter methods",
        "The values of `adapter.method`. W is a frozen matrix with the given numbers of rows and "
        "columns. *Size* is the key of `[adapter]` that sets how many parameters an adapter has; "
        'it may be `"fill"`. r is the rank. Adapters of a fixed size have no such key. '
        "Every count is checked against the model and against the saved file.",
    ),
    MethodKind.allocation: (
        "Allocation strategies",
        "The values of `adapter.allocate.method`, which choose ranks where `adapter.rank` is "
        '"allocate". '
        "No strategy exceeds the budget. See [Allocation](../concepts/allocation.md).",
    ),
    MethodKind.optimizers: ("Optimizers", "The values of `optimizer.method`."),
    MethodKind.cleaning: (
        "Cleaning steps",
        "The names in `data.clean`, which are applied in the given order.",
    ),
    MethodKind.filters: ("Filters", "The values of `method` in `[[data.filters]]`."),
    MethodKind.augmentations: (
        "Augmentations",
        "The values of `method` in `[[data.augmentations]]` (Wei & Zou 2019, arXiv:1901.11196).",
    ),
    MethodKind.formats: (
        "File formats",
        "The values of `format` in a source of rows, and of the option `--format`. If the format "
        "is not given, it is detected from the file.",
    ),
    MethodKind.combinations: (
        "Combinations of runs",
        "The values of `pennyweight combine --method`; see "
        "[Combine runs](../how-to/combine-runs.md).",
    ),
}


def methods_page() -> str:
    """Return the reference of the methods that a recipe can name."""
    intro = """\
    # Methods

    These are the methods that a recipe or a command can select by name. `pennyweight methods KIND`
    prints these tables.
    The keys of each method are in the [recipe reference](recipe.md).
    """
    blocks = [GENERATED + textwrap.dedent(intro).rstrip()]
    for kind in MethodKind:
        title, text = _METHOD_SECTIONS[kind]
        rows = list_methods(kind)
        cells = [[_cell(key, text) for key, text in row.items()] for row in rows]
        blocks += [f"## {title}", text, table([_heading(key) for key in rows[0]], cells)]
        if kind is MethodKind.adapters:
            blocks += _unsupported()
    return "\n\n".join(blocks) + "\n"


def _unsupported() -> list[str]:
    return [
        "### Methods of PEFT that are not supported",
        "All other methods of PEFT 0.21 are in the table above.",
        table(
            ["Method", "Reason"], [[f"`{name}`", f"It {why}."] for name, why in UNSUPPORTED.items()]
        ),
    ]


def _cell(key: str, text: str) -> str:
    if key in ("what", "removes"):
        return text[:1].upper() + text[1:]
    plain = ("parameters", "needs", "paper", "endings")
    return text if not text or key in plain else f"`{text}`"


def _heading(key: str) -> str:
    headings = {
        "what": "Description",
        "parameters": "Parameters per matrix",
        "endings": "File extensions",
    }
    return headings.get(key, key.capitalize())
