"""Filters of training rows.

A filter is one entry in `FILTERS`: a function from texts, labels and its own options to a mask of
the rows to keep. The caller drops the other rows, and can report them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from types import MappingProxyType
from typing import Any

import numpy as np

from pennyweight.data.near import NearIndex, sketch_blocks
from pennyweight.data.overlap import digests_of, folded
from pennyweight.errors import DataError
from pennyweight.lab.language_model import LanguageModel
from pennyweight.lab.text_models import out_of_fold, tfidf_pipeline

__all__ = ["FILTERS", "Filter", "keep_rows", "near_duplicates"]

Mask = np.ndarray


@dataclass(frozen=True, slots=True)
class Filter:
    """One filter: its name in recipes, what it removes, its function, and the paper."""

    name: str
    summary: str
    keeps: Callable[..., Mask]
    paper: str = ""


def keep_rows(
    texts: Sequence[str], labels: np.ndarray, *, method: str, seed: int, options: Mapping[str, Any]
) -> Mask:
    """Return which rows a filter keeps, bool `[rows]`.

    Args:
        texts: cleaned texts.
        labels: int64 `[rows]`.
        method: a name in `FILTERS`.
        seed: of the filter's random choices.
        options: the filter's own options.

    Raises:
        DataError: a class has too few rows for the filter, or a library or model is missing.
    """
    return FILTERS[method].keeps(texts, labels, seed=seed, **options)


def near_duplicates(
    texts: Iterable[str], *, similarity: float, others: Iterable[str] = ()
) -> np.ndarray:
    """Return which texts are near a text that is kept before them or one of the others.

    Similarities are estimated by MinHash over pairs of words (Broder 1997). Candidates come from
    locality-sensitive hashing, which can miss a pair close to the threshold. Memory is bounded,
    as `NearIndex` says, and the texts themselves are not held.

    Args:
        texts: in the order in which they are kept.
        similarity: Jaccard similarity from which two texts are near duplicates, in 0..1.
        others: texts that are kept in any case.

    Returns:
        bool `[texts]`.
    """
    index = NearIndex(similarity)
    for sketches in sketch_blocks(map(folded, others)):
        index.add(sketches)
    near = [index.add_new(sketches) for sketches in sketch_blocks(map(folded, texts))]
    return np.concatenate([np.empty(0, dtype=bool), *near])


def _length(
    texts: Sequence[str], labels: np.ndarray, *, seed: int, shortest: int, longest: int
) -> Mask:
    words = np.array([len(text.split()) for text in texts])
    return (shortest <= words) & (words <= longest)


def _duplicates(texts: Sequence[str], labels: np.ndarray, *, seed: int) -> Mask:
    _, firsts = np.unique(digests_of(map(folded, texts)), return_index=True)
    kept = np.zeros(len(texts), dtype=bool)
    kept[firsts] = True
    return kept


def _near(texts: Sequence[str], labels: np.ndarray, *, seed: int, similarity: float) -> Mask:
    return ~near_duplicates(texts, similarity=similarity)


def _label_noise(texts: Sequence[str], labels: np.ndarray, *, seed: int, folds: int) -> Mask:
    if find_spec("cleanlab") is None:
        raise DataError(
            "data.filters: \"label-noise\" needs cleanlab; pip install 'pennyweight[lab]'"
        )
    from cleanlab.filter import find_label_issues
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(max_iter=1000)
    probabilities = _out_of_fold(model, texts, labels, folds=folds, seed=seed)
    issues: np.ndarray = find_label_issues(labels, probabilities, n_jobs=1)
    return ~issues


def _agreement(texts: Sequence[str], labels: np.ndarray, *, seed: int, folds: int) -> Mask:
    from sklearn.linear_model import LogisticRegression
    from sklearn.naive_bayes import ComplementNB

    first, second = (
        _out_of_fold(model, texts, labels, folds=folds, seed=seed).argmax(axis=1)
        for model in (LogisticRegression(max_iter=1000), ComplementNB())
    )
    return ~((first == second) & (first != labels))


def _out_of_fold(
    model: Any, texts: Sequence[str], labels: np.ndarray, *, folds: int, seed: int
) -> np.ndarray:
    """Return class probabilities from models that were not fitted on the row, `[rows, classes]`."""
    fewest = int(np.bincount(labels).min())
    if fewest < folds:
        raise DataError(
            f"data.filters: folds: given {folds}, but the smallest class has {fewest} rows; every "
            "fold needs a row of every class, so use fewer folds or add rows"
        )
    return out_of_fold(tfidf_pipeline(model), list(texts), labels, folds=folds, seed=seed)


def _perplexity(
    texts: Sequence[str], labels: np.ndarray, *, seed: int, model: str, share: float
) -> Mask:
    perplexities = LanguageModel.load(model).perplexities(texts)
    return perplexities <= np.quantile(perplexities, 1.0 - share)


FILTERS: Mapping[str, Filter] = MappingProxyType(
    {
        entry.name: entry
        for entry in (
            Filter("length", "texts with too few or too many words", _length),
            Filter("duplicates", "exact copies of an earlier text", _duplicates),
            Filter("near-duplicates", "near duplicates of an earlier text", _near, "Broder 1997"),
            Filter(
                "label-noise", "rows whose label is probably wrong (confident learning)",
                _label_noise,
                "Northcutt et al. 2021, arXiv:1911.00068",
            ),
            Filter(
                "agreement", "rows for which two cross-validated classifiers agree on a "
                "different label", _agreement,
            ),
            Filter("perplexity", "texts with the highest perplexity under a language model",
                   _perplexity),
        )
    }
)  # fmt: skip
