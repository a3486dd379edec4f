"""The facts about base and rows from which a recipe's "auto" keys are derived."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, TypeVar

import datasets
import numpy as np

from pennyweight.base import BaseModel
from pennyweight.data.infer import Inferred
from pennyweight.data.ingest import read_rows
from pennyweight.defaults.rules import Facts
from pennyweight.errors import BaseModelError
from pennyweight.model.build import load_tokenizer
from pennyweight.recipe import Recipe
from pennyweight.runs.directory import RunDirectory
from pennyweight.runs.record import load_record
from pennyweight.settings.assemble import read_options, source_of

_Value = TypeVar("_Value", int, float)

__all__ = ["read_facts"]

# Lengths are estimated from this many rows, spread over the file.
_SAMPLE = 2_000
_SHARE = 98
# For a base whose tokenizer is not at hand.
_TOKENS_PER_WORD = 1.4
# Of a config that states none, such as that of an encoder with relative positions.
_LONGEST_INPUT = 512


def read_facts(recipe: Recipe, base: BaseModel, inferred: Inferred) -> Facts:
    """Return what the rules know about a recipe.

    Args:
        recipe: with its labels, task and columns.
        base: its base.
        inferred: what was inferred from the training rows.

    Raises:
        DataError: the training rows cannot be read.
    """
    assert recipe.data.train is not None  # noqa: S101 - the labels were inferred from it
    rows = read_rows("train", source_of(recipe.data.train), read_options(recipe))
    counts, drawn = inferred.counts, recipe.data.train_rows
    lengths = _lengths(rows.table, base, tokenizer=recipe.base.tokenizer)
    return Facts(
        rows=len(rows.table) if drawn is None else min(drawn, len(rows.table)),
        file_rows=None if drawn is None else len(rows.table),
        validation_fraction=_settled(recipe.data.validation_fraction),
        start_validation_fraction=_start_validation_fraction(recipe),
        classes=len(inferred.labels),
        rows_by_class=counts,
        length=_most(lengths),
        mean_length=float(lengths.mean()),
        target_length=_target_length(recipe, base, pairs=rows.are_pairs),
        longest_input=_longest_input(base.config),
        own_validation_rows=_own_validation_rows(recipe),
        is_multi_label=inferred.task == "multi-label",
        hidden=int(base.config.hidden_size),
        budget=recipe.budget.trainable_parameters,
        is_pooled=recipe.base.pooling != "native",
        epochs=_settled(recipe.train.epochs),
        contrastive=_settled(recipe.train.contrastive),
        batch_rows=_settled(recipe.train.batch_rows),
    )


def _settled(value: _Value | Literal["auto"]) -> _Value | None:
    """Return the value that a recipe sets; None where it is derived."""
    return None if value == "auto" else value


def _start_validation_fraction(recipe: Recipe) -> float | None:
    """Return the fraction of the run that training starts from, if its rows were split likewise."""
    start = recipe.train.start_from
    if start is None or not RunDirectory(Path(start)).record.is_file():
        return None
    fraction = load_record(Path(start)).recipe.data.validation_fraction
    return fraction if isinstance(fraction, float) else None


def _own_validation_rows(recipe: Recipe) -> int | None:
    if recipe.data.validation is None:
        return None
    source = source_of(recipe.data.validation)
    return len(read_rows("validation", source, read_options(recipe)).table)


def _target_length(recipe: Recipe, base: BaseModel, *, pairs: bool) -> int:
    """Return the length of most texts of the target; 0 without one."""
    if recipe.data.target is None:
        return 0
    options = replace(read_options(recipe), pairs=pairs)
    rows = read_rows("target", source_of(recipe.data.target), options, labelled=False)
    return _most(_lengths(rows.table, base, tokenizer=recipe.base.tokenizer))


def _most(lengths: np.ndarray) -> int:
    """Return the number of tokens that most texts do not exceed."""
    return int(np.ceil(np.percentile(lengths, _SHARE)))


def _lengths(table: datasets.Dataset, base: BaseModel, *, tokenizer: str | None) -> np.ndarray:
    """Return the number of tokens of a sample of the texts, special tokens included."""
    step = max(1, len(table) // _SAMPLE)
    sample = table.select(range(0, len(table), step))
    columns = [sample["text"][:]]
    if "text_pair" in sample.column_names:
        columns.append(sample["text_pair"][:])
    try:
        return _token_lengths(load_tokenizer(base, tokenizer=tokenizer), columns)
    except BaseModelError:
        words = np.array([[len(text.split()) for text in column] for column in columns])
        estimated: np.ndarray = _TOKENS_PER_WORD * words.sum(axis=0) + 2
        return estimated


def _token_lengths(tokenizer: Any, columns: Sequence[list[str]]) -> np.ndarray:
    encoded = tokenizer(*columns, truncation=False, return_attention_mask=False, verbose=False)
    return np.array([len(ids) for ids in encoded["input_ids"]])


def _longest_input(config: Any) -> int:
    positions = getattr(config, "max_position_embeddings", None) or _LONGEST_INPUT
    # Position ids of RoBERTa's kind start after the padding id.
    starts_late = config.model_type in ("roberta", "xlm-roberta", "camembert", "mpnet")
    return int(positions) - (int(config.pad_token_id) + 1 if starts_late else 0)
