"""`[adapter]`: what each adapter method may be told."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import (
    BeforeValidator,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from pennyweight.recipe.section import Fraction, Section

__all__ = [
    "AdaLoraAdapter",
    "Adapter",
    "FullAdapter",
    "Initialization",
    "LohaAdapter",
    "LoraAdapter",
    "VeraAdapter",
]

Rank = PositiveInt | Literal["fill"] | dict[str, NonNegativeInt]
Alpha = PositiveFloat | dict[str, PositiveFloat]


Initialization = Literal["kaiming", "gaussian", "orthogonal", "pissa", "olora", "eva", "loftq"]


class _Adapter(Section):
    targets: tuple[str, ...] = Field(
        ("query", "value"),
        min_length=1,
        strict=False,
        description="patterns of the weight matrices that get an adapter",
    )
    dropout: Fraction = Field(0.0, description="dropout on the adapter's input")
    bias: Literal["none", "all", "lora_only"] = Field("none", description="biases to train too")
    head: Literal["full", "low-rank", "output-only", "frozen"] = Field(
        "full", description="how much of the classification head is trained"
    )
    head_rank: PositiveInt = Field(
        8, description='rank of the head\'s dense layer, head = "low-rank"'
    )


class LoraAdapter(_Adapter):
    """`[adapter]`: W + scaling B A (Hu et al. 2021, arXiv:2106.09685) and its next of kin.

    The scaling is alpha / rank, with "rslora" and "rsdora" alpha / sqrt(rank).
    """

    method: Literal["lora", "rslora", "dora", "rsdora", "lora-fa"] = Field(
        "lora", description="the adapter method; `pennyweight methods` lists them"
    )
    rank: Rank = Field(
        8,
        description="rank of every target, or per pattern",
        json_schema_extra={
            "allowed": 'a whole number from 1, "fill", '
            "or a table of patterns and whole numbers from 0"
        },
    )
    alpha: Alpha = Field(
        16.0,
        description="strength of every target, or per pattern",
        json_schema_extra={"allowed": "a number above 0, or a table of patterns and such numbers"},
    )
    initialization: Initialization = Field("kaiming", description="how A and B begin")


class AdaLoraAdapter(_Adapter):
    """`[adapter]`: W + P diag(e) Q, its rank cut down while it trains (arXiv:2303.10512)."""

    method: Literal["adalora"] = "adalora"
    rank: PositiveInt = Field(12, description="of every target when training begins")
    target_rank: PositiveInt = Field(8, description="mean rank when it ends")
    alpha: PositiveFloat = Field(16.0, description="strength")
    start_steps: NonNegativeInt = Field(200, description="steps before ranks begin to fall")
    final_steps: NonNegativeInt = Field(200, description="steps at the end, with ranks fixed")
    every: PositiveInt = Field(10, description="steps between two reallocations")
    betas: tuple[Fraction, Fraction] = Field(
        (0.85, 0.85), strict=False, description="smoothing of importance and of its uncertainty"
    )
    orthogonality: NonNegativeFloat = Field(
        0.5, description="weight of the penalty on P and Q that are not orthogonal"
    )

    @model_validator(mode="after")
    def _rank_falls(self) -> AdaLoraAdapter:
        if self.target_rank > self.rank:
            raise ValueError(
                f"adapter.target_rank: given {self.target_rank}; allowed: up to adapter.rank, "
                f"{self.rank}"
            )
        return self


class VeraAdapter(_Adapter):
    """`[adapter]`: W + diag(b) B diag(d) A with A and B random, shared and frozen (2310.11454)."""

    method: Literal["vera"] = "vera"
    rank: PositiveInt = Field(256, description="of the shared random matrices")
    d_initial: PositiveFloat = Field(0.1, description="what d begins with")


class LohaAdapter(_Adapter):
    """`[adapter]`: W + (alpha / r) (B1 A1) * (B2 A2), elementwise (FedPara, arXiv:2108.06098).

    `dropout` leaves out ranks.
    """

    method: Literal["loha"] = "loha"
    rank: PositiveInt = Field(4, description="of each of the two products")
    alpha: PositiveFloat = Field(4.0, description="strength")

    @model_validator(mode="after")
    def _no_bias(self) -> LohaAdapter:
        if self.bias != "none":
            raise ValueError(f'adapter.bias: given "{self.bias}"; allowed with loha: "none"')
        return self


class FullAdapter(Section):
    """`[adapter]`: none: every weight is trained, for a teacher or a baseline.

    Over budget it trains all the same; what it leaves may teach, and may not be submitted.
    """

    method: Literal["full"] = "full"


def _lora_unless_named(value: object) -> object:
    return {"method": "lora", **value} if isinstance(value, dict) else value


Adapter = Annotated[
    LoraAdapter | AdaLoraAdapter | VeraAdapter | LohaAdapter | FullAdapter,
    Field(discriminator="method"),
    BeforeValidator(_lora_unless_named),
]
