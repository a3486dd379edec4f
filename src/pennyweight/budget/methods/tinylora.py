"""TinyLoRA: few trained numbers move W inside its first singular directions (arXiv:2602.04118)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, PositiveInt

from pennyweight.budget.layout import Layout, WeightMatrix
from pennyweight.budget.methods.dial import Dial, refuse_high_rank
from pennyweight.budget.methods.method import Choice, Method, Support, Tensors, peft_options
from pennyweight.budget.methods.sections import DropoutSection, Size

if TYPE_CHECKING:
    from peft import TinyLoraConfig

__all__ = ["METHODS", "TinyLoraAdapter"]


class TinyLoraAdapter(DropoutSection):
    """`[adapter]`: W + U S (v1 P1 + ... + vu Pu) V', with random P and trained v.

    U S V' are the first singular directions of W.
    """

    method: Literal["tinylora"] = "tinylora"
    vector_length: Size = Field(64, description="the number of entries of v")
    inner_rank: PositiveInt = Field(
        2,
        description="the number of singular directions; more entries of v than its square add "
        "nothing",
    )
    weight_tying: Annotated[float, Field(ge=0.0, le=1.0)] = Field(
        0.0, description="the degree to which targets share their v, from none (0) to all (1)"
    )


def _up_to_free(matrices: Sequence[WeightMatrix], options: Mapping[str, Any]) -> Sequence[int]:
    del matrices
    return range(1, options["inner_rank"] ** 2 + 1)


def _vectors(choice: Choice) -> int:
    # PEFT's own rule for the number of vectors.
    groups = max(1, round(len(choice.adapted) * (1.0 - choice.options["weight_tying"])))
    return groups * choice.adapted[0].rank


def _config(layout: Layout, choice: Choice) -> TinyLoraConfig:
    from peft import TinyLoraConfig

    refuse_high_rank(choice.options["inner_rank"], [adapted.matrix for adapted in choice.adapted])
    return TinyLoraConfig(
        **peft_options(layout, choice),
        r=choice.options["inner_rank"],
        u=choice.adapted[0].rank,
        weight_tying=choice.options["weight_tying"],
        tinylora_dropout=choice.dropout,
    )


METHODS: tuple[Method, ...] = (
    Method(
        name="tinylora",
        summary="few trained numbers move W inside its first singular directions",
        formula="vector_length, or less if targets share it",
        paper="Morris et al. 2026, TinyLoRA, arXiv:2602.04118",
        section=TinyLoraAdapter,
        parameters=lambda matrix, vector_length, options: 0,
        config=_config,
        tensors=Tensors(
            peft_type="TINYLORA",
            prefix="tinylora_",
            frozen=(".tinylora_A", ".tinylora_B", ".tinylora_P"),
            shared=".tinylora_v.",
        ),
        dial=Dial(key="vector_length", values=_up_to_free, is_limit=False),
        support=Support(rank_per_matrix=False, low_rank_head=False, quantizations=("none",)),
        shared=_vectors,
    ),
)
