"""`[[data.filters]]`, `[[data.augmentations]]` and `[generate]`: what the data lab is told."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from pennyweight.recipe.section import Fraction, Section

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
    """Takes out texts of too few or too many words."""

    method: Literal["length"] = "length"
    shortest: NonNegativeInt = Field(1, description="fewest words")
    longest: PositiveInt = Field(10_000, description="most words")

    @model_validator(mode="after")
    def _in_order(self) -> LengthFilter:
        if self.longest < self.shortest:
            raise ValueError(f"longest: given {self.longest}, less than shortest, {self.shortest}")
        return self


class DuplicatesFilter(Section):
    """Takes out texts that stand earlier in the rows."""

    method: Literal["duplicates"] = "duplicates"


class NearDuplicatesFilter(Section):
    """Takes out texts near an earlier one."""

    method: Literal["near-duplicates"] = "near-duplicates"
    similarity: Similarity = Field(0.8, description="Jaccard similarity of pairs of words")


class LabelNoiseFilter(Section):
    """Takes out rows whose label confident learning doubts."""

    method: Literal["label-noise"] = "label-noise"
    folds: Folds = Field(5, description="of the cross-validation")


class AgreementFilter(Section):
    """Takes out rows whose label two cross-validated models contradict alike."""

    method: Literal["agreement"] = "agreement"
    folds: Folds = Field(5, description="of the cross-validation")


class PerplexityFilter(Section):
    """Takes out the share of the texts that a causal language model finds oddest."""

    method: Literal["perplexity"] = "perplexity"
    model: str = Field("gpt2", min_length=1, description="hub id or local directory")
    share: Share = Field(0.05, description="of the rows")


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
    copies: PositiveInt = Field(1, description="changed copies of each training row")


class SynonymsAugmentation(_Augmentation):
    """Some words become WordNet synonyms."""

    method: Literal["synonyms"] = "synonyms"
    probability: Share = Field(0.15, description="of each word")
    most: PositiveInt = Field(5, description="words changed in one text")
    part_of_speech: Literal["most-frequent", "tagger", "any"] = Field(
        "most-frequent",
        description="which senses count: the word's most frequent one, those of the part of "
        "speech that NLTK's tagger sees, or all",
    )
    spare_names: bool = Field(True, description="leave words alone that look like names")
    wordnet: str | None = Field(
        None, description="directory with WordNet's files; left out, the usual places"
    )


class DeletionAugmentation(_Augmentation):
    """Some words are left out."""

    method: Literal["deletion"] = "deletion"
    probability: Share = Field(0.1, description="of each word")


class SwapAugmentation(_Augmentation):
    """Words change places."""

    method: Literal["swap"] = "swap"
    count: PositiveInt = Field(2, description="pairs of words that change places")


class TyposAugmentation(_Augmentation):
    """Some words get a typing error."""

    method: Literal["typos"] = "typos"
    probability: Share = Field(0.1, description="of each word")


Augmentation = Annotated[
    SynonymsAugmentation | DeletionAugmentation | SwapAugmentation | TyposAugmentation,
    Field(discriminator="method"),
]


class Gates(Section):
    """What a generated text must pass."""

    judge: Literal["tf-idf", "off"] = Field(
        "tf-idf", description="an independent classifier, trained on the training rows"
    )
    confidence: Fraction = Field(
        0.5, description="probability of the intended class that it must give at least"
    )
    similarity: Similarity = Field(0.7, description="from which texts are near duplicates")
    copied_words: Annotated[int, Field(ge=3)] = Field(
        8, description="words in a row that no text may share with an evaluation text"
    )


class Generate(Section):
    """`[generate]`: a language model that has read the target writes labelled texts."""

    model: str = Field("gpt2", min_length=1, description="hub id or local directory")
    prompts: str = Field(
        "news", min_length=1, description='openings by class: "news", or a TOML file'
    )
    per_class: PositiveInt = Field(3000, description="texts of each class, before the gates")
    epochs: Annotated[float, Field(ge=0.0)] = Field(
        2.0, description="of fine-tuning on the target; 0 for the model as it is"
    )
    learning_rate: PositiveFloat = Field(5e-5, description="of fine-tuning")
    lengths: Literal["skewed-normal", "empirical"] = Field(
        "skewed-normal", description="distribution of the texts' words, from the training rows'"
    )
    longest: PositiveInt = Field(128, description="the most words of a text")
    temperature: PositiveFloat = Field(1.0, description="of sampling")
    top_k: NonNegativeInt = Field(50, description="tokens to draw from; 0 for all")
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] = Field(
        0.95, description="probability of the tokens to draw from"
    )
    repetition_penalty: PositiveFloat = Field(1.3, description="on tokens that are there already")
    batch_rows: PositiveInt = Field(128, description="texts written at once")
    gates: Gates = Field(default_factory=Gates, description="what a text must pass")
