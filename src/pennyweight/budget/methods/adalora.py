"""AdaLoRA: low-rank updates whose ranks are reallocated during training (arXiv:2303.10512)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveInt,
    model_validator,
)

from pennyweight.budget.layout import Layout
from pennyweight.budget.methods.method import Choice, Method, Support, Tensors, peft_options
from pennyweight.budget.methods.sections import Alpha, LowRankSection, Size
from pennyweight.budget.summary import Matrix
from pennyweight.errors import RecipeError
from pennyweight.section import Fraction

if TYPE_CHECKING:
    import torch
    from peft import AdaLoraConfig

__all__ = ["METHODS", "AdaLoraAdapter"]


class AdaLoraAdapter(LowRankSection):
    """`[adapter]`: W + P diag(e) Q with ranks reduced during training (arXiv:2303.10512)."""

    method: Literal["adalora"] = "adalora"
    rank: Size = Field(12, description="the rank of every target at the start of training")
    target_rank: PositiveInt = Field(8, description="the mean rank at the end of training")
    alpha: Alpha = Field(16.0, description='the alpha of every target; "auto" is twice the rank')
    start_steps: NonNegativeInt = Field(
        200, description="the number of steps before ranks are reduced"
    )
    final_steps: NonNegativeInt = Field(
        200, description="the number of steps at the end with fixed ranks"
    )
    every: PositiveInt = Field(10, description="the number of steps between two rank reallocations")
    betas: tuple[Fraction, Fraction] = Field(
        (0.85, 0.85),
        strict=False,
        description="the smoothing factors of the importance scores and of their uncertainty",
    )
    orthogonality: NonNegativeFloat = Field(
        0.5, description="the weight of the penalty that keeps P and Q orthogonal"
    )

    @model_validator(mode="after")
    def _rank_falls(self) -> AdaLoraAdapter:
        if self.rank != "fill" and self.target_rank > self.rank:
            raise ValueError(
                f"adapter.target_rank: given {self.target_rank}; allowed: up to adapter.rank, "
                f"{self.rank}"
            )
        return self


def _config(layout: Layout, choice: Choice) -> AdaLoraConfig:
    from peft import AdaLoraConfig

    options = choice.options
    start, final = options["start_steps"], options["final_steps"]
    if options["target_rank"] > choice.adapted[0].rank:
        raise RecipeError(
            f'adapter.rank: "fill" gives {choice.adapted[0].rank}, less than adapter.target_rank, '
            f"{options['target_rank']}; lower the latter"
        )
    return AdaLoraConfig(
        **peft_options(layout, choice),
        init_r=choice.adapted[0].rank,
        target_r=options["target_rank"],
        lora_alpha=choice.adapted[0].alpha,
        lora_dropout=choice.dropout,
        bias=choice.bias,
        tinit=start,
        tfinal=final,
        deltaT=options["every"],
        beta1=options["betas"][0],
        beta2=options["betas"][1],
        orth_reg_weight=options["orthogonality"],
        # A valid placeholder: the number of steps is known only when training begins.
        total_step=start + final + 1,
    )


def _dropped(adapter_config: Mapping[str, Any], matrices: Sequence[Matrix]) -> int:
    """Return the number of parameters of the ranks that were dropped before saving."""
    rank_pattern: Mapping[str, list[bool]] = adapter_config.get("rank_pattern") or {}
    return sum(
        kept.count(False) * (matrix.parameters // matrix.rank)
        for key, kept in rank_pattern.items()
        for matrix in matrices
        if matrix.rank and f"{matrix.name}.lora_E" in key
    )


def _begin_training(
    model: Any, optimizer: torch.optim.Optimizer, total_steps: int
) -> tuple[Callable[[], torch.Tensor], ...]:
    """Reallocate ranks after every optimizer step, and return the orthogonality penalty.

    Raises:
        RecipeError: the run is too short for the phases with fixed ranks.
    """
    config = model.peft_config["default"]
    if config.tinit + config.tfinal >= total_steps:
        raise RecipeError(
            f"adapter.start_steps and adapter.final_steps: {config.tinit} + {config.tfinal} leave "
            f"no step to reallocate ranks in a run of {total_steps}; lower them, for example "
            f"--set adapter.start_steps={total_steps // 5} "
            f"--set adapter.final_steps={total_steps // 3}"
        )
    config.total_step = total_steps
    model.base_model.rankallocator.set_total_step(total_steps)
    step = 0

    def reallocate(*_: Any) -> None:
        nonlocal step
        step += 1
        # A step that overflows in fp16 is skipped, and must not enter the running averages.
        if not _has_finite_gradients(model):
            return
        # Needs the gradients of the step, so it must run before they are cleared.
        model.base_model.update_and_allocate(step)

    optimizer.register_step_post_hook(reallocate)
    return (_orthogonality_penalty(model),)


def _has_finite_gradients(model: Any) -> bool:
    import torch

    sums = [p.grad.sum() for p in model.parameters() if p.requires_grad and p.grad is not None]
    return bool(torch.isfinite(torch.stack(sums)).all()) if sums else True


def _orthogonality_penalty(model: Any) -> Callable[[], torch.Tensor]:
    """Return the weighted mean Frobenius norm of P'P - I and Q Q' - I (section 3.1, eq. 4)."""
    import torch

    weight = model.peft_config["default"].orth_reg_weight
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    right = [p for name, p in trained if ".lora_A." in name]
    left = [p for name, p in trained if ".lora_B." in name]

    def penalty() -> torch.Tensor:
        norms = [
            torch.linalg.matrix_norm(q @ q.t() - torch.eye(len(q), device=q.device))
            for q in [*right, *(p.t() for p in left)]
        ]
        return weight * torch.stack(norms).mean()

    return penalty


METHODS: tuple[Method, ...] = (
    Method(
        name="adalora",
        summary="W + P diag(e) Q; the least important ranks are dropped during training",
        formula="r (rows + columns + 1) at the start",
        paper="Zhang et al. 2023, AdaLoRA, arXiv:2303.10512",
        section=AdaLoraAdapter,
        parameters=lambda matrix, rank, options: matrix.low_rank_parameters(rank) + rank,
        config=_config,
        tensors=Tensors(
            peft_type="ADALORA",
            prefix="lora_",
            # A counter, which PEFT marks as trainable on the meta device.
            frozen=(".ranknum.",),
            dropped=_dropped,
        ),
        support=Support(
            rank_per_matrix=False,
            low_rank_head=False,
            resume_refusal=(
                "the run cannot be resumed, because AdaLoRA's rank importances are not part of a "
                "checkpoint; train it again into a new directory"
            ),
        ),
        begin_training=_begin_training,
    ),
)
