"""Check texts and pairs of texts that are given in memory, and take them out of tables."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import datasets

from pennyweight.errors import DataError

__all__ = [
    "Text",
    "batches_of",
    "checked_pairs",
    "checked_texts",
    "refuse_single_texts",
    "refuse_tables",
    "texts_of",
    "whole_texts",
]

# A row: one text, or the two texts of a pair.
Text = str | tuple[str, str]
# Rows that are tokenized and sorted by length together where rows are streamed.
_ROWS_PER_CHUNK = 4096


def checked_texts(texts: Iterable[Any], *, first: int = 0) -> list[str]:
    """Return texts as a list.

    Args:
        texts: an iterable of texts.
        first: the number of the first of them, for messages.

    Raises:
        DataError: one text was given alone, or an element is not a text.
    """
    if isinstance(texts, str):
        raise DataError("texts: one text was given where several are expected; put it in a list")
    refuse_tables(texts)
    checked = list(texts)
    for index, text in enumerate(checked, start=first):
        if isinstance(text, tuple):
            raise DataError(
                f"texts: element {index} is a tuple, but this run classifies single texts; give "
                "a string"
            )
        if not isinstance(text, str):
            raise _not_a_text(index, text)
    return checked


def refuse_tables(texts: object) -> None:
    """Refuse a DataFrame or mapping, whose elements are the names of its columns.

    Raises:
        DataError: it is one.
    """
    if isinstance(texts, Mapping) or hasattr(texts, "columns"):
        raise DataError(
            "texts: a table was given where texts are expected; give one of its columns, such as "
            'table["text"]'
        )


def checked_pairs(
    texts: Iterable[Any], columns: tuple[str, str], *, first: int = 0
) -> list[tuple[str, str]]:
    """Return pairs of texts as a list.

    Args:
        texts: an iterable of tuples or lists of two texts.
        columns: names of the columns that held the two texts in training, for messages.
        first: the number of the first pair, for messages.

    Raises:
        DataError: an element is not a pair of texts.
    """
    if isinstance(texts, str):
        texts = [texts]
    checked = []
    for index, pair in enumerate(texts, start=first):
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            one = "one text" if isinstance(pair, str) else f"{pair!r}"
            raise DataError(
                f"texts: element {index} is {one}, but this run classifies pairs of texts; give a "
                f'tuple of two texts for each row: its "{columns[0]}" and its "{columns[1]}"'
            )
        for text in pair:
            if not isinstance(text, str):
                raise _not_a_text(index, text)
        checked.append((pair[0], pair[1]))
    return checked


def batches_of(
    rows: datasets.Dataset, *, are_pairs: bool
) -> Iterator[list[str] | list[tuple[str, str]]]:
    """Yield the texts, or the pairs of texts, of a table, some thousand at a time.

    Raises:
        DataError: the rows are pairs of texts and should not be, or the reverse.
    """
    if ("text_pair" in rows.column_names) != are_pairs:
        expected, given = ("pairs of texts", "single texts")[:: 1 if are_pairs else -1]
        raise DataError(f"the run classifies {expected}, and these rows are {given}")
    if not are_pairs:
        yield from (batch["text"] for batch in rows.select_columns("text").iter(_ROWS_PER_CHUNK))
        return
    for batch in rows.select_columns(["text", "text_pair"]).iter(_ROWS_PER_CHUNK):
        yield list(zip(batch["text"], batch["text_pair"], strict=True))


def texts_of(table: datasets.Dataset) -> list[str]:
    """Return the texts of a table; the two texts of a pair are joined by a space."""
    texts: list[str] = table["text"][:]
    if "text_pair" not in table.column_names:
        return texts
    return whole_texts(list(zip(texts, table["text_pair"][:], strict=True)))


def whole_texts(texts: Sequence[str] | Sequence[tuple[str, str]]) -> list[str]:
    """Return texts; the two texts of a pair are joined by a space."""
    return [text if isinstance(text, str) else " ".join(text) for text in texts]


def refuse_single_texts(columns: tuple[str, str] | None, *, name: str) -> None:
    """Refuse texts from a command line or from lines, where a run needs pairs.

    Args:
        columns: names of the columns with the two texts of a pair; None for a run on single texts.
        name: where the texts come from.

    Raises:
        DataError: the run is on pairs of texts.
    """
    if columns is not None:
        raise DataError(
            f"{name}: this run classifies pairs of texts, and these are single texts; use a CSV "
            f'or JSON Lines file with the columns "{columns[0]}" and "{columns[1]}", as in '
            "--data pairs.csv"
        )


def _not_a_text(index: int, value: object) -> DataError:
    return DataError(
        f"texts: element {index} is {value!r} of type {type(value).__name__}, not a text; "
        "leave it out, or replace it by a string"
    )
