"""Uni-LoRA: all entries of LoRA's matrices are taken from one trained vector (arXiv:2506.00799)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, PositiveInt

from pennyweight.budget.layout import Layout, WeightMatrix
from pennyweight.budget.methods.dial import Dial, refuse_high_rank
from pennyweight.budget.methods.method import Choice, Method, Support, Tensors, peft_options
from pennyweight.budget.methods.sections import DropoutSection, Size
from pennyweight.errors import RecipeError

if TYPE_CHECKING:
    from peft import UniLoraConfig

__all__ = ["METHODS", "UniLoraAdapter"]


class UniLoraAdapter(DropoutSection):
    """`[adapter]`: W + B A, whose entries are entries of one trained vector, scaled."""

    method: Literal["unilora"] = "unilora"
    vector_length: Size = Field(
        256, description="the number of entries of the vector that all targets share"
    )
    inner_rank: PositiveInt = Field(4, description="the rank of B A")


def _up_to_entries(matrices: Sequence[WeightMatrix], options: Mapping[str, Any]) -> Sequence[int]:
    return range(1, sum(m.low_rank_parameters(options["inner_rank"]) for m in matrices) + 1)


def _shared(choice: Choice) -> int:
    return choice.adapted[0].rank


def _config(layout: Layout, choice: Choice) -> UniLoraConfig:
    from peft import UniLoraConfig

    matrices = [adapted.matrix for adapted in choice.adapted]
    refuse_high_rank(choice.options["inner_rank"], matrices)
    length = choice.adapted[0].rank
    entries = _up_to_entries(matrices, choice.options)
    if length not in entries:
        raise RecipeError(
            f"adapter.vector_length: given {length}; allowed: up to {len(entries)}, the number of "
            "entries of all B and A"
        )
    return UniLoraConfig(
        **peft_options(layout, choice),
        r=choice.options["inner_rank"],
        theta_d_length=length,
        unilora_dropout=choice.dropout,
    )


METHODS: tuple[Method, ...] = (
    Method(
        name="unilora",
        summary="W + B A, with all entries taken from one trained vector",
        formula="0, and vector_length for all together",
        paper="Li et al. 2025, Uni-LoRA, arXiv:2506.00799",
        section=UniLoraAdapter,
        parameters=lambda matrix, vector_length, options: 0,
        config=_config,
        tensors=Tensors(peft_type="UNILORA", prefix="unilora_", shared=".unilora_theta_d"),
        dial=Dial(key="vector_length", values=_up_to_entries, is_limit=False),
        support=Support(rank_per_matrix=False, low_rank_head=False, quantizations=("none",)),
        shared=_shared,
    ),
)
