"""The `[generate]` section: who writes labelled texts, how, and which of them are kept."""

from __future__ import annotations

import re
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import (
    BeforeValidator,
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

from pennyweight.section import Fraction, Section

__all__ = [
    "Adaptation",
    "EndpointGenerate",
    "FullAdaptation",
    "Gates",
    "Generate",
    "LanguageModelGenerate",
    "LoraAdaptation",
    "NoAdaptation",
]

Similarity = Annotated[float, Field(gt=0.0, le=1.0)]


class _Adaptation(Section):
    epochs: PositiveFloat = Field(
        2.0, description="passes over the target text; may be a fraction, such as 0.5"
    )


class LoraAdaptation(_Adaptation):
    """Trains LoRA on all linear layers; the model itself stays frozen (arXiv:2106.09685)."""

    method: Literal["lora"] = "lora"
    rank: PositiveInt = Field(16, description="the rank of each LoRA matrix")
    alpha: PositiveFloat = Field(32.0, description="LoRA's scaling is alpha / rank")
    learning_rate: PositiveFloat = Field(2e-4, description="the peak learning rate")


class FullAdaptation(_Adaptation):
    """Trains all weights of the model."""

    method: Literal["full"] = "full"
    learning_rate: PositiveFloat = Field(5e-5, description="the peak learning rate")


class NoAdaptation(Section):
    """Uses the model as it is."""

    method: Literal["none"] = "none"


Adaptation = Annotated[
    LoraAdaptation | FullAdaptation | NoAdaptation, Field(discriminator="method")
]


class Gates(Section):
    """The checks that a generated text must pass to be kept."""

    judge: Literal["tf-idf", "classifiers", "off"] = Field(
        "tf-idf",
        description="what checks the class of each text: a TF-IDF classifier trained on the "
        "training rows, the finished runs in `judges`, or nothing",
    )
    judges: tuple[str, ...] = Field(
        (),
        strict=False,
        description='with `judge = "classifiers"`: finished runs; the mean of their probabilities '
        "counts",
        json_schema_extra={"path": "path"},
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

    @model_validator(mode="after")
    def _judges_fit(self) -> Gates:
        if self.judge == "classifiers" and not self.judges:
            raise ValueError(
                'judges: missing; judge = "classifiers" needs finished runs, for '
                "example --set 'generate.gates.judges=[\"runs/first\"]'"
            )
        if self.judge != "classifiers" and self.judges:
            raise ValueError(
                f'judges: not used with judge = "{self.judge}"; set judge = "classifiers", or '
                "leave it out"
            )
        return self


class _Generate(Section):
    per_class: PositiveInt = Field(
        3000, description="the number of texts to generate for each class, before the gates"
    )
    lengths: Literal["skewed-normal", "empirical"] = Field(
        "skewed-normal",
        description="how text lengths are drawn: from a skewed normal distribution fitted to the "
        "training rows, or from the lengths of the training rows themselves",
    )
    longest: PositiveInt = Field(128, description="the maximum number of words in a text")
    temperature: PositiveFloat = Field(1.0, description="the sampling temperature")
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] = Field(
        0.95, description="sample from the most likely tokens with this total probability"
    )
    gates: Gates = Field(
        default_factory=Gates, description="the checks that a text must pass to be kept"
    )


class LanguageModelGenerate(_Generate):
    """A language model, adapted to the target text, continues openings of each class."""

    method: Literal["language-model"] = "language-model"
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
    adaptation: Adaptation = Field(
        default_factory=LoraAdaptation,
        description="how the model is adapted to the target text, and its options",
    )
    top_k: NonNegativeInt = Field(
        50, description="sample from this many most likely tokens; 0 samples from all"
    )
    repetition_penalty: PositiveFloat = Field(
        1.3, description="the penalty on tokens that already occur in the text; 1 turns it off"
    )
    batch_rows: PositiveInt = Field(128, description="the number of texts generated at a time")


class EndpointGenerate(_Generate):
    """A server with an OpenAI-compatible API follows an instruction for each text.

    Texts of the target are sent to it as examples of style.
    """

    method: Literal["endpoint"] = "endpoint"
    url: str = Field(description="the address of the API, such as http://127.0.0.1:8080/v1")
    model: str = Field(min_length=1, description="the server's name of the model")
    api_key_env: str | None = Field(
        None,
        description="the name of the environment variable that holds the server's API key; the "
        "key itself does not belong in a recipe",
    )
    instructions: str = Field(
        "default",
        min_length=1,
        description='"default", or a TOML file with an instruction per class, in which {label}, '
        "{words} and {examples} are replaced",
        json_schema_extra={"path": "file"},
    )
    examples: PositiveInt = Field(
        5, description="the number of target texts sent with each instruction, drawn at random"
    )
    concurrency: PositiveInt = Field(4, description="the number of requests at a time")
    timeout: PositiveFloat = Field(120.0, description="the maximum wait for an answer in seconds")

    @field_validator("api_key_env")
    @classmethod
    def _is_a_name(cls, name: str | None) -> str | None:
        if name is not None and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            # It may be the key itself, so it is not repeated.
            raise ValueError(
                "allowed: the name of an environment variable, such as OPENAI_API_KEY, and not the "
                "key itself"
            )
        return name

    @field_validator("url")
    @classmethod
    def _is_plain_address(cls, url: str) -> str:
        try:
            parts = urlsplit(url)
            is_address = parts.scheme in ("http", "https") and bool(parts.hostname)
            is_plain = not (parts.username or parts.password or parts.query or parts.fragment)
            _ = parts.port  # raises a ValueError for a port that is not a number
        except ValueError:
            is_address, is_plain = False, True
        if not is_address or not is_plain:
            # The address may contain a password, so it is not repeated.
            raise ValueError(
                "allowed: an http or https address such as http://127.0.0.1:8080/v1, without a "
                "user name, password or query; name the environment variable that holds the key "
                "in generate.api_key_env"
            )
        return url.rstrip("/")


def _with_method(value: object) -> object:
    """Return a table that selects the local language model unless it selects a method."""
    return {"method": "language-model", **value} if isinstance(value, dict) else value


Generate = Annotated[
    LanguageModelGenerate | EndpointGenerate,
    Field(discriminator="method"),
    BeforeValidator(_with_method),
]
