"""What a recipe may say: one frozen, typed section per concern, every default in this file.

`Recipe` is the root. `data` and the sections that choose a method (`adapter`, `optimizer`,
`schedule`) stand in files of their own; methods are told apart by their `method` key, so that each
has its own fields and a wrong pair cannot be written down. A union that pydantic would explain at
length carries an `allowed` text instead.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from pennyweight.recipe.adapters import Adapter, LoraAdapter
from pennyweight.recipe.data import Data, Source
from pennyweight.recipe.lab import Generate
from pennyweight.recipe.optimizers import AdamW, Optimizer
from pennyweight.recipe.section import Fraction, Section
from pennyweight.recipe.transduction import Transduction

__all__ = [
    "Base",
    "Budget",
    "Distillation",
    "EarlyStopping",
    "Evaluate",
    "Recipe",
    "Train",
]


class Base(Section):
    """`[base]`: the frozen pretrained encoder."""

    name: str = Field(
        "roberta-base",
        min_length=1,
        description='a hub id, a local directory in the hub\'s format, or "embedded"',
    )
    revision: str | None = Field(None, description="commit, tag or branch on the hub")
    weights: Literal["pretrained", "random"] = Field(
        "pretrained", description='"random" builds the encoder from its config alone, untrained'
    )
    tokenizer: str | None = Field(
        None, description="hub id or local directory of the tokenizer, when not the base's own"
    )
    attention: Literal["auto", "packed", "eager", "sdpa", "flash_attention_2"] = Field(
        "auto",
        description='"packed" puts texts end to end, without padding; the others are '
        "transformers' implementations for padded batches",
    )
    quantization: Literal["none", "nf4", "int8"] = Field(
        "none",
        description="hold the encoder's frozen matrices in 4 or 8 bits (QLoRA, arXiv:2305.14314)",
    )
    dropout: Fraction | None = Field(
        None, description="dropout inside the frozen encoder; left out, the base's own"
    )


class Budget(Section):
    """`[budget]`: the hard limit, head and biases counted."""

    trainable_parameters: PositiveInt = Field(1_000_000, description="the most that may be trained")


class EarlyStopping(Section):
    """Stop when `train.keep_best` has not improved by `threshold` for `patience` evaluations."""

    patience: PositiveInt = Field(2, description="evaluations without improvement")
    threshold: NonNegativeFloat = Field(0.0, description="improvement that counts")


Metric = Literal["accuracy", "macro_f1", "nll", "brier", "ece"]


class Train(Section):
    """`[train]`: the loop."""

    epochs: PositiveInt = Field(3, description="passes over the training rows")
    max_steps: PositiveInt | None = Field(None, description="stop after this many optimizer steps")
    batch_rows: PositiveInt = Field(
        32, description="rows per optimizer step, over all processes and accumulation steps"
    )
    accumulation_steps: PositiveInt = Field(
        1, description="forward and backward passes that share one optimizer step"
    )
    batch_tokens: Annotated[int, Field(ge=512)] = Field(
        8192,
        description="the most tokens that go through the model at once; a larger batch is split "
        "and its gradients are summed",
    )
    evaluation_batch_rows: PositiveInt = Field(128, description="rows per batch without gradients")
    batch_order: Literal["grouped", "random"] = Field(
        "grouped", description="texts of similar length together within a shuffled window, or not"
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto", description="of the frozen encoder; adapters, head and optimizer stay in fp32"
    )
    compile: Literal["auto", "on", "off"] = Field(
        "auto", description="torch.compile on the feed-forward blocks; auto: on a GPU"
    )
    prefix_cache: Literal["off", "disk", "device"] = Field(
        "off",
        description="compute the layers below the lowest adapter once, without dropout, and keep "
        "what they give in a file or in the device's memory",
    )
    label_smoothing: Fraction = Field(
        0.0, description="share of each target that is spread over all classes"
    )
    r_drop: NonNegativeFloat = Field(
        0.0, description="weight of the divergence of two passes under different dropout (R-Drop)"
    )
    mixup: NonNegativeFloat = Field(
        0.0,
        description="mix rows before the output layer, by shares from Beta(mixup, mixup); 0: off",
    )
    average: Literal["off"] | Annotated[float, Field(gt=0.0, lt=1.0)] = Field(
        "off",
        description="decay of a moving average of the adapters, which is evaluated and saved",
        json_schema_extra={"allowed": '"off", or a number between 0 and 1, such as 0.99'},
    )
    max_gradient_norm: PositiveFloat | Literal["off"] = Field(
        1.0,
        description="gradients are scaled down to this norm",
        json_schema_extra={"allowed": 'a number above 0, or "off"'},
    )
    evaluate_every: Literal["epoch"] | PositiveInt = Field(
        "epoch",
        description="when to evaluate on validation and write a checkpoint",
        json_schema_extra={"allowed": '"epoch", or a whole number of optimizer steps from 1'},
    )
    keep_best: Metric = Field("accuracy", description="the validation metric that picks the best")
    early_stopping: EarlyStopping | Literal["off"] = Field(
        "off",
        description="when to stop before the last epoch",
        json_schema_extra={"allowed": '"off", or a table with patience and threshold'},
    )
    log_every: PositiveInt = Field(10, description="optimizer steps between two recorded losses")
    trackers: tuple[str, ...] = Field(
        ("tensorboard",),
        strict=False,
        description="accelerate's trackers that get the curves",
    )


class Distillation(Section):
    """`[distillation]`: learn from teachers too (Hinton et al. 2015, arXiv:1503.02531)."""

    teachers: tuple[str, ...] = Field(
        min_length=1,
        strict=False,
        description="finished runs, or directories with a transformers classifier",
    )
    temperature: PositiveFloat = Field(2.0, description="softens teacher and student alike")
    soft: Annotated[float, Field(ge=0.0, le=1.0)] = Field(
        0.5, description="share of the teachers in the loss; the rest is the labels'"
    )
    hidden: NonNegativeFloat = Field(
        0.0,
        description="weight of a loss that turns the input of the student's output layer towards "
        "the teacher's; needs one teacher of the same width",
    )

    @model_validator(mode="after")
    def _one_thinks(self) -> Distillation:
        if self.hidden > 0.0 and len(self.teachers) > 1:
            raise ValueError("distillation.hidden: needs exactly one teacher")
        return self


class Evaluate(Section):
    """`[evaluate]`: the sets that are read once, at the end."""

    test: Source | None = Field(None, description="the labelled test")
    also: dict[str, Source] = Field(
        default_factory=dict, description="further labelled sets, by name"
    )
    calibration_bins: Annotated[int, Field(ge=2)] = Field(
        15, description="equal-width bins of the expected calibration error"
    )

    @model_validator(mode="after")
    def _names_are_free(self) -> Evaluate:
        for name in self.also:
            if name in {"test", "validation", "train"} or not re.fullmatch(r"[\w.-]+", name):
                raise ValueError(
                    f'evaluate.also: "{name}" cannot name a set; use letters, digits, "-", "_" '
                    'and ".", and not "test", "validation" or "train"'
                )
        return self


class Recipe(Section):
    """One system, complete: what to adapt, on which data, within which budget, how."""

    name: str = Field("recipe", min_length=1, description="what the system is called")
    summary: str = Field("", description="one line about it")
    seed: NonNegativeInt = Field(42, description="of the split, the head, the batches, the dropout")
    base: Base = Field(default_factory=Base)
    data: Data = Field(default_factory=Data)
    budget: Budget = Field(default_factory=Budget)
    adapter: Adapter = Field(default_factory=LoraAdapter)
    optimizer: Optimizer = Field(default_factory=AdamW)
    train: Train = Field(default_factory=Train)
    distillation: Distillation | None = None
    generate: Generate | None = None
    transduction: Transduction | None = None
    evaluate: Evaluate = Field(default_factory=Evaluate)

    @model_validator(mode="after")
    def _target_is_named(self) -> Recipe:
        for section in ("generate", "transduction"):
            if getattr(self, section) is not None and self.data.target is None:
                raise ValueError(
                    f"data.target: missing; [{section}] works on unlabelled text from where the "
                    "model will be used, for example --set data.target=unlabelled.csv"
                )
        return self

    @model_validator(mode="after")
    def _shares_are_of_classes(self) -> Recipe:
        use = self.transduction
        if use is None:
            return self
        told = {"prior.stated": use.prior.stated if use.prior else {}}
        told["self_training.by_class"] = use.self_training.by_class if use.self_training else {}
        for key, table in told.items():
            for name in table:
                if name not in self.data.labels:
                    raise ValueError(
                        f'transduction.{key}: "{name}" is no class; there are '
                        f"{', '.join(self.data.labels)}"
                    )
        if use.prior and use.prior.method == "stated":
            stated = use.prior.stated
            if set(stated) != set(self.data.labels) or abs(sum(stated.values()) - 1.0) > 1e-6:
                raise ValueError(
                    "transduction.prior.stated: give every class a share, 1 in all; "
                    f"classes: {', '.join(self.data.labels)}"
                )
        return self

    @model_validator(mode="after")
    def _quantization_fits(self) -> Recipe:
        how, adapter = self.base.quantization, self.adapter
        begin = getattr(adapter, "initialization", None)
        if begin == "loftq" and how != "nf4":
            raise ValueError(
                'adapter.initialization: "loftq" makes up for what 4 bits lose; it needs '
                'base.quantization = "nf4"'
            )
        if begin == "loftq" and adapter.method not in ("lora", "rslora"):
            raise ValueError(f'adapter.initialization: "loftq" does not go with {adapter.method}')
        if how == "none":
            return self
        if begin in ("pissa", "olora"):
            raise ValueError(
                f'adapter.initialization: "{begin}" changes the base\'s weights, which '
                f'base.quantization = "{how}" has frozen in few bits; try "loftq"'
            )
        if how == "int8" and adapter.method in ("dora", "rsdora"):
            raise ValueError(
                f"adapter.method: {adapter.method} does not work over bitsandbytes' int8 layers; "
                'try base.quantization = "nf4"'
            )
        if adapter.method == "full" or adapter.bias != "none":
            what = "adapter.method = full" if adapter.method == "full" else "adapter.bias"
            raise ValueError(f'{what}: cannot train what base.quantization = "{how}" holds')
        return self
