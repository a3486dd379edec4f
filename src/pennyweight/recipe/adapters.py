"""`[adapter]`: the union of the sections of all adapter methods.

The sections are defined beside their methods, in `pennyweight.budget.methods`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Union

from pydantic import BeforeValidator, Field

from pennyweight.budget.methods import DEFAULT, METHODS, AdapterSection

__all__ = ["Adapter", "default_adapter"]


def default_adapter() -> AdapterSection:
    """Return the section of a recipe without `[adapter]`."""
    return METHODS[DEFAULT].section(method=DEFAULT)


def _with_method(value: object) -> object:
    return {"method": DEFAULT, **value} if isinstance(value, dict) else value


if TYPE_CHECKING:
    Adapter = AdapterSection
else:
    # Methods of one family share a section.
    _SECTIONS = tuple(dict.fromkeys(method.section for method in METHODS.values()))
    Adapter = Annotated[
        Union[_SECTIONS],  # noqa: UP007 - built from the table
        Field(discriminator="method"),
        BeforeValidator(_with_method),
    ]
