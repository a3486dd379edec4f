"""The base classes of the `[adapter]` sections of all methods, and the types of their keys.

A key that a method cannot use is not part of its section: there is a class for each set of keys.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from pennyweight.section import Fraction, Section

__all__ = [
    "DEFAULT_HEAD_RANK",
    "AdapterSection",
    "Alpha",
    "Bias",
    "DropoutSection",
    "FixedSizeSection",
    "Head",
    "LowRankSection",
    "Quantization",
    "Size",
    "TargetedSection",
]

Bias = Literal["none", "all", "lora_only"]
Head = Literal["full", "low-rank", "output-only", "frozen"]
Quantization = Literal["none", "nf4", "int8"]
DEFAULT_HEAD_RANK = 8

# The type of `alpha` of a method with one rank.
Alpha = Annotated[
    PositiveFloat | Literal["auto"],
    Field(json_schema_extra={"allowed": 'a number above 0, or "auto"'}),
]
# The type of the key that is a method's dial.
Size = Annotated[
    PositiveInt | Literal["fill"],
    Field(json_schema_extra={"allowed": 'a whole number from 1, or "fill"'}),
]


class AdapterSection(Section):
    """Base of every `[adapter]` section. Subclasses narrow `method` to a `Literal`."""

    method: str = Field(description="the adapter method; `pennyweight methods` lists them")

    def quantization_conflict(self, quantization: Quantization) -> str | None:
        """Return why these keys do not work on a quantized base, or None if they do."""
        del quantization
        return None

    @property
    def changes_base(self) -> bool:
        """Whether the adapter's initialization changes the base's weights."""
        return False


class TargetedSection(AdapterSection):
    """Base of the sections of methods that adapt selected layers."""

    targets: tuple[str, ...] = Field(
        ("query", "value"),
        min_length=1,
        strict=False,
        description="name patterns of the weight matrices that get an adapter",
    )
    head: Literal["full", "low-rank", "output-only", "frozen", "auto"] = Field(
        "full", description="how much of the classification head is trained"
    )
    head_rank: PositiveInt | Literal["auto"] = Field(
        DEFAULT_HEAD_RANK,
        description='with head = "low-rank": the rank of the adapter on a native head\'s dense '
        "layer, or of a pooled head's weights",
        json_schema_extra={"allowed": 'a whole number from 1, or "auto"'},
    )
    top_layers: PositiveInt | Literal["all"] = Field(
        "all",
        description="the number of encoder layers, counted from the top, that get adapters; the "
        "layers below are frozen, and train.prefix_cache can cache their outputs",
        json_schema_extra={"allowed": 'a whole number from 1, or "all"'},
    )

    @model_validator(mode="before")
    @classmethod
    def _ranks_can_be_allocated(cls, values: Any) -> Any:
        """Refuse an allocation by a strategy with a reason, where the method has none."""
        given = values if isinstance(values, dict) else {}
        for key, value in (("rank", "allocate"), ("head", "planned")):
            if given.get(key) == value:
                # Late, because the table is made of the modules that import this one.
                from pennyweight.budget.methods import DEFAULT, METHODS

                refusal = METHODS[given.get("method", DEFAULT)].allocation_refusal
                able = [name for name, row in METHODS.items() if row.allocation_refusal is None]
                if refusal:
                    raise ValueError(
                        f'adapter.{key}: given "{value}", but {refusal}; it works with '
                        f"{', '.join(able)}"
                    )
        return values


class FixedSizeSection(TargetedSection):
    """Base of the sections of methods whose adapters have no size to choose."""

    @model_validator(mode="before")
    @classmethod
    def _no_rank(cls, values: Any) -> Any:
        if isinstance(values, dict) and "rank" in values:
            # Late, because the table is made of the modules that import this one.
            from pennyweight.budget.methods import METHODS

            method = METHODS[values["method"]]
            raise ValueError(
                f'adapter.rank: given "{values["rank"]}", but the adapters of {method.name} have '
                f"one size only (for each target: {method.formula}); leave adapter.rank out, and "
                "choose fewer or more adapter.targets; `pennyweight plan` shows the sum"
            )
        return values


class DropoutSection(TargetedSection):
    """Base of the sections of methods that have dropout."""

    dropout: Fraction = Field(0.0, description="the dropout rate on the input of the adapter")


class LowRankSection(DropoutSection):
    """Base of the sections of methods beside which biases can be trained."""

    bias: Bias = Field("none", description="which biases are trained as well")

    @model_validator(mode="after")
    def _biases_are_in_the_top_layers(self) -> LowRankSection:
        if self.bias == "all" and isinstance(self.top_layers, int):
            raise ValueError(
                f'adapter.bias: "all" trains biases in every layer, and adapter.top_layers = '
                f"{self.top_layers} freezes the lower layers; use adapter.bias = "
                '"lora_only" or "none"'
            )
        return self

    def quantization_conflict(self, quantization: Quantization) -> str | None:
        """Return why these keys do not work on a quantized base, or None if they do."""
        if quantization != "none" and self.bias != "none":
            return (
                f'adapter.bias: cannot train "{self.bias}" biases of a base that '
                f'base.quantization = "{quantization}" keeps frozen; use adapter.bias = "none"'
            )
        return super().quantization_conflict(quantization)
