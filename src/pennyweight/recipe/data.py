"""`[data]`: which rows, how they are read, and what is done to them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import (
    BeforeValidator,
    Field,
    PositiveInt,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from pennyweight.data.clean import STEPS
from pennyweight.recipe.lab import Augmentation, Filter
from pennyweight.recipe.section import Section

__all__ = ["Data", "Source", "SourceTable"]


def _source_from_text(value: object) -> object:
    return {"location": value} if isinstance(value, str) else value


class SourceTable(Section):
    """Where rows come from, as a table; a plain string stands for its `location` alone."""

    location: str = Field(min_length=1, description='a file, "hub:NAME[:SPLIT]", "sample:SPLIT"')
    format: str | None = Field(None, description="a reader's name; left out, told from the file")
    text_columns: tuple[str, ...] | None = Field(
        None, min_length=1, strict=False, description="columns joined by a space into the text"
    )
    label_column: str | None = Field(None, description="the column that holds the label")
    revision: str | None = Field(None, description="commit, tag or branch of a hub data set")

    @model_serializer(mode="wrap")
    def _as_text_when_plain(self, handler: SerializerFunctionWrapHandler) -> object:
        table: dict[str, object] = {k: v for k, v in handler(self).items() if v is not None}
        return table["location"] if set(table) == {"location"} else table


Source = Annotated[
    SourceTable,
    BeforeValidator(_source_from_text),
    Field(
        json_schema_extra={
            "allowed": 'a file, "hub:NAME[:SPLIT]" or "sample:SPLIT", or a table with "location"'
        }
    ),
]


class Data(Section):
    """`[data]`: rows, labels, cleaning, split and leak checks."""

    train: Source | None = Field(None, description="labelled training rows")
    validation: Source | None = Field(
        None, description="labelled validation rows; left out, they are split off the training rows"
    )
    labels: tuple[str, ...] = Field(
        ("World", "Sports", "Business", "Sci/Tech"),
        min_length=2,
        strict=False,
        description="the classes' names, in the order of their indices",
    )
    validation_fraction: Annotated[float, Field(gt=0.0, lt=1.0)] = Field(
        0.05, description="share of the training rows that is split off, stratified by class"
    )
    train_rows: PositiveInt | None = Field(
        None, description="train on this many rows, drawn by the seed; left out, on all"
    )
    max_tokens: Annotated[int, Field(ge=4)] = Field(
        256, description="longer texts are cut to this many tokens"
    )
    target: Source | None = Field(
        None,
        description="unlabelled text from where the model will be used; no label of it is read",
    )
    clean: tuple[str, ...] = Field((), strict=False, description="cleaning steps by name, in order")
    filters: tuple[Filter, ...] = Field(
        (), strict=False, description="what takes training rows out, in order"
    )
    augmentations: tuple[Augmentation, ...] = Field(
        (), strict=False, description="what adds changed copies of training rows"
    )
    extra: tuple[str, ...] = Field(
        (),
        strict=False,
        description="Parquet files that `pennyweight data` has made, added to the training rows",
    )
    on_bad_row: Literal["stop", "set-aside"] = Field(
        "stop", description="what a row that cannot be used does to the run"
    )
    overlap: Literal["remove", "keep", "refuse"] = Field(
        "remove", description="training rows that stand exactly in a held-out set"
    )
    near_duplicate_similarity: Annotated[float, Field(gt=0.0, le=1.0)] = Field(
        0.8, description="Jaccard similarity from which two texts count as near duplicates"
    )

    @field_validator("clean")
    @classmethod
    def _clean_steps_exist(cls, steps: tuple[str, ...]) -> tuple[str, ...]:
        for step in steps:
            if step not in STEPS:
                raise ValueError(f'no cleaning step "{step}"; there are {", ".join(STEPS)}')
        return steps

    @model_validator(mode="after")
    def _labels_differ(self) -> Data:
        if len(set(self.labels)) != len(self.labels):
            raise ValueError("two of data.labels are the same name; each class needs its own")
        return self
