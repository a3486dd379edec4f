"""LN tuning: only the normalization layers are trained (arXiv:2312.11420)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from pennyweight.budget.layout import Layout
from pennyweight.budget.methods.method import Choice, Method, Support, Tensors, peft_options
from pennyweight.budget.methods.sections import FixedSizeSection

if TYPE_CHECKING:
    from peft import LNTuningConfig

__all__ = ["METHODS", "LnTuningAdapter"]


class LnTuningAdapter(FixedSizeSection):
    """`[adapter]`: the weights and biases of the encoder's normalization layers are trained."""

    method: Literal["ln-tuning"] = "ln-tuning"
    targets: tuple[str, ...] = Field(
        ("*",),
        min_length=1,
        strict=False,
        description="name patterns of the normalization layers that are trained",
    )


def _config(layout: Layout, choice: Choice) -> LNTuningConfig:
    from peft import LNTuningConfig

    return LNTuningConfig(**peft_options(layout, choice))


METHODS: tuple[Method, ...] = (
    Method(
        name="ln-tuning",
        summary="only the encoder's normalization layers are trained",
        formula="the layer's weights and biases",
        paper="Zhao et al. 2023, LN tuning, arXiv:2312.11420",
        section=LnTuningAdapter,
        parameters=lambda norm, rank, options: norm.rows * norm.columns,
        config=_config,
        tensors=Tensors(peft_type="LN_TUNING", prefix="ln_tuning_layers"),
        dial=None,
        support=Support(rank_per_matrix=False, low_rank_head=False),
        targets=lambda layout: layout.norms,
    ),
)
