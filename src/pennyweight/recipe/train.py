"""The `[train]` section: the training loop, its loss, and how its checkpoints are chosen."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from pennyweight.recipe.losses import CrossEntropy, Loss
from pennyweight.section import Fraction, Section

__all__ = ["Auto", "EarlyStopping", "Train"]


class EarlyStopping(Section):
    """Stop once the metric in `train.keep_best` no longer improves."""

    patience: PositiveInt = Field(
        2, description="stop after this many evaluations without improvement"
    )
    threshold: NonNegativeFloat = Field(
        0.0, description="the minimum change that counts as an improvement"
    )


# Derived from the base, the rows and the budget before anything else happens; see
# `pennyweight.defaults`.
Auto = Literal["auto"]
_WHOLE_OR_AUTO = 'a whole number from 1, or "auto"'
Metric = Literal[
    "auto",
    "accuracy",
    "macro_f1",
    "micro_f1",
    "mean_average_precision",
    "nll",
    "brier",
    "ece",
]


class Train(Section):
    """The training loop."""

    epochs: PositiveInt | Auto = Field(
        3,
        description="the number of passes over the training rows",
        json_schema_extra={"allowed": _WHOLE_OR_AUTO},
    )
    max_steps: PositiveInt | None = Field(None, description="stop after this many optimizer steps")
    minutes: PositiveFloat | None = Field(
        None,
        description="a time limit for the whole run; the number of steps, and with it the "
        "schedule, is reduced to keep it",
    )
    batch_rows: PositiveInt | Auto = Field(
        32,
        description="the number of rows per optimizer step, over all processes and accumulation "
        "steps",
        json_schema_extra={"allowed": _WHOLE_OR_AUTO},
    )
    accumulation_steps: PositiveInt = Field(
        1, description="the number of forward and backward passes per optimizer step"
    )
    batch_tokens: Annotated[int, Field(ge=512)] = Field(
        8192,
        description="the maximum number of tokens in a forward pass; a larger batch is split, and "
        "the gradients of its parts are added up",
    )
    evaluation_batch_rows: PositiveInt = Field(
        128, description="rows per batch during evaluation and prediction"
    )
    batch_order: Literal["grouped", "random", "classes", "auto"] = Field(
        "grouped",
        description="batch texts of similar length together within a shuffled window, draw "
        "batches at random, or put several rows of a class into each batch",
    )
    contrastive: NonNegativeFloat | Auto = Field(
        0.0,
        description="the weight of a loss that pulls texts of the same class together and pushes "
        "others apart (supervised contrastive learning, arXiv:2004.11362)",
        json_schema_extra={"allowed": 'a number from 0, or "auto"'},
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto",
        description="the precision of the frozen encoder; adapters, head and optimizer state are "
        "always fp32",
    )
    frozen_products: Literal["float", "int8"] = Field(
        "float",
        description='"int8" multiplies the inputs and gradients of frozen linear layers by their '
        "weights in 8-bit integers, which is faster on CPUs and rounds more (SwitchBack, "
        "arXiv:2304.13013)",
    )
    compile: Literal["auto", "on", "off"] = Field(
        "auto",
        description='apply torch.compile to the feed-forward blocks; "auto" does so on a GPU',
    )
    prefix_cache: Literal["off", "disk", "device", "auto"] = Field(
        "off",
        description="compute the layers below the lowest adapter once, without dropout, and cache "
        'their outputs on disk or in device memory; "auto" is "disk" where that saves time and the '
        "outputs fit",
    )
    start_from: str | None = Field(
        None,
        description="a finished run with the same base, adapters and head, whose trained weights "
        "this run starts from; train.head_start has no effect then",
        json_schema_extra={"path": "path"},
    )
    head_start: Literal["random", "logistic"] = Field(
        "random",
        description='"logistic" starts the head from a logistic regression on the embeddings of '
        "the frozen encoder (LP-FT, arXiv:2202.10054); needs a base.pooling other than native",
    )
    head_end: Literal["trained", "logistic", "auto"] = Field(
        "trained",
        description='"logistic" fits the head once more after training, as a logistic regression '
        "on the embeddings of the trained encoder, and keeps it unless validation gets worse; "
        "needs a base.pooling other than native",
    )
    loss: Loss = Field(default_factory=CrossEntropy, description="the loss of the labelled rows")
    class_weights: Literal["none", "balanced"] = Field(
        "none",
        description="weight the loss of a class by the inverse of its number of rows, at most "
        "tenfold; if rows may have several labels, the positive rows of each class",
    )
    sampling: Literal["natural", "balanced"] = Field(
        "natural",
        description="train on every row once per epoch, or on equally many rows of each class, "
        "repeating rows of rare classes",
    )
    label_smoothing: Fraction = Field(
        0.0, description="the fraction of each target that is spread over all classes"
    )
    r_drop: NonNegativeFloat = Field(
        0.0,
        description="the weight of the divergence between two passes under different dropout "
        "(R-Drop, arXiv:2106.14448)",
    )
    mixup: NonNegativeFloat = Field(
        0.0,
        description="mix pairs of rows before the output layer, with weights drawn from "
        "Beta(mixup, mixup); 0 turns it off",
    )
    average: Literal["off"] | Annotated[float, Field(gt=0.0, lt=1.0)] = Field(
        "off",
        description="the decay of a moving average of the trained weights, which is evaluated and "
        "saved in their place",
        json_schema_extra={"allowed": '"off", or a number between 0 and 1, such as 0.99'},
    )
    interpolate: Annotated[float, Field(gt=0.0, le=1.0)] = Field(
        1.0,
        description="after training, how far to go from the weights that training started from "
        "toward the trained ones (WiSE-FT, arXiv:2109.01903); less than 1, such as 0.85, often "
        "gains accuracy on text unlike the training text, and may lose some on text like it",
    )
    max_gradient_norm: PositiveFloat | Literal["off"] = Field(
        1.0,
        description="clip the norm of the gradients to this value",
        json_schema_extra={"allowed": 'a number above 0, or "off"'},
    )
    evaluate_every: Literal["epoch", "auto"] | PositiveInt = Field(
        "epoch",
        description="how often to evaluate on the validation rows and write a checkpoint",
        json_schema_extra={
            "allowed": '"epoch", "auto", or a whole number of optimizer steps from 1'
        },
    )
    keep_best: Metric = Field(
        "auto",
        description="the validation metric that selects the checkpoint to keep; of equally good "
        'ones, the latest is kept; "auto" is accuracy, and mean average precision if rows may have '
        "several labels",
    )
    keep_within: NonNegativeFloat | Auto = Field(
        0.0,
        description="keep a later checkpoint although its metric is worse than the best so far, by "
        "at most this much; it then also counts as an improvement for train.early_stopping",
        json_schema_extra={"allowed": 'a number from 0, or "auto"'},
    )
    early_stopping: EarlyStopping | Literal["off", "auto"] = Field(
        "off",
        description="stop early if the validation metric no longer improves",
        json_schema_extra={"allowed": '"off", "auto", or a table with patience and threshold'},
    )
    log_every: PositiveInt = Field(
        10, description="the number of optimizer steps between two recorded losses"
    )
    trackers: tuple[str, ...] = Field(
        ("tensorboard",),
        strict=False,
        description="the trackers, by their names in accelerate, that log the training curves",
    )

    @model_validator(mode="after")
    def _one_correction_of_class_sizes(self) -> Train:
        corrections = {
            'class_weights = "balanced"': self.class_weights == "balanced",
            'sampling = "balanced"': self.sampling == "balanced",
            'loss.method = "logit-adjusted"': self.loss.method == "logit-adjusted",
        }
        used = [f"train.{key}" for key, is_used in corrections.items() if is_used]
        if len(used) > 1:
            raise ValueError(
                f"{' and '.join(used)} correct for the same uneven classes; choose one of them"
            )
        return self

    @model_validator(mode="after")
    def _head_is_averaged_or_fitted(self) -> Train:
        if self.head_end == "logistic" and self.average != "off":
            raise ValueError(
                'train.head_end: "logistic" replaces the head, and train.average keeps an average '
                "of it; leave one of them out"
            )
        return self

    @model_validator(mode="after")
    def _interpolates_from_a_classifier(self) -> Train:
        if self.interpolate == 1.0:
            return self
        if self.head_start == "random" and self.start_from is None:
            raise ValueError(
                "train.interpolate: the weights that training starts from must classify texts; set "
                'train.head_start = "logistic", or train.start_from'
            )
        if self.average != "off":
            raise ValueError(
                "train.interpolate: does not work with train.average; leave one of them out"
            )
        return self

    @model_validator(mode="after")
    def _features_are_mixed_or_contrasted(self) -> Train:
        if self.mixup > 0.0 and self.contrastive != 0.0:
            raise ValueError(
                "train.contrastive: does not work with train.mixup, which mixes the texts that it "
                "compares; leave one of them out"
            )
        return self
