"""Read rows for a classifier block by block, so that memory does not grow with their number."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from pennyweight.data.label import BadRow
from pennyweight.data.read import Record
from pennyweight.data.row import Row, RowParser
from pennyweight.inference.layout import Layout

__all__ = ["RowBlock", "row_blocks"]

# Rows that are tokenized and sorted by length together.
_ROWS_PER_BLOCK = 4096
_BYTES_PER_BLOCK = 64 * 2**20


@dataclass(slots=True)
class RowBlock:
    """Some usable rows, in their order.

    Attributes:
        numbers: the number of each row in its source, counted from 1.
        texts: the texts, or pairs of texts, cleaned as in training.
        copied: values of the columns that are copied to the output.
        others: what is written of each row beside these columns; see `Layout.others_in`.
    """

    numbers: list[int] = field(default_factory=list)
    texts: list[str] | list[tuple[str, str]] = field(default_factory=list)
    copied: dict[str, list[object]] = field(default_factory=dict)
    others: list[dict[str, object]] = field(default_factory=list)


def row_blocks(
    records: Iterable[Record],
    parser: RowParser,
    layout: Layout,
    *,
    on_bad_row: Callable[[Record, BadRow], None],
) -> Iterator[RowBlock]:
    """Yield the usable rows in blocks of some thousand, which depend on the records alone.

    Args:
        records: of one file.
        parser: of that file.
        layout: of the output.
        on_bad_row: is called with each row that cannot be used; it may raise an error.
    """
    block = RowBlock(copied={name: [] for name in layout.copied})
    texts: list[Row] = []
    size = 0
    for record in records:
        try:
            row, others = parser(record), layout.others_in(record.values or {})
        except BadRow as problem:
            on_bad_row(record, problem)
            continue
        texts.append(row)
        block.numbers.append(record.number)
        block.others.append(others)
        values = record.values or {}
        for name, column in block.copied.items():
            column.append(values.get(name))
        size += len(record.source or row.text)
        if len(texts) == _ROWS_PER_BLOCK or size > _BYTES_PER_BLOCK:
            yield _with_texts(block, texts)
            block, texts, size = RowBlock(copied={name: [] for name in layout.copied}), [], 0
    if texts:
        yield _with_texts(block, texts)


def _with_texts(block: RowBlock, rows: list[Row]) -> RowBlock:
    if rows[0].text_pair is None:
        block.texts = [row.text.decode() for row in rows]
    else:
        block.texts = [(row.text.decode(), (row.text_pair or b"").decode()) for row in rows]
    return block
