"""The generated pages of docs/reference/."""

from __future__ import annotations

from reference_pages.command_line import command_line_page
from reference_pages.methods import methods_page
from reference_pages.recipe import recipe_page

__all__ = ["pages"]


def pages() -> dict[str, str]:
    """Return the text of every generated page, by file name."""
    return {
        "recipe.md": recipe_page(),
        "command-line.md": command_line_page(),
        "methods.md": methods_page(),
    }
