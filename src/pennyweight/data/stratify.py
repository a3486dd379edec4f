"""Choose validation rows so that every class has its share of them.

A row with several labels counts for the rarest of them. A class with a single row keeps it for
training.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    import datasets

__all__ = ["label_counts", "label_lists", "largest_split", "split_rows", "strata_of"]


_BATCH_ROWS = 1000


def label_lists(table: datasets.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Return the labels of all rows, concatenated, and the number of labels of each row, int64.

    A row of a single-label task has one, which is -1 if it is unlabelled.
    """
    # In batches, because datasets makes an object of hundreds of bytes for each selected row.
    batches = table.select_columns(["label"]).with_format("arrow").iter(batch_size=_BATCH_ROWS)
    parts = [batch["label"].combine_chunks() for batch in batches]
    kind = table.data.schema.field("label").type
    column = pa.chunked_array(parts, kind).combine_chunks()
    if not pa.types.is_list(column.type):
        labels = np.asarray(column, dtype=np.int64)
        return labels, np.ones(len(labels), dtype=np.int64)
    sizes = np.asarray(pc.list_value_length(column), dtype=np.int64)
    return np.asarray(column.flatten(), dtype=np.int64), sizes


def label_counts(table: datasets.Dataset, classes: int) -> np.ndarray:
    """Return the number of rows with each label, int64 `[classes]`."""
    labels, _ = label_lists(table)
    counts: np.ndarray = np.bincount(labels[labels >= 0], minlength=classes)
    return counts


def strata_of(table: datasets.Dataset, classes: int) -> np.ndarray:
    """Return the rarest label of each row, int64 `[rows]`; -1 for a row without labels."""
    labels, sizes = label_lists(table)
    if len(labels) == len(sizes) and (sizes == 1).all():
        return labels
    # The place of each label when all are sorted from rare to frequent.
    by_rarity = np.argsort(label_counts(table, classes), kind="stable")
    places = np.empty(classes, dtype=np.int64)
    places[by_rarity] = np.arange(classes)
    rarest = np.full(len(sizes), classes, dtype=np.int64)
    rows = np.repeat(np.arange(len(sizes)), sizes)
    is_label = labels >= 0
    np.minimum.at(rarest, rows[is_label], places[labels[is_label]])
    return np.append(by_rarity, -1)[rarest]


def largest_split(strata: np.ndarray) -> tuple[int, int]:
    """Return how many rows can be split off if every class keeps one, and the classes they are of.

    Args:
        strata: the class of each row.
    """
    _, counts = np.unique(strata, return_counts=True)
    return int((counts - 1).sum()), int((counts > 1).sum())


def split_rows(strata: np.ndarray, rows: int, *, seed: int) -> np.ndarray:
    """Return the indices of the rows that are split off, ascending, int64 `[rows]`.

    Each class has its share of them as nearly as whole rows allow, and keeps at least one row.

    Args:
        strata: the class of each row.
        rows: number of rows to split off, at most `largest_split`.
        seed: seed of the draw.
    """
    # Imported here because scikit-learn takes long to load, and the run record imports this module.
    from sklearn.model_selection import train_test_split

    classes, inverse, counts = np.unique(strata, return_inverse=True, return_counts=True)
    candidates = np.flatnonzero(counts[inverse] > 1)
    divided = int((counts > 1).sum())
    if rows == 0:
        return np.empty(0, dtype=np.int64)
    if divided <= rows <= len(candidates) - divided:
        _, chosen = train_test_split(
            candidates, test_size=rows, stratify=strata[candidates], random_state=seed
        )
        return np.sort(chosen)
    quotas = _quotas(counts, rows)
    generator = np.random.default_rng((seed, 2))
    parts = [
        generator.permutation(np.flatnonzero(inverse == position))[: quotas[position]]
        for position in range(len(classes))
        if quotas[position]
    ]
    return np.sort(np.concatenate(parts))


def _quotas(counts: np.ndarray, rows: int) -> np.ndarray:
    """Return how many rows of each class are split off, by the largest remainder."""
    most = counts - 1
    shares = rows * most / most.sum()
    quotas = np.minimum(np.floor(shares).astype(np.int64), most)
    while (missing := rows - int(quotas.sum())) > 0:
        remainders = np.where(quotas < most, shares - quotas, -np.inf)
        chosen = np.argsort(-remainders, kind="stable")[:missing]
        quotas[chosen[remainders[chosen] > -np.inf]] += 1
    return quotas
