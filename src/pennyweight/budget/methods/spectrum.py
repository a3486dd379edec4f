"""Updates with few trained coefficients of a transform: FourierFT and WaveFT."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, PositiveFloat

from pennyweight.budget.layout import Layout, WeightMatrix
from pennyweight.budget.methods.dial import Dial
from pennyweight.budget.methods.method import Choice, Method, Support, Tensors, peft_options
from pennyweight.budget.methods.sections import Size, TargetedSection

if TYPE_CHECKING:
    from peft import FourierFTConfig, WaveFTConfig

__all__ = ["METHODS", "FourierAdapter", "WaveletAdapter"]


class FourierAdapter(TargetedSection):
    """`[adapter]`: W + scaling * the inverse Fourier transform of a sparse matrix."""

    method: Literal["fourierft"] = "fourierft"
    frequencies: Size = Field(
        1000, description="the number of trained coefficients of each target, at random places"
    )
    scaling: PositiveFloat = Field(150.0, description="the factor of the update")


class WaveletAdapter(TargetedSection):
    """`[adapter]`: W + scaling * the inverse wavelet transform of a sparse matrix."""

    method: Literal["waveft"] = "waveft"
    frequencies: Size = Field(
        2592, description="the number of trained coefficients of each target, at random places"
    )
    scaling: PositiveFloat = Field(25.0, description="the factor of the update")


def _up_to_size(matrices: Sequence[WeightMatrix], options: Mapping[str, Any]) -> Sequence[int]:
    del options
    return range(1, min(matrix.rows * matrix.columns for matrix in matrices) + 1)


def _coefficients(matrix: WeightMatrix, frequencies: int, options: Mapping[str, Any]) -> int:
    del matrix, options
    return frequencies


def _fourier_config(layout: Layout, choice: Choice) -> FourierFTConfig:
    from peft import FourierFTConfig

    return FourierFTConfig(
        **peft_options(layout, choice),
        n_frequency=choice.adapted[0].rank,
        scaling=choice.options["scaling"],
    )


def _wavelet_config(layout: Layout, choice: Choice) -> WaveFTConfig:
    from peft import WaveFTConfig

    return WaveFTConfig(
        **peft_options(layout, choice),
        n_frequency=choice.adapted[0].rank,
        scaling=choice.options["scaling"],
    )


_DIAL = Dial(key="frequencies", values=_up_to_size, allowed="the size of the matrix")
_SUPPORT = Support(rank_per_matrix=False, low_rank_head=False)

METHODS: tuple[Method, ...] = (
    Method(
        name="fourierft",
        summary="W + the inverse Fourier transform of few trained coefficients",
        formula="frequencies",
        paper="Gao et al. 2024, FourierFT, arXiv:2405.03003",
        section=FourierAdapter,
        parameters=_coefficients,
        config=_fourier_config,
        tensors=Tensors(peft_type="FOURIERFT", prefix="fourierft_"),
        dial=_DIAL,
        support=_SUPPORT,
    ),
    Method(
        name="waveft",
        summary="W + the inverse wavelet transform of few trained coefficients",
        formula="frequencies",
        paper="Bilican et al. 2025, WaveFT, arXiv:2505.12532",
        section=WaveletAdapter,
        parameters=_coefficients,
        config=_wavelet_config,
        tensors=Tensors(peft_type="WAVEFT", prefix="waveft_"),
        dial=_DIAL,
        support=_SUPPORT,
    ),
)
