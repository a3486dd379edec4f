"""LoRA and its closest variants: rsLoRA, DoRA, both combined, and LoRA-FA."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from pennyweight.budget.allocate.sections import DEFAULT as DEFAULT_STRATEGY
from pennyweight.budget.allocate.sections import Allocate
from pennyweight.budget.layout import Layout, WeightMatrix
from pennyweight.budget.methods.method import (
    Choice,
    Method,
    Support,
    Tensors,
    low_rank_parameters,
    peft_options,
)
from pennyweight.budget.methods.sections import LowRankSection, Quantization

if TYPE_CHECKING:
    from peft import LoraConfig, PeftConfig

__all__ = ["METHODS", "Initialization", "LoraAdapter", "changes_base"]

Initialization = Literal["kaiming", "gaussian", "orthogonal", "pissa", "olora", "eva", "loftq"]
# One kind more than other methods have, because their ranks cannot be allocated.
_Head = Literal["full", "low-rank", "output-only", "frozen", "auto", "planned"]
# PEFT's names of the initializations.
_INITIALIZATIONS: Mapping[str, bool | str] = MappingProxyType(
    {
        "kaiming": True,
        "gaussian": "gaussian",
        "orthogonal": "orthogonal",
        "pissa": "pissa",
        "olora": "olora",
        "eva": "eva",
        # PEFT's own LoftQ quantizes a full-precision base. Ours is already held in 4 bits, and
        # `pennyweight.model.quantize` sets the adapters once they exist.
        "loftq": True,
    }
)
_LOFTQ_METHODS = ("lora", "rslora")
# They subtract the product of the initial A and B from the base's weights.
_CHANGE_BASE = ("pissa", "olora")


def changes_base(initialization: str | None) -> bool:
    """Return whether an initialization of the adapters changes the base's weights."""
    return initialization in _CHANGE_BASE


class LoraAdapter(LowRankSection):
    """`[adapter]`: W + scaling B A (Hu et al. 2021, arXiv:2106.09685) and its closest variants.

    The scaling is alpha / rank, or alpha / sqrt(rank) with "rslora" and "rsdora".
    """

    method: Literal["lora", "rslora", "dora", "rsdora", "lora-fa"] = Field(
        "lora", description="the adapter method; `pennyweight methods` lists them"
    )
    rank: PositiveInt | Literal["fill", "allocate"] | dict[str, NonNegativeInt] = Field(
        8,
        description='the rank of every target, or per pattern; "fill" is the largest that fits the '
        'budget, and "allocate" chooses a rank for each matrix as [adapter.allocate] says',
        json_schema_extra={
            "allowed": 'a whole number from 1, "fill", "allocate", '
            "or a table of patterns and whole numbers from 0"
        },
    )
    alpha: PositiveFloat | Literal["auto"] | dict[str, PositiveFloat] = Field(
        16.0,
        description='the alpha of every target, or per pattern; "auto" is twice the rank',
        json_schema_extra={
            "allowed": 'a number above 0, "auto", or a table of patterns and numbers above 0'
        },
    )
    head: _Head = Field(  # type: ignore[assignment]
        "full",
        description='how much of the classification head is trained; "planned" lets it compete '
        'with the matrices and needs rank = "allocate"',
    )
    allocate: Allocate | None = Field(
        None,
        description='how the budget is allocated to matrices with rank = "allocate"; if not set, '
        f'method = "{DEFAULT_STRATEGY}"',
    )
    plan: str | None = Field(
        None,
        description="a plan file, as `pennyweight plan --out` writes it, whose ranks, alphas and "
        "head are used instead of those of this section",
        json_schema_extra={"path": "path"},
    )
    initialization: Initialization = Field("kaiming", description="the initialization of A and B")

    @model_validator(mode="before")
    @classmethod
    def _scaling_follows_rank(cls, values: Any) -> Any:
        """Set what an allocation needs and a recipe leaves out."""
        if isinstance(values, dict) and values.get("rank") == "allocate":
            return {"alpha": "auto", **values, "allocate": values.get("allocate") or {}}
        return values

    @model_validator(mode="after")
    def _allocation_is_used(self) -> LoraAdapter:
        if self.rank == "allocate":
            if self.alpha != "auto":
                raise ValueError(
                    'adapter.alpha: with rank = "allocate" each matrix has a rank of its own, and '
                    'one alpha would scale them differently; use alpha = "auto"'
                )
        elif self.allocate is not None:
            raise ValueError(
                'adapter.allocate: has no effect without adapter.rank = "allocate"; set it, or '
                "remove the section"
            )
        elif self.head == "planned":
            raise ValueError('adapter.head: "planned" needs adapter.rank = "allocate"')
        return self

    @model_validator(mode="after")
    def _loftq_fits_method(self) -> LoraAdapter:
        if self.initialization == "loftq" and self.method not in _LOFTQ_METHODS:
            raise ValueError(
                f'adapter.initialization: "loftq" does not work with {self.method}; '
                f"it works with {' and '.join(_LOFTQ_METHODS)}"
            )
        return self

    @property
    def changes_base(self) -> bool:
        """Whether the adapter's initialization changes the base's weights."""
        return changes_base(self.initialization)

    def quantization_conflict(self, quantization: Quantization) -> str | None:
        """Return why these keys do not work on a quantized base, or None if they do."""
        if self.initialization == "loftq" and quantization != "nf4":
            return (
                'adapter.initialization: "loftq" compensates for the error of 4-bit weights; it '
                'needs base.quantization = "nf4"'
            )
        if quantization != "none" and changes_base(self.initialization):
            return (
                f'adapter.initialization: "{self.initialization}" changes the base\'s weights, '
                f'which base.quantization = "{quantization}" keeps frozen; use "loftq"'
            )
        return super().quantization_conflict(quantization)


def _config(**flags: bool) -> Callable[[Layout, Choice], LoraConfig]:
    def build(layout: Layout, choice: Choice) -> LoraConfig:
        from peft import EvaConfig, LoraConfig

        ranks = Counter(adapted.rank for adapted in choice.adapted)
        alphas = Counter(adapted.alpha for adapted in choice.adapted)
        rank, alpha = ranks.most_common(1)[0][0], alphas.most_common(1)[0][0]
        initialization = choice.options.get("initialization", "kaiming")
        return LoraConfig(
            **peft_options(layout, choice),
            r=rank,
            lora_alpha=alpha,
            # PEFT reads the keys as regular expressions for the end of a module's name.
            rank_pattern={
                re.escape(a.matrix.name): a.rank for a in choice.adapted if a.rank != rank
            },
            alpha_pattern={
                re.escape(a.matrix.name): a.alpha for a in choice.adapted if a.alpha != alpha
            },
            lora_dropout=choice.dropout,
            bias=choice.bias,
            init_lora_weights=_INITIALIZATIONS[initialization],
            # rho = 1 keeps the planned rank of every matrix.
            eva_config=EvaConfig(rho=1.0) if initialization == "eva" else None,
            **flags,
        )

    return build


def _shapes_only(config: PeftConfig) -> PeftConfig:
    return replace(config, init_lora_weights=True, eva_config=None)


def _with_magnitudes(matrix: WeightMatrix, rank: int, options: Mapping[str, Any]) -> int:
    del options
    return matrix.low_rank_parameters(rank) + matrix.rows


_TENSORS = Tensors(peft_type="LORA", prefix="lora_")
# bitsandbytes' int8 layers do not expose the weight whose norms DoRA needs.
# A magnitude rescales the whole row of W, which no sum of deltas of a low rank does.
_DORA_SUPPORT = Support(quantizations=("none", "nf4"), combines="factors")
_LORA_SUPPORT = Support(combines="deltas")

METHODS: tuple[Method, ...] = (
    Method(
        name="lora",
        summary="W + (alpha / r) B A",
        formula="r (rows + columns)",
        paper="Hu et al. 2021, LoRA, arXiv:2106.09685",
        section=LoraAdapter,
        parameters=low_rank_parameters,
        config=_config(),
        tensors=_TENSORS,
        support=_LORA_SUPPORT,
        shapes_only=_shapes_only,
    ),
    Method(
        name="rslora",
        summary="W + (alpha / sqrt(r)) B A",
        formula="r (rows + columns)",
        paper="Kalajdzievski 2023, rank-stabilized LoRA, arXiv:2312.03732",
        section=LoraAdapter,
        parameters=low_rank_parameters,
        config=_config(use_rslora=True),
        tensors=_TENSORS,
        support=_LORA_SUPPORT,
        shapes_only=_shapes_only,
    ),
    Method(
        name="dora",
        summary="LoRA on the direction of W, with a trained magnitude per row",
        formula="r (rows + columns) + rows",
        paper="Liu et al. 2024, DoRA, arXiv:2402.09353",
        section=LoraAdapter,
        parameters=_with_magnitudes,
        config=_config(use_dora=True),
        tensors=_TENSORS,
        support=_DORA_SUPPORT,
        shapes_only=_shapes_only,
    ),
    Method(
        name="rsdora",
        summary="DoRA with rank-stabilized scaling",
        formula="r (rows + columns) + rows",
        paper="arXiv:2402.09353 with arXiv:2312.03732",
        section=LoraAdapter,
        parameters=_with_magnitudes,
        config=_config(use_dora=True, use_rslora=True),
        tensors=_TENSORS,
        support=_DORA_SUPPORT,
        shapes_only=_shapes_only,
    ),
    Method(
        name="lora-fa",
        summary="LoRA with A frozen at its initialization",
        formula="r * rows",
        paper="Zhang et al. 2023, LoRA-FA, arXiv:2308.03303",
        section=LoraAdapter,
        parameters=lambda matrix, rank, options: rank * matrix.rows,
        config=_config(),
        tensors=replace(_TENSORS, frozen=(".lora_A.",)),
        # A is not counted, so it has to stay as it was drawn.
        support=Support(combines="factors"),
        shapes_only=_shapes_only,
    ),
)
