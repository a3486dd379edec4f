"""The base class of all sections of a recipe."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["Fraction", "Section", "Seed"]

Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]
# Libraries take seeds of 32 bits, and some stages add small numbers to the seed.
Seed = Annotated[int, Field(ge=0, lt=2**31)]


class Section(BaseModel):
    """A section of a recipe: frozen, strict about types, and without unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)
