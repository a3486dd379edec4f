"""Filters of training rows: each says which rows it would keep, and nothing is lost silently.

A filter is one entry in `FILTERS`: a function from texts, labels and its own options to a mask.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from types import MappingProxyType
from typing import Any

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.naive_bayes import ComplementNB
from sklearn.pipeline import make_pipeline

from pennyweight.data.overlap import SKETCH_PERMUTATIONS, folded, near_index, sketch_of
from pennyweight.errors import DataError
from pennyweight.lab.language_model import LanguageModel

__all__ = ["FILTERS", "Filter", "keep_rows", "near_duplicates"]

Mask = np.ndarray


@dataclass(frozen=True, slots=True)
class Filter:
    """One filter: its name in recipes, what it takes out, and the function."""

    name: str
    summary: str
    keeps: Callable[..., Mask]
    paper: str = ""


def keep_rows(
    texts: Sequence[str], labels: np.ndarray, *, method: str, seed: int, options: Mapping[str, Any]
) -> Mask:
    """Which rows a filter keeps, bool `[rows]`.

    Args:
        texts: cleaned.
        labels: int64 `[rows]`.
        method: a name in `FILTERS`.
        seed: of what is random in it.
        options: the filter's own.

    Raises:
        DataError: a class has too few rows for it, or a library or model is missing.
    """
    return FILTERS[method].keeps(texts, labels, seed=seed, **options)


def _length(
    texts: Sequence[str], labels: np.ndarray, *, seed: int, shortest: int, longest: int
) -> Mask:
    words = np.array([len(text.split()) for text in texts])
    return (shortest <= words) & (words <= longest)


def _duplicates(texts: Sequence[str], labels: np.ndarray, *, seed: int) -> Mask:
    seen: set[bytes] = set()
    kept = np.ones(len(texts), dtype=bool)
    for at, text in enumerate(texts):
        key = hashlib.blake2b(folded(text).encode(), digest_size=16).digest()
        kept[at] = key not in seen
        seen.add(key)
    return kept


def _near(texts: Sequence[str], labels: np.ndarray, *, seed: int, similarity: float) -> Mask:
    return ~near_duplicates(texts, similarity=similarity)


def near_duplicates(
    texts: Iterable[str], *, similarity: float, others: Iterable[str] = ()
) -> np.ndarray:
    """Which texts are near an earlier one that stays, or one of the others; bool `[texts]`.

    MinHash over pairs of words (Broder 1997) with locality-sensitive hashing: texts that share a
    band are compared by their sketches' estimated Jaccard similarity. A sketch takes 256 bytes,
    and no text is kept.
    """
    before = _sketches(others)
    sketches = np.concatenate([before, _sketches(texts)])
    near: dict[int, list[int]] = {}
    for one, other in _candidates(sketches, similarity=similarity):
        alike = (sketches[one] == sketches[other]).mean(axis=1) >= similarity
        for earlier, later in zip(one[alike].tolist(), other[alike].tolist(), strict=True):
            near.setdefault(later, []).append(earlier)
    found = np.zeros(len(sketches), dtype=bool)
    for later in sorted(near):
        found[later] = later >= len(before) and any(not found[at] for at in near[later])
    return found[len(before) :]


def _sketches(texts: Iterable[str]) -> np.ndarray:
    """MinHash values, uint32 `[texts, permutations]`."""
    blocks: list[np.ndarray] = []
    block: list[np.ndarray] = []
    for text in texts:
        block.append(sketch_of(folded(text)).hashvalues.astype(np.uint32))
        if len(block) == 10_000:
            blocks.append(np.stack(block))
            block = []
    blocks.append(np.stack(block) if block else np.empty((0, SKETCH_PERMUTATIONS), np.uint32))
    return np.concatenate(blocks)


def _candidates(
    sketches: np.ndarray, *, similarity: float
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Indices of pairs that share a band, the earlier text first.

    Of texts that share one, each is paired with the first and with the one before it.
    """
    hashing = near_index(similarity)
    odd = np.random.default_rng(0).integers(2**63, size=hashing.r, dtype=np.uint64) * 2 + 1
    for band in range(hashing.b):
        part = sketches[:, band * hashing.r : (band + 1) * hashing.r].astype(np.uint64)
        keys = (part * odd).sum(axis=1, dtype=np.uint64)
        order = np.argsort(keys, kind="stable")
        same = np.flatnonzero(keys[order][1:] == keys[order][:-1]) + 1
        if len(same) == 0:
            continue
        starts = np.flatnonzero(np.r_[True, keys[order][1:] != keys[order][:-1]])
        firsts = order[starts[np.searchsorted(starts, same, side="right") - 1]]
        yield firsts, order[same]
        yield order[same - 1], order[same]


def _label_noise(texts: Sequence[str], labels: np.ndarray, *, seed: int, folds: int) -> Mask:
    """Confident learning (Northcutt et al. 2021, arXiv:1911.00068), through cleanlab."""
    if find_spec("cleanlab") is None:
        raise DataError(
            "data.filters: \"label-noise\" needs cleanlab; pip install 'pennyweight[lab]'"
        )
    from cleanlab.filter import find_label_issues

    model = LogisticRegression(max_iter=1000)
    probabilities = _out_of_fold(model, texts, labels, folds=folds, seed=seed)
    issues: np.ndarray = find_label_issues(labels, probabilities, n_jobs=1)
    return ~issues


def _agreement(texts: Sequence[str], labels: np.ndarray, *, seed: int, folds: int) -> Mask:
    models = (LogisticRegression(max_iter=1000), ComplementNB())
    answers = [
        _out_of_fold(model, texts, labels, folds=folds, seed=seed).argmax(axis=1)
        for model in models
    ]
    first, second = answers
    return ~((first == second) & (first != labels))


def _out_of_fold(
    model: Any, texts: Sequence[str], labels: np.ndarray, *, folds: int, seed: int
) -> np.ndarray:
    """Each row's class probabilities from a model that has not seen it, `[rows, classes]`."""
    fewest = int(np.bincount(labels).min())
    if fewest < folds:
        raise DataError(
            f"data.filters: folds: given {folds}, but one class has {fewest} rows; each fold needs "
            "a row of every class"
        )
    pipeline = make_pipeline(TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True), model)
    splits = StratifiedKFold(folds, shuffle=True, random_state=seed)
    found: np.ndarray = cross_val_predict(
        pipeline, list(texts), labels, cv=splits, method="predict_proba"
    )
    return found


def _perplexity(
    texts: Sequence[str], labels: np.ndarray, *, seed: int, model: str, share: float
) -> Mask:
    found = LanguageModel.load(model).perplexities(texts)
    return found <= np.quantile(found, 1.0 - share)


FILTERS: Mapping[str, Filter] = MappingProxyType(
    {
        entry.name: entry
        for entry in (
            Filter("length", "texts of too few or too many words", _length),
            Filter("duplicates", "texts that stand earlier in the rows", _duplicates),
            Filter("near-duplicates", "texts near an earlier one", _near, "Broder 1997"),
            Filter(
                "label-noise", "labels in doubt, by confident learning", _label_noise,
                "Northcutt et al. 2021, arXiv:1911.00068",
            ),
            Filter(
                "agreement", "labels that two cross-validated models contradict alike", _agreement
            ),
            Filter("perplexity", "texts that a language model finds oddest", _perplexity),
        )
    }
)  # fmt: skip
