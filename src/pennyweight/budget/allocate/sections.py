"""`[adapter.allocate]`: a section for each allocation strategy, with its keys."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import (
    BeforeValidator,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
)

from pennyweight.section import Section

__all__ = [
    "DEFAULT",
    "AdaLoraAllocation",
    "Allocate",
    "ByTypeAllocation",
    "EvenAllocation",
    "KnapsackAllocation",
    "Measure",
    "MeasuredAllocation",
]

Measure = Literal["gradient", "activation", "fisher"]
# The strategy of a recipe that names none.
DEFAULT = "gradient"


class EvenAllocation(Section):
    """Equal ranks, without any measurement."""

    method: Literal["uniform", "fill"] = Field(description="the allocation strategy")


class ByTypeAllocation(Section):
    """Ranks in given ratios, without any measurement."""

    method: Literal["by-type"] = Field(description="the allocation strategy")
    ratios: dict[str, NonNegativeFloat] = Field(
        {"*": 1.0, "attention": 2.0},
        min_length=1,
        description="patterns of matrices with the ratio of their ranks; the last matching pattern "
        "applies, and 0 leaves a matrix out",
    )


class _Rows(Section):
    rows: PositiveInt = Field(
        128, description="the number of training rows that are measured on, at most"
    )
    seed: NonNegativeInt = Field(0, description="the seed that draws these rows")


class MeasuredAllocation(_Rows):
    """The ranks of the largest total gain, by one measure on training rows."""

    method: Literal["gradient", "activation", "fisher"] = Field(
        "gradient", description="the allocation strategy"
    )


class KnapsackAllocation(_Rows):
    """The ranks of the largest total gain, by several measures together.

    Each measure is scaled to the same total over all matrices.
    """

    method: Literal["knapsack"] = Field(description="the allocation strategy")
    measures: tuple[Measure, ...] = Field(
        ("gradient", "activation"),
        min_length=1,
        strict=False,
        description="the measures that are averaged",
    )


class AdaLoraAllocation(_Rows):
    """The ranks with the largest importance at the end of a short training with AdaLoRA."""

    method: Literal["adalora"] = Field(description="the allocation strategy")
    steps: PositiveInt = Field(30, description="the number of optimizer steps of the pilot")
    batch_rows: PositiveInt = Field(16, description="the number of rows in each step")
    learning_rate: PositiveFloat = Field(0.001, description="the learning rate of the pilot")


def _with_method(value: object) -> object:
    return {"method": DEFAULT, **value} if isinstance(value, dict) else value


Allocate = Annotated[
    EvenAllocation | ByTypeAllocation | MeasuredAllocation | KnapsackAllocation | AdaLoraAllocation,
    Field(discriminator="method"),
    BeforeValidator(_with_method),
]
