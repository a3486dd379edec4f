"""`[optimizer]`: what each optimizer and each schedule may be told."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import (
    BeforeValidator,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    model_validator,
)

from pennyweight.recipe.section import Fraction, Section

__all__ = [
    "SGD",
    "Adafactor",
    "Adam",
    "AdamW",
    "ConstantSchedule",
    "CosineSchedule",
    "LinearSchedule",
    "Lion",
    "Muon",
    "Optimizer",
    "RMSProp",
    "Schedule",
]


class _Warmup(Section):
    warmup_steps: NonNegativeInt = Field(0, description="optimizer steps of linear warm-up")
    warmup_ratio: Fraction = Field(0.0, description="the same, as a share of all steps")

    @model_validator(mode="after")
    def _one_warmup(self) -> _Warmup:
        if self.warmup_steps and self.warmup_ratio:
            raise ValueError("give warmup_steps or warmup_ratio, not both")
        return self


class LinearSchedule(_Warmup):
    """Linear decay to zero."""

    method: Literal["linear"] = "linear"


class CosineSchedule(_Warmup):
    """Cosine decay to zero."""

    method: Literal["cosine"] = "cosine"


class ConstantSchedule(_Warmup):
    """No decay."""

    method: Literal["constant"] = "constant"


Schedule = Annotated[
    LinearSchedule | CosineSchedule | ConstantSchedule, Field(discriminator="method")
]


def _adamw_unless_named(value: object) -> object:
    return {"method": "adamw", **value} if isinstance(value, dict) else value


class _Optimizer(Section):
    learning_rate: PositiveFloat = Field(2e-4, description="at the schedule's peak")
    weight_decay: NonNegativeFloat = Field(0.01, description="on matrices; biases are spared")
    b_ratio: PositiveFloat = Field(
        1.0, description="learning rate of B over that of A; 16 is LoRA+ (arXiv:2402.12354)"
    )
    layer_decay: Annotated[float, Field(gt=0.0, le=1.0)] = Field(
        1.0, description="learning rate of a layer over that of the layer above it"
    )
    schedule: Schedule = Field(
        default_factory=LinearSchedule, description="learning rate over the optimizer steps"
    )


class AdamW(_Optimizer):
    """`[optimizer]` with decoupled weight decay (Loshchilov & Hutter 2019, arXiv:1711.05101)."""

    method: Literal["adamw"] = "adamw"
    betas: tuple[Fraction, Fraction] = Field((0.9, 0.999), strict=False, description="decay rates")
    epsilon: PositiveFloat = Field(1e-8, description="added to the denominator")


class Adam(_Optimizer):
    """`[optimizer]`: Kingma & Ba 2015, arXiv:1412.6980; weight decay is part of the gradient."""

    method: Literal["adam"] = "adam"
    betas: tuple[Fraction, Fraction] = Field((0.9, 0.999), strict=False, description="decay rates")
    epsilon: PositiveFloat = Field(1e-8, description="added to the denominator")


class RMSProp(_Optimizer):
    """`[optimizer]`: Tieleman & Hinton 2012, lecture 6.5."""

    method: Literal["rmsprop"] = "rmsprop"
    smoothing: Fraction = Field(0.99, description="of the squared gradients")
    momentum: Fraction = Field(0.0, description="of the steps")
    epsilon: PositiveFloat = Field(1e-8, description="added to the denominator")


class SGD(_Optimizer):
    """`[optimizer]`: stochastic gradient descent."""

    method: Literal["sgd"] = "sgd"
    momentum: Fraction = Field(0.9, description="of the steps")
    nesterov: bool = Field(False, description="look ahead (needs momentum)")

    @model_validator(mode="after")
    def _nesterov_has_momentum(self) -> SGD:
        if self.nesterov and self.momentum == 0.0:
            raise ValueError("optimizer.nesterov: needs optimizer.momentum above 0")
        return self


class Adafactor(_Optimizer):
    """`[optimizer]`: Shazeer & Stern 2018, arXiv:1804.04235, with the recipe's learning rate."""

    method: Literal["adafactor"] = "adafactor"
    decay_exponent: Annotated[float, Field(lt=0.0)] = Field(
        -0.8, description="how the smoothing of squared gradients grows with the steps"
    )
    clip: Annotated[float, Field(ge=1.0)] = Field(
        1.0, description="largest root mean square of an update"
    )


class Lion(_Optimizer):
    """`[optimizer]`: Chen et al. 2023, arXiv:2302.06675; steps of one size, by sign.

    Its learning rate is three to ten times smaller than AdamW's, its weight decay as much larger.
    """

    method: Literal["lion"] = "lion"
    betas: tuple[Fraction, Fraction] = Field((0.9, 0.99), strict=False, description="decay rates")


class Muon(_Optimizer):
    """`[optimizer]`: orthogonalized momentum on low-rank matrices, AdamW on all else.

    Jordan et al. 2024, Muon: an optimizer for hidden layers; its learning rate is ten to a hundred
    times AdamW's.
    """

    method: Literal["muon"] = "muon"
    momentum: Fraction = Field(0.95, description="of the matrices' gradients")
    rest_learning_rate: PositiveFloat = Field(
        2e-4, description="AdamW's, for the head, biases and vectors"
    )


Optimizer = Annotated[
    AdamW | Adam | RMSProp | SGD | Adafactor | Lion | Muon,
    Field(discriminator="method"),
    BeforeValidator(_adamw_unless_named),
]
