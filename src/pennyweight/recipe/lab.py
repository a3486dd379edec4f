"""The `[[data.filters]]` and `[[data.augmentations]]` sections."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from pennyweight.section import Section

__all__ = [
    "AgreementFilter",
    "Augmentation",
    "DeletionAugmentation",
    "DuplicatesFilter",
    "Filter",
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
