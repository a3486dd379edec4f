"""The `[transduction]` section: uses of the unlabelled target text itself."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from pennyweight.section import Fraction, Section

__all__ = [
    "BalancedSelfTraining",
    "ConfidentSelfTraining",
    "DensityRatio",
    "Prior",
    "SelfTraining",
    "Transduction",
]


class Prior(Section):
    """Correction of the probabilities for the class shares of the target."""

    method: Literal["em", "confusion", "stated"] = Field(
        "em",
        description="how the class shares are obtained: estimated by maximum likelihood (Saerens "
        "et al. 2002), estimated from the validation confusion matrix (arXiv:1802.03916), or "
        "known and given in `stated`",
    )
    stated: dict[str, Fraction] | Literal["uniform"] = Field(
        default_factory=dict,
        description='the share of each class, with `method = "stated"`; the shares add up to 1, or '
        'are "uniform"',
        json_schema_extra={"allowed": 'a table of classes and shares, or "uniform"'},
    )
    groups: Literal["one", "discriminated"] = Field(
        "discriminated",
        description="one set of shares for the whole target, or separate ones for the "
        "texts that look like training text and for those that do not",
    )
    discriminator: Literal["characters", "hidden-states"] = Field(
        "characters",
        description="what the two groups are told apart by: the character n-grams of the cleaned "
        "text, or the classifier's last hidden states",
    )
    entropy: NonNegativeFloat = Field(
        1.0,
        description='with `method = "stated"`: 1 gives mean probabilities equal to the shares, 0 '
        "as many predictions of each class as stated, and numbers in between something in between",
    )
    slack: NonNegativeFloat = Field(
        0.0,
        description='with `method = "stated"`: how far the shares may be missed where the '
        "probabilities contradict them; 0 for not at all",
    )

    @model_validator(mode="after")
    def _slack_needs_entropy(self) -> Prior:
        if self.slack > 0.0 and self.entropy == 0.0:
            raise ValueError(
                "transduction.prior.slack: needs an entropy above 0; set "
                "transduction.prior.entropy, such as 0.1"
            )
        return self


class _SelfTraining(Section):
    teachers: tuple[str, ...] = Field(
        min_length=1,
        strict=False,
        description="the finished runs that label the target together, such as one per seed",
        json_schema_extra={"path": "path"},
    )
    label_smoothing: Fraction = Field(0.1, description="label smoothing of the added rows")


class ConfidentSelfTraining(_SelfTraining):
    """Pseudo-labels: train on target rows that finished runs label with confidence (Lee 2013)."""

    method: Literal["confident"] = "confident"
    confidence: Annotated[float, Field(gt=0.0, lt=1.0)] = Field(
        0.95, description="the minimum probability for a row to be added with its label"
    )
    by_class: dict[str, Fraction] = Field(
        default_factory=dict,
        description="a different minimum probability for individual classes",
    )
    most_per_class: PositiveInt | None = Field(
        None,
        description="the maximum number of rows added per class, most confident first; if not "
        "set, there is no maximum",
    )


class BalancedSelfTraining(_SelfTraining):
    """Pseudo-labels for the surest target rows of each class, in proportion to the class shares.

    With a second view, a lexical classifier of the target's own texts takes part in the labelling
    (co-training, Blum & Mitchell 1998).
    """

    method: Literal["balanced"] = "balanced"
    share: Annotated[float, Field(gt=0.0, le=1.0)] = Field(
        0.5,
        description="the fraction of the target rows to add, the surest of each class; 1 adds all "
        "rows",
    )
    second_view: Literal["none", "tf-idf"] = Field(
        "tf-idf",
        description="a classifier of the target's own texts that takes part in the labelling",
    )
    rounds: PositiveInt = Field(2, description="how often the second view is fitted")
    labels: Literal["hard", "soft"] = Field(
        "hard",
        description="train on the most probable class of each added row, or on the probabilities "
        "of all classes",
    )
    weights: Literal["equal", "confidence"] = Field(
        "equal",
        description="the weight of an added row in the loss: 1, or the probability of its most "
        "probable class",
    )
    copies: PositiveInt = Field(1, description="how often each added row is seen in an epoch")


SelfTraining = Annotated[
    ConfidentSelfTraining | BalancedSelfTraining, Field(discriminator="method")
]


class DensityRatio(Section):
    """Weights of training rows by their resemblance to the target (Bickel et al. 2009)."""

    largest: PositiveFloat = Field(5.0, description="the maximum weight of a row")
    power: Annotated[float, Field(gt=0.0, le=1.0)] = Field(
        0.5, description="the exponent applied to the density ratios; 1 leaves them unchanged"
    )


class Transduction(Section):
    """Uses of the text in `data.target`. Every output of such a run is marked *transductive*."""

    prior: Prior | None = None
    self_training: SelfTraining | None = None
    consistency: NonNegativeFloat = Field(
        0.0,
        description="the weight of a loss that makes two passes over target rows agree under "
        "different dropout",
    )
    consistency_rows: PositiveInt | None = Field(
        None,
        description="use a random sample of this many target rows for the consistency loss; if not "
        "set, use all of them",
    )
    density_ratio: DensityRatio | None = None
