"""The JSON of requests and answers; the OpenAPI description is made from it."""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Len
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, Strict

from pennyweight.serve.catalog import NAME_PATTERN

__all__ = [
    "ClassifierDescription",
    "ClassifierList",
    "ClassifyAnswer",
    "ClassifyRequest",
    "ErrorAnswer",
    "ExplainAnswer",
    "ExplainRequest",
    "LabelProbability",
    "LoadNamedRequest",
    "LoadRequest",
    "PredictItem",
    "PredictRequest",
    "TextAnswer",
    "VllmAnswer",
    "VllmItem",
    "VllmRequest",
    "WordEffect",
]


def _valid(text: str) -> str:
    """Return a text of whole characters.

    Raises:
        ValueError: it has half a surrogate pair, which JSON can hold and UTF-8 cannot.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("it has half of a surrogate pair, which is not a character") from None
    return text


_String = Annotated[str, AfterValidator(_valid)]
_Pair = Annotated[list[_String], Len(2, 2)]
_Text = _String | _Pair
_TEXT = "A text; for a classifier on pairs of texts, a list of two."
_NAME = Annotated[str, Field(pattern=NAME_PATTERN)]
_DIRECTORY = Field(
    min_length=1,
    description="A run's directory, relative to the folder that the server may load from.",
)


class _Request(BaseModel):
    """A request in a shape of our own, in which an unknown key is a mistake."""

    model_config = ConfigDict(extra="forbid")


class ErrorAnswer(BaseModel):
    """Every error."""

    error: str = Field(description="What was wrong, and how to go on.")
    error_type: str


class ClassifyRequest(_Request):
    """Texts to classify."""

    texts: list[_Text] = Field(min_length=1, description=_TEXT)
    classifier: _String | list[_String] | None = Field(
        None,
        description="The name of the classifier, or a list with a name for each text. Not needed "
        "where only one is loaded.",
    )
    top_k: Annotated[int, Strict()] | None = Field(
        None, ge=1, description="Answer with the most probable labels only; all if not given."
    )


class LabelProbability(BaseModel):
    """A class of a text."""

    label: str
    probability: float


class TextAnswer(BaseModel):
    """The answer to one text."""

    classifier: str
    labels: list[str] = Field(
        description="The label, or for a multi-label classifier all labels, most probable first."
    )
    probabilities: list[LabelProbability] = Field(description="Most probable first.")


class ClassifyAnswer(BaseModel):
    """The answers, in the order of the texts."""

    results: list[TextAnswer]


class ExplainRequest(_Request):
    """A text whose words are left out one after another."""

    text: _Text = Field(description=_TEXT)
    classifier: _String | None = Field(None, description="Not needed where only one is loaded.")
    label: _String | None = Field(
        None, description="The class to explain; the most probable one if not given."
    )


class WordEffect(BaseModel):
    """How much a word, or some consecutive words of a long text, adds to the probability."""

    part: int = Field(description="The index of the text in a pair; otherwise 0.")
    start: int = Field(description="The index of the first character (Unicode code point).")
    stop: int = Field(description="The index behind the last character.")
    words: str
    effect: float = Field(
        description="The probability of the label with the words, less the probability without."
    )


class ExplainAnswer(BaseModel):
    """The effect of each word on the probability of a label."""

    classifier: str
    label: str
    probability: float
    method: Literal["occlusion"] = "occlusion"
    words: list[WordEffect]


class ClassifierDescription(BaseModel):
    """A classifier that is loaded."""

    name: str
    labels: list[str]
    task: str
    thresholds: list[float] | None = Field(
        description="The probability from which a text has a label, of a multi-label classifier."
    )
    pair_columns: list[str] | None = Field(
        description="The names of the two texts of a pair; null if a text is given alone."
    )
    trainable_parameters: int
    bytes: int


class ClassifierList(BaseModel):
    """All classifiers."""

    classifiers: list[ClassifierDescription]


class LoadNamedRequest(_Request):
    """A run to load under the name in the path."""

    directory: _String = _DIRECTORY


class LoadRequest(_Request):
    """A run to load."""

    directory: _String = _DIRECTORY
    name: _NAME | None = Field(None, description="The name of the directory if not given.")


class PredictRequest(BaseModel):
    """A request to text-embeddings-inference's `/predict`."""

    inputs: (
        _String
        | Annotated[list[_String], Len(1, 2)]
        | Annotated[list[Annotated[list[_String], Len(1, 2)]], Len(1)]
    ) = Field(
        description="A text, a pair of texts [text, text], or a batch [[text], [text, text], ...]."
    )
    truncate: bool = Field(
        False,
        description="Accepted, and without effect: long texts are always truncated as the run's "
        "training rows were.",
    )
    raw_scores: bool = Field(
        False,
        description="Answer with logits. Those of a single-label classifier are log-probabilities, "
        "which are its logits up to a constant in each text.",
    )
    model: _String | None = Field(
        None,
        description="The name of the classifier, which text-embeddings-inference does not have. "
        "Not needed where only one is loaded.",
    )


class PredictItem(BaseModel):
    """A class of a text."""

    score: float
    label: str


class VllmRequest(BaseModel):
    """A request to vLLM's classification endpoint."""

    model: _String | None = Field(
        None, description="The name of the classifier. Not needed where only one is loaded."
    )
    input: _String | Annotated[list[_String], Len(1)]


class VllmItem(BaseModel):
    """The answer to one text."""

    index: int
    label: str
    probs: list[float] = Field(description="In the order of the classifier's labels.")
    num_classes: int


class VllmAnswer(BaseModel):
    """The answers, in the order of the texts."""

    id: str
    object: Literal["list"] = "list"
    created: int
    model: str
    data: list[VllmItem]
