"""Pseudo-labels for target rows: chosen in equal measure, and from two views of the texts.

The first view is a classifier. The second is lexical: a logistic regression on the TF-IDF weights
of the target's own texts, fitted to the surest answers of the first view. Where the classifier has
learned from texts of another kind, words that only the target has tell the classes apart (Blum &
Mitchell 1998, doi:10.1145/279943.279962). The second view is used for pseudo-labels only and is no
part of any artifact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import log_softmax, softmax

from pennyweight.engine.linear import LinearOptions, fit_tfidf
from pennyweight.evaluation.shift import match_shares

__all__ = ["TargetAnswers", "add_second_view", "surest_of_each_class"]

# With fewer selected rows, a second view has too little to learn from.
_FEWEST_ROWS = 20
# A second view is fitted to this share of the rows, the surest: better than 0.3, 0.7 and 0.9 on two
# labelled targets (lab log, 2026-11-29).
_FITTED_SHARE = 0.5


@dataclass(frozen=True, slots=True)
class TargetAnswers:
    """Answers of classifiers for the rows of a target.

    Attributes:
        logits: corrected for the target's class shares where that is possible, float64
            `[rows, classes]`.
        groups: int64 `[rows]`, the group of each row.
    """

    logits: np.ndarray
    groups: np.ndarray

    @property
    def shares(self) -> np.ndarray:
        """The mean probabilities in each group, float64 `[groups, classes]`."""
        probabilities = softmax(self.logits, axis=1)
        return np.stack([probabilities[self.groups == g].mean(axis=0) for g in self.group_numbers])

    @property
    def group_numbers(self) -> list[int]:
        """The groups that have rows."""
        return sorted(set(self.groups.tolist()))

    @property
    def unlike_training(self) -> np.ndarray:
        """Rows unlike the training texts, bool `[rows]`; all rows where there is one group.

        A classifier answers texts of its own kind best by itself. What is known about the target
        besides, such as a second view, changes the answers to these rows only.
        """
        return self.groups == 1 if self.groups.any() else np.ones(len(self.groups), dtype=bool)


def surest_of_each_class(answers: TargetAnswers, *, share: float) -> np.ndarray:
    """Return the indices of the rows whose answers are the surest, int64 `[selected]`, ascending.

    In every group, each class gets rows in proportion to its share there, however often it is
    predicted; so a classifier that prefers a class does not teach that preference.

    Args:
        answers: of the classifiers.
        share: of each group's rows that are selected, if its classes have enough; 1 for all rows.
    """
    if share == 1.0:
        return np.arange(len(answers.logits))
    probabilities = softmax(answers.logits, axis=1)
    predicted = probabilities.argmax(axis=1)
    selected = []
    for group, shares in zip(answers.group_numbers, answers.shares, strict=True):
        rows = np.flatnonzero(answers.groups == group)
        for label, class_share in enumerate(shares):
            of_class = rows[predicted[rows] == label]
            count = round(share * class_share * len(rows))
            surest = np.argsort(-probabilities[of_class, label], kind="stable")[:count]
            selected.append(of_class[surest])
    return np.sort(np.concatenate(selected))


def add_second_view(
    texts: Sequence[str], answers: TargetAnswers, *, rounds: int = 1, share: float = _FITTED_SHARE
) -> TargetAnswers:
    """Return answers that combine the classifier's with those of a lexical view of the target.

    The log probabilities of both are added for the rows unlike the training texts, and every group
    keeps the class shares that it had.

    Args:
        texts: of the target's rows.
        answers: of the classifier.
        rounds: how often the lexical view is fitted, each time to the answers of both views.
        share: of the rows that it is fitted to; see `surest_of_each_class`.
    """
    classes, shares = answers.logits.shape[1], answers.shares
    unlike, combined = answers.unlike_training[:, None], answers
    for _ in range(rounds):
        rows = surest_of_each_class(combined, share=share)
        if len(rows) < _FEWEST_ROWS:
            return combined
        labels = combined.logits[rows].argmax(axis=1)
        options = LinearOptions(classes=classes, seed=0)
        view = fit_tfidf([texts[row] for row in rows.tolist()], labels, options).logits(texts)
        second = np.where(unlike, log_softmax(view.astype(np.float64), axis=1), 0.0)
        logits = log_softmax(answers.logits, axis=1) + second
        combined = replace(answers, logits=_with_shares(logits, answers, shares))
    return combined


def _with_shares(logits: np.ndarray, answers: TargetAnswers, shares: np.ndarray) -> np.ndarray:
    matched = logits.copy()
    for group, group_shares in zip(answers.group_numbers, shares, strict=True):
        rows = answers.groups == group
        matched[rows] += match_shares(logits[rows], group_shares)
    return matched
