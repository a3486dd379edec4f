"""Truncation of long rows: what is kept, and how much is cut."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from pennyweight.engine.batches.rows import TokenizedRows
from pennyweight.errors import DataError

__all__ = ["CutReport", "Truncation", "cut_report", "head_and_tail"]

Truncation = Literal["head", "head-tail"]


@dataclass(frozen=True, slots=True)
class CutReport:
    """How much of some rows is cut by truncation.

    Attributes:
        rows: number of rows.
        cut_rows: number of rows that are cut.
        token_share: share of all tokens that are cut, from 0 to 1.
        max_tokens: length to which rows are cut.
    """

    rows: int
    cut_rows: int
    token_share: float
    max_tokens: int

    def describe(self, name: str) -> str:
        """Return one sentence about the set called `name`; "" if no row is cut."""
        if not self.cut_rows:
            return ""
        return (
            f"{_percent(self.cut_rows / self.rows)} of the {name} rows are longer than "
            f"{self.max_tokens} tokens and are cut, which removes {_percent(self.token_share)} of "
            "all tokens (data.max_tokens, data.truncation)"
        )


def cut_report(rows: TokenizedRows, *, max_tokens: int) -> CutReport:
    """Return how many rows, and what share of their tokens, are cut.

    Args:
        rows: rows that `tokenize` or `tokenize_texts` returned.
        max_tokens: the limit to which they were cut.
    """
    full = rows.lengths if rows.full_lengths is None else rows.full_lengths
    total = int(full.sum())
    return CutReport(
        rows=len(rows),
        cut_rows=int((full > rows.lengths).sum()),
        token_share=1.0 - int(rows.lengths.sum()) / total if total else 0.0,
        max_tokens=max_tokens,
    )


def head_and_tail(encoding: Any, max_tokens: int) -> np.ndarray:
    """Return the positions of the tokens that are kept of a long row, ascending.

    All special tokens are kept, and of each text as many of the first tokens as of the last. Of a
    pair, the longer text is cut first, as by the tokenizer's "longest_first".

    Args:
        encoding: the row's untruncated encoding, of the library tokenizers.
        max_tokens: number of tokens to keep.

    Raises:
        DataError: there is no room for a token besides the special ones.
    """
    # None for special tokens, otherwise which text of the pair a token is of.
    texts = np.array([-1 if text is None else text for text in encoding.sequence_ids])
    room = max_tokens - int((texts < 0).sum())
    if room < 1:
        raise DataError(
            f"data.max_tokens: {max_tokens} leaves no room for a text besides the special tokens; "
            "raise it"
        )
    positions = [np.flatnonzero(texts == text) for text in (0, 1)]
    first, second = (len(each) for each in positions)
    kept_second = min(second, max(room // 2, room - first))
    sizes = (min(first, room - kept_second), kept_second)
    parts = [np.flatnonzero(texts < 0)]
    for each, size in zip(positions, sizes, strict=True):
        head = size - size // 2
        parts += [each[:head], each[len(each) - size // 2 :]]
    return np.sort(np.concatenate(parts))


def _percent(share: float) -> str:
    return "less than 1%" if share < 0.005 else f"{share:.0%}"
