"""Groups of a target's rows: those that resemble the training texts, and those that do not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from pennyweight.lab.populations import TextDiscriminator, refuse_area, separate
from pennyweight.threads import one_blas_thread

__all__ = ["CharacterGroups", "Grouping", "Groups", "HiddenStateGroups", "group", "load_grouping"]

_FILE = "discriminator.safetensors"


class Grouping(Protocol):
    """Tells rows apart.

    Attributes:
        needs_features: whether rows are told apart by the input of the classifier's output layer.
    """

    @property
    def needs_features(self) -> bool: ...  # noqa: D102 - see the attributes above

    def scores(self, texts: Sequence[str], features: np.ndarray | None) -> np.ndarray:
        """Return a score for each row, above 0 for those that do not resemble training texts."""
        ...

    def save(self, artifact: Path) -> dict[str, Any]:
        """Write what is large into an artifact, and return the rest as JSON values."""
        ...


@dataclass(frozen=True, slots=True)
class CharacterGroups:
    """Tells rows apart by the character n-grams of their texts."""

    discriminator: TextDiscriminator

    @property
    def needs_features(self) -> bool:
        """False: the text is enough."""
        return False

    def scores(self, texts: Sequence[str], features: np.ndarray | None) -> np.ndarray:
        """See `Grouping.scores`."""
        del features
        return self.discriminator.scores(texts)

    def save(self, artifact: Path) -> dict[str, Any]:
        """See `Grouping.save`."""
        self.discriminator.save(artifact / _FILE)
        return {"by": "characters"}


@dataclass(frozen=True, slots=True)
class HiddenStateGroups:
    """Tells rows apart by a direction among the inputs of the classifier's output layer.

    Attributes:
        direction: float64 `[hidden + 1]`, the weights and the intercept.
    """

    direction: np.ndarray

    @property
    def needs_features(self) -> bool:
        """True."""
        return True

    def scores(self, texts: Sequence[str], features: np.ndarray | None) -> np.ndarray:
        """See `Grouping.scores`."""
        del texts
        assert features is not None  # noqa: S101 - callers pass what a grouping needs
        scores: np.ndarray = features @ self.direction[:-1] + self.direction[-1]
        return scores

    def save(self, artifact: Path) -> dict[str, Any]:
        """See `Grouping.save`."""
        del artifact
        return {"by": "hidden-states", "direction": self.direction.tolist()}


@dataclass(frozen=True, slots=True)
class Groups:
    """Whether and how the rows of a target can be told apart.

    Attributes:
        area: area under the ROC curve of training against target rows, cross-validated;
            None if there are too few rows to measure it.
        grouping: tells them apart; None if the target is one group.
        refused: why the target is one group; None if it is not.
    """

    area: float | None
    grouping: Grouping | None
    refused: str | None = None


def group(
    by: str,
    *,
    texts: tuple[Sequence[str], Sequence[str]],
    features: tuple[np.ndarray | None, np.ndarray | None],
    seed: int,
) -> Groups:
    """Learn to tell training rows and target rows apart.

    Args:
        by: "characters" or "hidden-states".
        texts: of the training rows and of the target.
        features: of the validation rows and of the target; required for "hidden-states".
        seed: of samples and folds.
    """
    if by == "characters":
        separation = separate(*texts, seed=seed)
        discriminator = separation.discriminator
        grouping = None if discriminator is None else CharacterGroups(discriminator)
        return Groups(separation.area, grouping, separation.refused)
    return _by_hidden_states(*features, seed=seed)


def load_grouping(artifact: Path, values: dict[str, Any] | None) -> Grouping | None:
    """Return what was saved with `Grouping.save`; None for one group.

    Raises:
        RunError: a file cannot be read.
        KeyError: a value is missing.
        ValueError: there is no such kind of groups.
    """
    if values is None:
        return None
    if values["by"] == "characters":
        return CharacterGroups(TextDiscriminator.load(artifact / _FILE))
    if values["by"] == "hidden-states":
        return HiddenStateGroups(np.array(values["direction"]))
    raise ValueError(f'groups by "{values["by"]}"')


@one_blas_thread()
def _by_hidden_states(source: np.ndarray | None, target: np.ndarray | None, *, seed: int) -> Groups:
    # Imported here, because every command that predicts imports this module.
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    assert source is not None  # noqa: S101 - asked for by the caller
    assert target is not None  # noqa: S101 - as above
    features = np.concatenate([source, target]).astype(np.float64)
    domain = np.r_[np.zeros(len(source), dtype=int), np.ones(len(target), dtype=int)]
    model = make_pipeline(
        StandardScaler(), LogisticRegression(max_iter=1000, C=0.1, class_weight="balanced")
    )
    splits = StratifiedKFold(5, shuffle=True, random_state=seed)
    scores = cross_val_predict(model, features, domain, cv=splits, method="decision_function")
    area = float(roc_auc_score(domain, scores))
    if refused := refuse_area(area):
        return Groups(area, None, refused)
    model.fit(features, domain)
    scaler, linear = model[0], model[1]
    weights = linear.coef_[0] / scaler.scale_
    intercept = float(linear.intercept_[0] - weights @ scaler.mean_)
    return Groups(area, HiddenStateGroups(np.r_[weights, intercept]))
