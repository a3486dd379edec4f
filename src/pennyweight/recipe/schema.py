"""The schema of a recipe: one frozen, typed section for each concern, with every default.

`Recipe` is the root. `[data]`, `[train]` and the sections that select a method (`[adapter]`,
`[optimizer]` and its schedule) are defined in files of their own. A section of the last kind is a
union discriminated by its `method` key, so that each method has its own keys.

Two entries in a field's `json_schema_extra` are read elsewhere:

- `allowed` replaces pydantic's description of the allowed values in error messages;
- `path` marks a value that may be a path; see `pennyweight.recipe.paths`.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import (
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from pennyweight.budget.methods import METHODS
from pennyweight.recipe.adapters import Adapter, default_adapter
from pennyweight.recipe.data import Data, Source
from pennyweight.recipe.generate import Generate
from pennyweight.recipe.optimizers import AdamW, Optimizer
from pennyweight.recipe.search import Search, check_keys
from pennyweight.recipe.train import Train
from pennyweight.recipe.transduction import Transduction
from pennyweight.section import Fraction, Section, Seed

__all__ = [
    "Base",
    "Budget",
    "Distillation",
    "Evaluate",
    "Recipe",
]


class Base(Section):
    """The frozen pretrained encoder."""

    name: str = Field(
        "roberta-base",
        min_length=1,
        description='a hub id, a local directory in the hub\'s format, or "embedded"',
        json_schema_extra={"path": "model"},
    )
    revision: str | None = Field(None, description="the commit, tag or branch on the hub")
    weights: Literal["pretrained", "random"] = Field(
        "pretrained",
        description='"random" initializes the encoder from its config instead of loading weights',
    )
    tokenizer: str | None = Field(
        None,
        description="the hub id or local directory of a tokenizer to use instead of the base's own",
        json_schema_extra={"path": "model"},
    )
    attention: Literal["auto", "packed", "eager", "sdpa", "flash_attention_2"] = Field(
        "auto",
        description='"packed" concatenates texts without padding; the others are the '
        "implementations in transformers, for padded batches",
    )
    quantization: Literal["none", "nf4", "int8"] = Field(
        "none",
        description="store the frozen matrices of the encoder in 4 or 8 bits (QLoRA, "
        "arXiv:2305.14314)",
    )
    pooling: Literal["native", "auto", "mean", "first"] = Field(
        "native",
        description='what the head reads: "native" is the classification head of transformers; '
        '"mean" and "first" put a linear head on the mean over the tokens or on the first token; '
        '"auto" is the pooling that a sentence encoder was trained with, and "mean" otherwise',
    )
    dropout: Fraction | None = Field(
        None,
        description="the dropout rate inside the frozen encoder; if not set, that of its config",
    )


class Budget(Section):
    """The hard limit on the number of trainable parameters."""

    trainable_parameters: PositiveInt = Field(
        1_000_000,
        description="the maximum number of trainable parameters, including head and biases",
    )


class Distillation(Section):
    """Training on the predictions of teachers (Hinton et al. 2015, arXiv:1503.02531)."""

    teachers: tuple[str, ...] = Field(
        min_length=1,
        strict=False,
        description="finished runs, or directories that hold a transformers classifier",
        json_schema_extra={"path": "path"},
    )
    temperature: PositiveFloat = Field(
        2.0, description="the temperature of both the teachers' and the student's probabilities"
    )
    soft: Annotated[float, Field(ge=0.0, le=1.0)] = Field(
        0.5,
        description="the weight of the teachers' predictions in the loss; that of the labels is "
        "1 - soft",
    )
    hidden: NonNegativeFloat = Field(
        0.0,
        description="the weight of a cosine loss between the inputs of the student's and the "
        "teacher's output layers; needs a single teacher of the same width",
    )

    @model_validator(mode="after")
    def _hidden_has_one_teacher(self) -> Distillation:
        if self.hidden > 0.0 and len(self.teachers) > 1:
            raise ValueError(
                f"distillation.hidden: needs exactly one teacher; given {len(self.teachers)}"
            )
        return self


class Evaluate(Section):
    """The labelled sets on which the finished run is evaluated, once, at the end."""

    test: Source | None = Field(None, description="the labelled test set")
    also: dict[str, Source] = Field(
        default_factory=dict,
        description="further labelled test sets, by name",
        json_schema_extra={"path": "source"},
    )
    baselines: tuple[Literal["embedding", "tf-idf"], ...] = Field(
        ("embedding", "tf-idf"),
        strict=False,
        description="the baselines that are reported beside the result: logistic regression on the "
        "frozen encoder's embeddings, and on TF-IDF",
    )
    calibration_bins: Annotated[int, Field(ge=2)] = Field(
        15, description="the number of equal-width bins of the expected calibration error"
    )

    @model_validator(mode="after")
    def _names_are_usable(self) -> Evaluate:
        for name in self.also:
            if name in {"test", "validation", "train"} or not re.fullmatch(r"[\w.-]+", name):
                raise ValueError(
                    f'evaluate.also: given the name "{name}"; allowed: letters, digits, "-", "_" '
                    'and ".", except for "test", "validation" and "train"'
                )
        return self


class Recipe(Section):
    """A complete recipe: the base, the data, the budget, and how the adapter is trained."""

    name: str = Field("recipe", min_length=1, description="the name of the recipe")
    summary: str = Field("", description="a one-line description")
    seed: Seed = Field(42, description="the seed of the split, the head, the batches and dropout")
    base: Base = Field(default_factory=Base)
    data: Data = Field(default_factory=Data)
    budget: Budget = Field(default_factory=Budget)
    adapter: Adapter = Field(
        default_factory=default_adapter, description="the adapter method and its options"
    )
    optimizer: Optimizer = Field(default_factory=AdamW, description="the optimizer and its options")
    train: Train = Field(default_factory=Train)
    distillation: Distillation | None = None
    generate: Generate | None = None
    transduction: Transduction | None = None
    evaluate: Evaluate = Field(default_factory=Evaluate)
    search: Search | None = None

    @model_validator(mode="after")
    def _searched_keys_exist(self) -> Recipe:
        if self.search is not None:
            check_keys(type(self), self.search)
        return self

    @model_validator(mode="after")
    def _target_is_set(self) -> Recipe:
        for section in ("generate", "transduction"):
            if getattr(self, section) is not None and self.data.target is None:
                raise ValueError(
                    f"data.target: missing; [{section}] works on unlabelled text from the domain "
                    "in which the model will be used, for example "
                    "--set data.target=unlabelled.csv"
                )
        return self

    @model_validator(mode="after")
    def _shares_name_classes(self) -> Recipe:
        labels = self.data.labels
        if self.transduction is None or labels is None:
            return self
        prior, self_training = self.transduction.prior, self.transduction.self_training
        tables = {
            "prior.stated": prior.stated if prior and prior.stated != "uniform" else {},
            "self_training.by_class": getattr(self_training, "by_class", {}),
        }
        classes = ", ".join(labels)
        for key, table in tables.items():
            if unknown := sorted(set(table) - set(labels)):
                raise ValueError(
                    f'transduction.{key}: "{unknown[0]}" is not a class; the classes are {classes}'
                )
        if prior and prior.method == "stated" and prior.stated != "uniform":
            shares = prior.stated
            if len(shares) != len(labels) or abs(sum(shares.values()) - 1.0) > 1e-6:
                raise ValueError(
                    "transduction.prior.stated: give every class a share, adding up to 1; "
                    f"the classes are {classes}"
                )
        return self

    @model_validator(mode="after")
    def _head_can_start(self) -> Recipe:
        for key in ("head_start", "head_end"):
            if getattr(self.train, key) != "logistic":
                continue
            if self.base.pooling == "native":
                raise ValueError(
                    f'train.{key}: "logistic" needs a linear head on pooled hidden states; add '
                    "--set base.pooling=auto"
                )
            if self.adapter.model_dump().get("head") == "frozen":
                raise ValueError(
                    f'train.{key}: "logistic" changes the head, which adapter.head = "frozen" '
                    'keeps as it is; use adapter.head = "full"'
                )
        return self

    @model_validator(mode="after")
    def _quantization_fits(self) -> Recipe:
        method = METHODS[self.adapter.method]
        conflict = method.quantization_conflict(self.adapter, self.base.quantization)
        if conflict is not None:
            raise ValueError(conflict)
        return self
