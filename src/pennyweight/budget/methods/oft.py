"""Orthogonal fine-tuning: OFT (arXiv:2306.07280), BOFT (arXiv:2311.06243), and PSOFT."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from pennyweight.budget.layout import Layout, WeightMatrix
from pennyweight.budget.methods.dial import Dial, common_divisors
from pennyweight.budget.methods.method import Choice, Method, Support, Tensors, peft_options
from pennyweight.budget.methods.sections import Alpha, DropoutSection, Size

if TYPE_CHECKING:
    from peft import BOFTConfig, OFTConfig, PsoftConfig

__all__ = ["METHODS", "BoftAdapter", "OftAdapter", "PsoftAdapter"]


class OftAdapter(DropoutSection):
    """`[adapter]`: W R, where R consists of orthogonal blocks on its diagonal.

    `dropout` replaces whole blocks by the identity.
    """

    method: Literal["oft"] = "oft"
    block_size: Size = Field(
        32, description="rows of a block, a divisor of all columns; larger blocks cost more"
    )


class BoftAdapter(DropoutSection):
    """`[adapter]`: diag(s) W R, where R consists of orthogonal blocks on its diagonal.

    PEFT uses one butterfly factor wherever its CUDA extension cannot be compiled, so there is one
    here. `dropout` replaces whole blocks by the identity.
    """

    method: Literal["boft"] = "boft"
    block_size: Size = Field(
        4, description="rows of a block, an even divisor of all columns; larger blocks cost more"
    )


class PsoftAdapter(DropoutSection):
    """`[adapter]`: W is rotated and scaled inside its first r singular directions."""

    method: Literal["psoft"] = "psoft"
    rank: Size = Field(32, description="the number of singular directions")
    alpha: Alpha = Field(32.0, description='the alpha of every target; "auto" is twice the rank')


def _blocks(matrices: Sequence[WeightMatrix], options: Mapping[str, Any]) -> Sequence[int]:
    del options
    # An orthogonal block of one row is 1 or -1, which leaves nothing to train.
    return common_divisors(*(matrix.columns for matrix in matrices))[1:]


def _even_blocks(matrices: Sequence[WeightMatrix], options: Mapping[str, Any]) -> Sequence[int]:
    return [size for size in _blocks(matrices, options) if size % 2 == 0]


def _oft_config(layout: Layout, choice: Choice) -> OFTConfig:
    from peft import OFTConfig

    return OFTConfig(
        **peft_options(layout, choice),
        oft_block_size=choice.adapted[0].rank,
        module_dropout=choice.dropout,
    )


def _boft_config(layout: Layout, choice: Choice) -> BOFTConfig:
    from peft import BOFTConfig

    return BOFTConfig(
        **peft_options(layout, choice),
        boft_block_size=choice.adapted[0].rank,
        boft_dropout=choice.dropout,
    )


def _psoft_config(layout: Layout, choice: Choice) -> PsoftConfig:
    from peft import PsoftConfig

    return PsoftConfig(
        **peft_options(layout, choice),
        r=choice.adapted[0].rank,
        psoft_alpha=choice.adapted[0].alpha,
        psoft_dropout=choice.dropout,
    )


_SUPPORT = Support(rank_per_matrix=False, low_rank_head=False)

METHODS: tuple[Method, ...] = (
    Method(
        name="oft",
        summary="W R with trained orthogonal blocks on the diagonal of R",
        formula="columns (block_size - 1) / 2",
        paper="Qiu et al. 2023, OFT, arXiv:2306.07280",
        section=OftAdapter,
        parameters=lambda matrix, size, options: matrix.columns * (size - 1) // 2,
        config=_oft_config,
        tensors=Tensors(peft_type="OFT", prefix="oft_"),
        dial=Dial(key="block_size", values=_blocks, allowed="the divisors of all columns, from 2"),
        support=_SUPPORT,
    ),
    Method(
        name="boft",
        summary="W R with trained row scales and orthogonal blocks on the diagonal of R",
        formula="columns * block_size + rows",
        paper="Liu et al. 2023, BOFT, arXiv:2311.06243",
        section=BoftAdapter,
        parameters=lambda matrix, size, options: matrix.columns * size + matrix.rows,
        config=_boft_config,
        tensors=Tensors(peft_type="BOFT", prefix="boft_"),
        dial=Dial(
            key="block_size", values=_even_blocks, allowed="the even divisors of all columns"
        ),
        support=_SUPPORT,
    ),
    Method(
        name="psoft",
        summary="W rotated and scaled inside its first r singular directions",
        formula="r (r - 1) / 2 + 2 r",
        paper="Wu et al. 2025, PSOFT, arXiv:2505.11235",
        section=PsoftAdapter,
        parameters=lambda matrix, rank, options: rank * (rank - 1) // 2 + 2 * rank,
        config=_psoft_config,
        tensors=Tensors(peft_type="PSOFT", prefix="psoft_"),
        support=Support(rank_per_matrix=False, low_rank_head=False, quantizations=("none",)),
    ),
)
