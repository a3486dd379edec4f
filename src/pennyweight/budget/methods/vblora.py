"""VB-LoRA: LoRA's matrices are mixtures of the vectors of one trained bank (arXiv:2405.15179)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, PositiveInt

from pennyweight.budget.layout import Layout, WeightMatrix
from pennyweight.budget.methods.dial import Dial, common_divisors, refuse_high_rank
from pennyweight.budget.methods.method import Choice, Method, Support, Tensors, peft_options
from pennyweight.budget.methods.sections import DropoutSection, Size
from pennyweight.errors import RecipeError

if TYPE_CHECKING:
    from peft import VBLoRAConfig

__all__ = ["METHODS", "VbLoraAdapter"]

# More vectors than any published bank, so that "fill" ends.
_MOST_VECTORS = 65_536


class VbLoraAdapter(DropoutSection):
    """`[adapter]`: W + B A, composed of parts that are mixtures of vectors of a shared bank.

    All trained parameters count: the bank, and the logits by which each part chooses its vectors.
    """

    method: Literal["vblora"] = "vblora"
    vectors: Size = Field(90, description="the number of vectors in the bank")
    vector_length: PositiveInt = Field(
        128, description="the length of the vectors, which must divide all rows and columns"
    )
    top_k: PositiveInt = Field(2, description="the number of vectors in a mixture")
    inner_rank: PositiveInt = Field(4, description="the rank of B A")


def _logits(matrix: WeightMatrix, vectors: int, options: Mapping[str, Any]) -> int:
    parts = (matrix.rows + matrix.columns) // options["vector_length"]
    return options["inner_rank"] * parts * vectors


def _bank(choice: Choice) -> int:
    return choice.adapted[0].rank * choice.options["vector_length"]


def _at_least_top_k(matrices: Sequence[WeightMatrix], options: Mapping[str, Any]) -> Sequence[int]:
    del matrices
    return range(options["top_k"], _MOST_VECTORS + 1)


def _config(layout: Layout, choice: Choice) -> VBLoRAConfig:
    from peft import VBLoRAConfig

    options = choice.options
    matrices = [adapted.matrix for adapted in choice.adapted]
    refuse_high_rank(options["inner_rank"], matrices)
    divisors = common_divisors(*(size for m in matrices for size in (m.rows, m.columns)))
    if options["vector_length"] not in divisors:
        raise RecipeError(
            f"adapter.vector_length: given {options['vector_length']}; allowed: a divisor of the "
            f"rows and columns of all targets: {', '.join(map(str, divisors))}"
        )
    return VBLoRAConfig(
        **peft_options(layout, choice),
        r=options["inner_rank"],
        num_vectors=choice.adapted[0].rank,
        vector_length=options["vector_length"],
        topk=options["top_k"],
        vblora_dropout=choice.dropout,
    )


METHODS: tuple[Method, ...] = (
    Method(
        name="vblora",
        summary="W + B A, composed of mixtures of the vectors of one trained bank",
        formula="inner_rank * vectors (rows + columns) / vector_length, and "
        "vectors * vector_length for all together",
        paper="Li et al. 2024, VB-LoRA, arXiv:2405.15179",
        section=VbLoraAdapter,
        parameters=_logits,
        config=_config,
        tensors=Tensors(peft_type="VBLORA", prefix="vblora_", shared=".vblora_vector_bank"),
        dial=Dial(key="vectors", values=_at_least_top_k, allowed="and at least adapter.top_k"),
        support=Support(rank_per_matrix=False, low_rank_head=False),
        shared=_bank,
    ),
)
