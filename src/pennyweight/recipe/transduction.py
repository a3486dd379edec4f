"""`[transduction]`: what is done with the unlabelled target text itself."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from pennyweight.recipe.section import Fraction, Section

__all__ = ["DensityRatio", "Prior", "SelfTraining", "Transduction"]


class Prior(Section):
    """Correct probabilities for the target's class shares, which no label tells."""

    method: Literal["em", "confusion", "stated"] = Field(
        "em",
        description="maximum likelihood (Saerens et al. 2002), the validation's confusion matrix "
        "(arXiv:1802.03916), or mean probabilities brought to the shares in `stated`",
    )
    stated: dict[str, Fraction] = Field(
        default_factory=dict, description='share of each class, method = "stated"'
    )
    groups: Literal["one", "discriminated"] = Field(
        "discriminated",
        description="one prior for the whole target, or one for what looks like training text "
        "and one for what does not",
    )


class SelfTraining(Section):
    """Train on what a finished run is sure of in the target (Lee 2013, pseudo-labels)."""

    teacher: str = Field(min_length=1, description="a finished run")
    confidence: Annotated[float, Field(gt=0.0, lt=1.0)] = Field(
        0.95, description="probability from which a label is taken over"
    )
    by_class: dict[str, Fraction] = Field(
        default_factory=dict, description="other confidences for single classes"
    )
    most_per_class: PositiveInt | None = Field(
        None, description="the surest rows of a class that are taken; left out, all"
    )
    label_smoothing: Fraction = Field(0.1, description="of the labels taken over")


class DensityRatio(Section):
    """Weigh training rows by how much they look like the target (Bickel et al. 2009)."""

    largest: PositiveFloat = Field(5.0, description="weights are clipped to it")
    power: Annotated[float, Field(gt=0.0, le=1.0)] = Field(
        0.5, description="flattens the ratios: 1 takes them as they are"
    )


class Transduction(Section):
    """`[transduction]`: uses of `data.target`; every output then says *transductive*."""

    prior: Prior | None = None
    self_training: SelfTraining | None = None
    consistency: NonNegativeFloat = Field(
        0.0,
        description="weight of the divergence of two passes over target rows under dropout",
    )
    consistency_rows: PositiveInt | None = Field(
        None, description="target rows drawn for it; left out, all"
    )
    density_ratio: DensityRatio | None = None
