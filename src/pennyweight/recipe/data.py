"""The `[data]` section: the rows, how they are read, and how they are prepared."""

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
from pennyweight.data.scale import MANY_ROWS
from pennyweight.errors import RecipeError
from pennyweight.recipe.lab import Augmentation, Filter
from pennyweight.section import Section

__all__ = ["Data", "Source", "SourceTable"]


def _table_of(value: object) -> object:
    return {"location": value} if isinstance(value, str) else value


class SourceTable(Section):
    """A source of rows. A plain string is short for a table with only `location`."""

    location: str = Field(
        min_length=1,
        description='a file or directory, "hub:NAME[:SPLIT]", or "sample:SPLIT"',
        json_schema_extra={"path": "source"},
    )
    format: str | None = Field(
        None, description="the file format; detected from the file if not set"
    )
    text_columns: tuple[str, ...] | None = Field(
        None,
        min_length=1,
        strict=False,
        description="the columns that hold the text; several are joined with a space",
    )
    label_column: str | None = Field(None, description="the column that holds the label")
    revision: str | None = Field(
        None, description="the commit, tag or branch of a data set on the hub"
    )
    pair_columns: tuple[str, str] | None = Field(
        None,
        strict=False,
        description="the two columns that hold the texts of a pair, such as a premise and a "
        "hypothesis",
        json_schema_extra={"allowed": "a list of two column names"},
    )
    label_columns: tuple[str, ...] | None = Field(
        None,
        min_length=2,
        strict=False,
        description="columns of 0 and 1, one for each class of a multi-label task; the classes "
        "are called like the columns",
    )

    @model_validator(mode="after")
    def _columns_do_not_contradict(self) -> SourceTable:
        if self.text_columns and self.pair_columns:
            raise ValueError(
                "both text_columns and pair_columns are set; text_columns are joined into one "
                "text, pair_columns are the two texts of a pair: leave one of them out"
            )
        if self.label_column and self.label_columns:
            raise ValueError("both label_column and label_columns are set; leave one of them out")
        return self

    @model_serializer(mode="wrap")
    def _plain_string_if_possible(self, handler: SerializerFunctionWrapHandler) -> object:
        table: dict[str, object] = {k: v for k, v in handler(self).items() if v is not None}
        return table["location"] if set(table) == {"location"} else table


Source = Annotated[
    SourceTable,
    BeforeValidator(_table_of),
    Field(
        json_schema_extra={
            "path": "source",
            "allowed": 'a file, "hub:NAME[:SPLIT]" or "sample:SPLIT", or a table with "location"',
        }
    ),
]


class Data(Section):
    """The training, validation and target rows, and how they are prepared."""

    train: Source | None = Field(None, description="the labelled training rows")
    validation: Source | None = Field(
        None,
        description="the labelled validation rows; if not set, they are held out from the "
        "training rows",
    )
    task: Literal["auto", "single-label", "multi-label"] = Field(
        "auto",
        description="whether each row has exactly one label, or any number of them; inferred from "
        "the training rows by default",
    )
    labels: tuple[str, ...] | None = Field(
        None,
        min_length=2,
        strict=False,
        description="the names of the classes, in the order of their indices; inferred from the "
        "training rows if not set",
    )
    label_separator: str | None = Field(
        None,
        min_length=1,
        description='what joins the names of several labels in one column, such as ";"',
    )
    validation_fraction: Annotated[float, Field(ge=0.0, lt=1.0)] | Literal["auto"] = Field(
        0.05,
        description="the fraction of the training rows that is held out for validation; 0 for none",
        json_schema_extra={"allowed": 'a number from 0 to below 1, or "auto"'},
    )
    split: Literal["auto", "stratified", "hash"] = Field(
        "auto",
        description="how held-out rows are chosen: with the same share of every class, or by a "
        "hash of each row's text, which ignores all other rows; by default, by hash where there "
        f"are more than {MANY_ROWS:,} training rows",
    )
    train_rows: PositiveInt | None = Field(
        None,
        description="train on a random sample of this many rows; if not set, on all of them",
    )
    max_tokens: Annotated[int, Field(ge=4)] | Literal["auto"] = Field(
        256,
        description="the maximum sequence length; longer texts are truncated",
        json_schema_extra={"allowed": 'a whole number from 4, or "auto"'},
    )
    truncation: Literal["head", "head-tail"] = Field(
        "head",
        description="which tokens of a longer text are kept: the first ones, or as many of the "
        "first as of the last (arXiv:1905.05583)",
    )
    target: Source | None = Field(
        None,
        description="unlabelled text from the domain in which the model will be used; any labels "
        "in it are ignored",
    )
    clean: tuple[str, ...] = Field(
        (),
        strict=False,
        description="the cleaning steps, in order; applied to every set, and again at inference",
    )
    filters: tuple[Filter, ...] = Field(
        (), strict=False, description="filters that remove training rows, applied in order"
    )
    augmentations: tuple[Augmentation, ...] = Field(
        (), strict=False, description="augmentations that add modified copies of training rows"
    )
    extra: tuple[str, ...] = Field(
        (),
        strict=False,
        description="Parquet files written by `pennyweight data`, to be added to the training rows",
        json_schema_extra={"path": "path"},
    )
    on_bad_row: Literal["stop", "set-aside"] = Field(
        "stop",
        description="whether a row that cannot be used stops the run or is set aside in the run "
        "directory",
    )
    overlap: Literal["remove", "keep", "refuse"] = Field(
        "remove",
        description="what to do with training rows whose text also occurs in the validation rows "
        "or in an evaluation set",
    )
    near_duplicate_similarity: Annotated[float, Field(gt=0.0, le=1.0)] = Field(
        0.8,
        description="the minimum Jaccard similarity at which two texts of different sets are "
        "counted as near duplicates",
    )

    @property
    def label_names(self) -> tuple[str, ...]:
        """The labels of a complete recipe.

        Raises:
            RecipeError: they are not set.
        """
        if self.labels is None:
            raise RecipeError(
                "data.labels: not set; list the names of the classes, for example "
                '--set \'data.labels=["spam", "ham"]\''
            )
        return self.labels

    @field_validator("clean")
    @classmethod
    def _cleaning_steps_exist(cls, steps: tuple[str, ...]) -> tuple[str, ...]:
        for step in steps:
            if step not in STEPS:
                raise ValueError(f'no cleaning step "{step}"; available: {", ".join(STEPS)}')
        return steps

    @model_validator(mode="after")
    def _labels_are_distinct(self) -> Data:
        if self.labels is not None and len(set(self.labels)) != len(self.labels):
            raise ValueError("data.labels contains a name twice; give each class its own name")
        if self.label_separator is not None and self.task == "single-label":
            raise ValueError(
                'data.label_separator: set, but data.task is "single-label"; leave it out, or set '
                'data.task = "multi-label"'
            )
        return self
