"""The `[[data.filters]]`, `[[data.augmentations]]` and `[generate]` sections."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from pennyweight.section import Fraction, Section

__all__ = [
    "AgreementFilter",
    "Augmentation",
    "DeletionAugmentation",
    "DuplicatesFilter",
    "Filter",
    "Gates",
    "Generate",
    "LabelNoiseFilter",
    "LengthFilter",
    "NearDuplicatesFilter",
    "PerplexityFilter",
    "SwapAugmentation",
    "SynonymsAugmentation",
    "TyposAugmentation",
]

Share = Annotated[float, Field(gt=0.0, lt=1.0)]
Similarity = Annotated[float, Field(gt=0.0, le=1.0)]
Folds = Annotated[int, Field(ge=2)]


class LengthFilter(Section):
    """Removes texts that have too few or too many words."""

    method: Literal["length"] = "length"
    shortest: NonNegativeInt = Field(1, description="the minimum number of words")
    longest: PositiveInt = Field(10_000, description="the maximum number of words")

    @model_validator(mode="after")
    def _bounds_are_ordered(self) -> LengthFilter:
        if self.longest < self.shortest:
            raise ValueError(
                f"longest: given {self.longest}; allowed: at least shortest, which is "
                f"{self.shortest}"
            )
        return self


class DuplicatesFilter(Section):
    """Removes texts that repeat an earlier row."""

    method: Literal["duplicates"] = "duplicates"


class NearDuplicatesFilter(Section):
    """Removes texts that are nearly the same as an earlier row."""

    method: Literal["near-duplicates"] = "near-duplicates"
    similarity: Similarity = Field(
        0.8, description="the minimum Jaccard similarity of word pairs at which a text is removed"
    )


class LabelNoiseFilter(Section):
    """Removes rows whose label is probably wrong, according to confident learning."""

    method: Literal["label-noise"] = "label-noise"
    folds: Folds = Field(5, description="the number of cross-validation folds")


class AgreementFilter(Section):
    """Removes rows for which two cross-validated models agree on a different label."""

    method: Literal["agreement"] = "agreement"
    folds: Folds = Field(5, description="the number of cross-validation folds")


class PerplexityFilter(Section):
    """Removes the texts with the highest perplexity under a causal language model."""

    method: Literal["perplexity"] = "perplexity"
    model: str = Field(
        "gpt2",
        min_length=1,
        description="the language model: a hub id or a local directory",
        json_schema_extra={"path": "model"},
    )
    share: Share = Field(0.05, description="the fraction of the rows to remove")


Filter = Annotated[
    LengthFilter
    | DuplicatesFilter
    | NearDuplicatesFilter
    | LabelNoiseFilter
    | AgreementFilter
    | PerplexityFilter,
    Field(discriminator="method"),
]


class _Augmentation(Section):
    copies: PositiveInt = Field(
        1, description="the maximum number of modified copies of each training row"
    )


class SynonymsAugmentation(_Augmentation):
    """Replaces content words with WordNet synonyms."""

    method: Literal["synonyms"] = "synonyms"
    probability: Share = Field(0.15, description="the probability of replacing a word")
    most: PositiveInt = Field(5, description="the maximum number of words replaced in a text")
    part_of_speech: Literal["most-frequent", "tagger", "any"] = Field(
        "most-frequent",
        description="which senses of a word to draw synonyms from: its most frequent sense, its "
        "frequent senses as the part of speech found by NLTK's tagger, or as any part of speech",
    )
    spare_names: bool = Field(True, description="do not replace words that look like names")
    wordnet: str | None = Field(
        None,
        description="the directory of WordNet's files; if not set, standard locations are searched",
        json_schema_extra={"path": "path"},
    )


class DeletionAugmentation(_Augmentation):
    """Deletes words."""

    method: Literal["deletion"] = "deletion"
    probability: Share = Field(0.1, description="the probability of deleting a word")


class SwapAugmentation(_Augmentation):
    """Swaps pairs of words."""

    method: Literal["swap"] = "swap"
    count: PositiveInt = Field(2, description="the number of pairs that are swapped")


class TyposAugmentation(_Augmentation):
    """Adds typing errors."""

    method: Literal["typos"] = "typos"
    probability: Share = Field(0.1, description="the probability of a typing error in a word")


Augmentation = Annotated[
    SynonymsAugmentation | DeletionAugmentation | SwapAugmentation | TyposAugmentation,
    Field(discriminator="method"),
]


class Gates(Section):
    """The checks that a generated text must pass to be kept."""

    judge: Literal["tf-idf", "off"] = Field(
        "tf-idf",
        description="an independent classifier, trained on the training rows, that checks the "
        "class of each text",
    )
    confidence: Fraction = Field(
        0.5,
        description="the minimum probability that the judge must assign to the intended class",
    )
    similarity: Similarity = Field(
        0.7,
        description="the minimum Jaccard similarity to another text at which a text is rejected "
        "as a near duplicate",
    )
    copied_words: Annotated[int, Field(ge=3)] = Field(
        8,
        description="reject a text that shares this many consecutive words with an evaluation text",
    )


class Generate(Section):
    """Labelled training texts written by a language model fine-tuned on the target text."""

    model: str = Field(
        "gpt2",
        min_length=1,
        description="the causal language model: a hub id or a local directory",
        json_schema_extra={"path": "model"},
    )
    prompts: str = Field(
        "news",
        min_length=1,
        description='the openings of each class: "news", or a TOML file with a list per class',
        json_schema_extra={"path": "file"},
    )
    per_class: PositiveInt = Field(
        3000, description="the number of texts to generate for each class, before the gates"
    )
    epochs: Annotated[float, Field(ge=0.0)] = Field(
        2.0,
        description="epochs of fine-tuning on the target text; 0 uses the model as it is",
    )
    learning_rate: PositiveFloat = Field(5e-5, description="the learning rate of fine-tuning")
    lengths: Literal["skewed-normal", "empirical"] = Field(
        "skewed-normal",
        description="how text lengths are drawn: from a skewed normal distribution fitted to the "
        "training rows, or from the lengths of the training rows themselves",
    )
    longest: PositiveInt = Field(128, description="the maximum number of words in a text")
    temperature: PositiveFloat = Field(1.0, description="the sampling temperature")
    top_k: NonNegativeInt = Field(
        50, description="sample from this many most likely tokens; 0 samples from all"
    )
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] = Field(
        0.95, description="sample from the most likely tokens with this total probability"
    )
    repetition_penalty: PositiveFloat = Field(
        1.3, description="the penalty on tokens that already occur in the text; 1 turns it off"
    )
    batch_rows: PositiveInt = Field(128, description="the number of texts generated at a time")
    gates: Gates = Field(
        default_factory=Gates, description="the checks that a text must pass to be kept"
    )
