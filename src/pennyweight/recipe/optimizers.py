"""The `[optimizer]` section: one model for each optimizer and each schedule."""

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

from pennyweight.section import Fraction, Section

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
    warmup_steps: NonNegativeInt = Field(0, description="the number of linear warm-up steps")
    warmup_ratio: Fraction = Field(0.0, description="the warm-up as a fraction of all steps")

    @model_validator(mode="after")
    def _one_warmup(self) -> _Warmup:
        if self.warmup_steps and self.warmup_ratio:
            raise ValueError("give either warmup_steps or warmup_ratio, not both")
        return self


class LinearSchedule(_Warmup):
    """Linear decay to zero after the warm-up."""

    method: Literal["linear"] = "linear"


class CosineSchedule(_Warmup):
    """Cosine decay to zero after the warm-up."""

    method: Literal["cosine"] = "cosine"


class ConstantSchedule(_Warmup):
    """A constant learning rate after the warm-up."""

    method: Literal["constant"] = "constant"


Schedule = Annotated[
    LinearSchedule | CosineSchedule | ConstantSchedule, Field(discriminator="method")
]


def _default_to_adamw(value: object) -> object:
    return {"method": "adamw", **value} if isinstance(value, dict) else value


class _Optimizer(Section):
    learning_rate: PositiveFloat | Literal["auto"] = Field(
        2e-4,
        description="the peak learning rate",
        json_schema_extra={"allowed": 'a number above 0, or "auto"'},
    )
    weight_decay: NonNegativeFloat = Field(
        0.01, description="the weight decay of matrices; biases and other vectors have none"
    )
    b_ratio: PositiveFloat = Field(
        1.0,
        description="the learning rate of the LoRA matrices B as a multiple of that of A; 16 gives "
        "LoRA+ (arXiv:2402.12354)",
    )
    layer_decay: Annotated[float, Field(gt=0.0, le=1.0)] = Field(
        1.0,
        description="the learning rate of a layer as a multiple of that of the layer above it",
    )
    schedule: Schedule = Field(
        default_factory=LinearSchedule, description="the learning-rate schedule"
    )


class AdamW(_Optimizer):
    """AdamW: Adam with decoupled weight decay (Loshchilov & Hutter 2019, arXiv:1711.05101)."""

    method: Literal["adamw"] = "adamw"
    betas: tuple[Fraction, Fraction] = Field(
        (0.9, 0.999), strict=False, description="the decay rates of the two moments"
    )
    epsilon: PositiveFloat = Field(1e-8, description="the term added to the denominator")


class Adam(_Optimizer):
    """Adam, with weight decay as part of the gradient (Kingma & Ba 2015, arXiv:1412.6980)."""

    method: Literal["adam"] = "adam"
    betas: tuple[Fraction, Fraction] = Field(
        (0.9, 0.999), strict=False, description="the decay rates of the two moments"
    )
    epsilon: PositiveFloat = Field(1e-8, description="the term added to the denominator")


class RMSProp(_Optimizer):
    """RMSProp (Tieleman & Hinton 2012, lecture 6.5)."""

    method: Literal["rmsprop"] = "rmsprop"
    smoothing: Fraction = Field(0.99, description="the decay rate of the squared gradients")
    momentum: Fraction = Field(0.0, description="the momentum")
    epsilon: PositiveFloat = Field(1e-8, description="the term added to the denominator")


class SGD(_Optimizer):
    """Stochastic gradient descent with momentum."""

    method: Literal["sgd"] = "sgd"
    momentum: Fraction = Field(0.9, description="the momentum")
    nesterov: bool = Field(False, description="use Nesterov momentum; needs momentum above 0")

    @model_validator(mode="after")
    def _nesterov_has_momentum(self) -> SGD:
        if self.nesterov and self.momentum == 0.0:
            raise ValueError(
                "optimizer.nesterov: given true; allowed only with optimizer.momentum above 0"
            )
        return self


class Adafactor(_Optimizer):
    """Adafactor with a given learning rate (Shazeer & Stern 2018, arXiv:1804.04235)."""

    method: Literal["adafactor"] = "adafactor"
    decay_exponent: Annotated[float, Field(lt=0.0)] = Field(
        -0.8,
        description="the exponent of the decay rate of the squared gradients, which grows with "
        "the number of steps",
    )
    clip: Annotated[float, Field(ge=1.0)] = Field(
        1.0, description="the maximum root mean square of an update"
    )


class Lion(_Optimizer):
    """Lion: updates by the sign of the momentum (Chen et al. 2023, arXiv:2302.06675).

    Use a learning rate three to ten times smaller than for AdamW, and a weight decay larger by the
    same factor.
    """

    method: Literal["lion"] = "lion"
    betas: tuple[Fraction, Fraction] = Field(
        (0.9, 0.99), strict=False, description="the decay rates of the update and of the momentum"
    )


class Muon(_Optimizer):
    """Muon on the low-rank matrices, AdamW on everything else (Jordan et al. 2024).

    Muon orthogonalizes the momentum. Its learning rate is ten to a hundred times that of AdamW.
    """

    method: Literal["muon"] = "muon"
    momentum: Fraction = Field(0.95, description="the momentum of the matrices")
    rest_learning_rate: PositiveFloat = Field(
        2e-4, description="the learning rate of AdamW, for the head, biases and other vectors"
    )


Optimizer = Annotated[
    AdamW | Adam | RMSProp | SGD | Adafactor | Lion | Muon,
    Field(discriminator="method"),
    BeforeValidator(_default_to_adamw),
]
