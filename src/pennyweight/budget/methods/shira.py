"""SHiRA: few entries of W, at random places, are trained (arXiv:2406.13175)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from pennyweight.budget.layout import Layout, WeightMatrix
from pennyweight.budget.methods.dial import Dial
from pennyweight.budget.methods.method import (
    Choice,
    Method,
    Support,
    Tensors,
    low_rank_parameters,
    peft_options,
)
from pennyweight.budget.methods.sections import Size, TargetedSection

if TYPE_CHECKING:
    import torch
    from peft import PeftConfig, ShiraConfig

__all__ = ["METHODS", "ShiraAdapter"]


class ShiraAdapter(TargetedSection):
    """`[adapter]`: W + a sparse matrix, as large as LoRA's matrices of rank r and of high rank."""

    method: Literal["shira"] = "shira"
    rank: Size = Field(
        32, description="the rank of the LoRA adapter with as many trained parameters"
    )


def _up_to_size(matrices: Sequence[WeightMatrix], options: Mapping[str, Any]) -> Sequence[int]:
    del options
    return range(1, min(m.rows * m.columns // (m.rows + m.columns) for m in matrices) + 1)


def _config(layout: Layout, choice: Choice) -> ShiraConfig:
    from peft import ShiraConfig

    return ShiraConfig(**peft_options(layout, choice), r=choice.adapted[0].rank, random_seed=0)


def _shapes_only(config: PeftConfig) -> PeftConfig:
    shapes = copy.copy(config)
    # The places cannot be drawn on the meta device.
    shapes.mask_fn = None
    return shapes


def _begin_training(
    model: Any, optimizer: torch.optim.Optimizer, total_steps: int
) -> tuple[Callable[[], torch.Tensor], ...]:
    """Leave out torch's checks of sparse tensors explicitly, as torch asks for in a warning."""
    import torch

    del model, optimizer, total_steps
    checks: Any = torch.sparse.check_sparse_tensor_invariants
    if not checks.is_enabled():
        checks.disable()
    return ()


METHODS: tuple[Method, ...] = (
    Method(
        name="shira",
        summary="W + a sparse matrix with trained entries at random places",
        formula="r (rows + columns)",
        paper="Bhardwaj et al. 2024, SHiRA, arXiv:2406.13175",
        section=ShiraAdapter,
        parameters=low_rank_parameters,
        config=_config,
        tensors=Tensors(peft_type="SHIRA", prefix="shira_", frozen=(".shira_indices",)),
        dial=Dial(values=_up_to_size, allowed="which train every entry of the matrix"),
        support=Support(rank_per_matrix=False, low_rank_head=False, quantizations=("none",)),
        shapes_only=_shapes_only,
        begin_training=_begin_training,
    ),
)
