"""The rules by which "auto" keys of a recipe follow from the base, the rows and the budget.

Each rule is a function of a few facts and returns a value with its reason. No constant was chosen
on a test split; docs/concepts/defaults.md says which were measured and which are conventions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from pennyweight.budget.methods.sections import DEFAULT_HEAD_RANK
from pennyweight.evaluation.metrics import EVEN_RATIO

__all__ = ["RULES", "Derived", "Facts", "accuracy_noise"]

# With fewer rows than this, or fewer of each class, all rows are trained on: a validation split
# would cost more accuracy than the choice of a checkpoint gains.
FEW_ROWS, FEW_ROWS_PER_CLASS = 500, 16
_FEW = f"fewer than {FEW_ROWS} rows, or than {FEW_ROWS_PER_CLASS} of each class"
_MOST_VALIDATION_ROWS = 2_000
# A set of this many rows is seen twice; smaller ones more often, by a power of their size.
_REFERENCE_ROWS, _REFERENCE_EPOCHS, _EXPONENT, _MOST_EPOCHS = 67_000, 2.0, 0.45, 60
_BATCH_ROWS = 64
# With fewer rows of each class, on average, a contrastive loss helps.
_FEW_FOR_CONTRAST = 1_000
# With more rows, fitting the head again takes long and has not been better.
_MOST_FOR_HEAD_END = 20_000
# The most of the budget that a head may take.
_HEAD_SHARE = 0.5
_LONGEST, _LONGEST_OF_FEW = 256, 512
# The accuracy for which the standard error on validation rows is computed.
_TYPICAL = 0.85


@dataclass(frozen=True, slots=True)
class Facts:
    """Facts for the rules.

    Attributes:
        rows: labelled rows before validation rows are split off; with `data.train_rows`, that
            number.
        classes: number of classes.
        rows_by_class: rows of each class, in the classes' order.
        length: tokens that 98 of 100 training texts do not exceed.
        mean_length: mean number of tokens of a training text, before it is cut.
        target_length: likewise for the texts of the target; 0 without one.
        longest_input: tokens that the base can read at once.
        file_rows: rows of the training file, of which `data.train_rows` are drawn; None if all are
            used.
        start_validation_fraction: `data.validation_fraction` of the run that training starts from;
            None for a new start.
        own_validation_rows: validation rows that have a source of their own; None without one.
        is_multi_label: whether a row may have several labels.
        hidden: numbers that describe a text, which the head reads.
        budget: the largest number of trainable parameters allowed.
        is_pooled: whether the head is one linear map of pooled hidden states.
        validation_fraction: `data.validation_fraction`, where the recipe sets it; None where it is
            derived.
        epochs: `train.epochs`, where the recipe sets it; None where it is derived.
        batch_rows: `train.batch_rows`, likewise.
        contrastive: `train.contrastive`, likewise.
    """

    rows: int
    classes: int
    rows_by_class: tuple[int, ...]
    length: int
    longest_input: int
    mean_length: float = 32.0
    target_length: int = 0
    file_rows: int | None = None
    start_validation_fraction: float | None = None
    validation_fraction: float | None = None
    own_validation_rows: int | None = None
    is_multi_label: bool = False
    hidden: int = 384
    budget: int = 1_000_000
    is_pooled: bool = True
    epochs: int | None = None
    batch_rows: int | None = None
    contrastive: float | None = None

    @property
    def has_few_rows(self) -> bool:
        """Whether there are too few rows to hold some of them out."""
        return self.rows < max(FEW_ROWS, FEW_ROWS_PER_CLASS * self.classes)

    @property
    def has_small_classes(self) -> bool:
        """Whether classes have so few rows, on average, that comparing them helps."""
        return self.training_rows < _FEW_FOR_CONTRAST * self.classes

    @property
    def validation_rows(self) -> int:
        """Number of rows that are split off for validation."""
        if self.own_validation_rows is not None:
            return 0
        fraction = self.validation_fraction
        if fraction is None:
            fraction = self.start_validation_fraction
        if fraction is not None:
            return round(fraction * (self.file_rows or self.rows))
        if self.has_few_rows:
            return 0
        return min(
            _MOST_VALIDATION_ROWS, max(self.rows // 10, min(self.classes * 2, self.rows // 5))
        )

    @property
    def training_rows(self) -> int:
        """Number of rows that are left for training."""
        if self.file_rows is None:
            return self.rows - self.validation_rows
        return min(self.rows, self.file_rows - self.validation_rows)

    @property
    def evaluated_rows(self) -> int:
        """Number of validation rows, whatever their source."""
        return self.own_validation_rows or self.validation_rows

    @property
    def evaluates(self) -> bool:
        """Whether there are validation rows at all."""
        return self.evaluated_rows > 0

    @property
    def is_uneven(self) -> bool:
        """Whether the largest class has several times the rows of the smallest."""
        counts = [count for count in self.rows_by_class if count]
        return max(counts) > EVEN_RATIO * min(counts)


@dataclass(frozen=True, slots=True)
class Derived:
    """The value of a key and why it has it; no reason where the value does not matter."""

    value: Any
    reason: str


def _head(facts: Facts) -> Derived:
    cost = facts.classes * (facts.hidden + 1)
    if not facts.is_pooled:
        return Derived("full", "")
    share = f"{cost:,} of {facts.budget:,} parameters"
    if cost <= _HEAD_SHARE * facts.budget:
        return Derived("full", f"it takes {share}")
    return Derived("low-rank", f"a full head would take {share}; half is left for the adapters")


def _head_rank(facts: Facts) -> Derived:
    if not facts.is_pooled:
        return Derived(DEFAULT_HEAD_RANK, "")
    each = facts.hidden + facts.classes
    if _head(facts).value == "full":
        # Matters where the recipe asks for a low rank itself, which is to save parameters.
        saving = (facts.hidden * facts.classes - 1) // each
        return Derived(max(1, min(DEFAULT_HEAD_RANK, saving)), "")
    rank = max(1, int(_HEAD_SHARE * facts.budget - facts.classes) // each)
    return Derived(rank, f"the largest with which the head takes half of {facts.budget:,}")


def _validation_fraction(facts: Facts) -> Derived:
    if facts.own_validation_rows is not None:
        return Derived(0.0, "validation rows have a file of their own")
    if facts.start_validation_fraction is not None:
        return Derived(
            facts.start_validation_fraction,
            "as in the run that training starts from; with the same seed, the rows are the same",
        )
    if not facts.validation_rows:
        return Derived(0.0, f"{_FEW}: all are trained on, and the last step is kept")
    rows = facts.file_rows or facts.rows
    share = facts.validation_rows / rows
    return Derived(
        round(share, 6),
        f"{facts.validation_rows:,} of {rows:,} rows: a tenth of those to train on, at most "
        f"{_MOST_VALIDATION_ROWS:,}",
    )


def _max_tokens(facts: Facts) -> Derived:
    limit = _LONGEST_OF_FEW if facts.rows < 5_000 else _LONGEST
    limit = min(limit, facts.longest_input)
    longest = max(facts.length, facts.target_length)
    length = min(limit, max(32, math.ceil(longest / 16) * 16))
    if longest > limit:
        return Derived(length, f"texts are long; at most {limit} tokens of each are read")
    of_target = " of the target" if facts.target_length > facts.length else ""
    return Derived(length, f"98 of 100 texts{of_target} have at most {longest} tokens")


def _batch_rows(facts: Facts) -> Derived:
    del facts
    return Derived(_BATCH_ROWS, "few enough for many steps, and enough to compare texts")


def _epochs(facts: Facts) -> Derived:
    epochs = _REFERENCE_EPOCHS * (_REFERENCE_ROWS / max(1, facts.training_rows)) ** _EXPONENT
    value = max(int(_REFERENCE_EPOCHS), min(_MOST_EPOCHS, round(epochs)))
    return Derived(
        value, f"{facts.training_rows:,} training rows: the fewer, the more often each is seen"
    )


def _learning_rate(facts: Facts) -> Derived:
    if facts.has_few_rows:
        return Derived(2e-4, _FEW)
    return Derived(5e-4, f"{FEW_ROWS} rows or more, and {FEW_ROWS_PER_CLASS} of each class")


def _contrastive(facts: Facts) -> Derived:
    if facts.has_small_classes:
        return Derived(
            1.0,
            "texts of a class are pulled together, which helps with fewer than "
            f"{_FEW_FOR_CONTRAST:,} rows of each",
        )
    return Derived(0.0, f"{_FEW_FOR_CONTRAST:,} rows of each class or more")


def _head_end(facts: Facts) -> Derived:
    if not facts.is_pooled:
        return Derived("trained", "the base's own head cannot be fitted in closed form")
    if facts.training_rows > _MOST_FOR_HEAD_END:
        return Derived(
            "trained", f"with more than {_MOST_FOR_HEAD_END:,} rows, training fits it well enough"
        )
    return Derived("logistic", "it is fitted again on the trained encoder's embeddings")


def _batch_order(facts: Facts) -> Derived:
    weight = _contrastive(facts).value if facts.contrastive is None else facts.contrastive
    if weight > 0.0:
        return Derived("classes", "every batch has several texts of a class to compare")
    return Derived("grouped", "texts of similar length together are faster")


def _evaluate_every(facts: Facts) -> Derived:
    batch_rows = facts.batch_rows or _batch_rows(facts).value
    epochs = facts.epochs or _epochs(facts).value
    steps_per_epoch = math.ceil(facts.training_rows / batch_rows)
    if not facts.evaluates:
        return Derived(steps_per_epoch * epochs, "no validation rows")
    evaluations = max(4, min(12, epochs))
    return Derived(
        max(1, math.ceil(steps_per_epoch * epochs / evaluations)),
        f"{evaluations} evaluations in all",
    )


def _keep_best(facts: Facts) -> Derived:
    if facts.is_multi_label:
        # F1 needs thresholds, which would be fitted on the very rows that choose the checkpoint.
        return Derived("mean_average_precision", "a row may have several labels")
    if facts.is_uneven:
        return Derived(
            "macro_f1",
            f"the largest class has more than {EVEN_RATIO:g} times the rows of the smallest",
        )
    return Derived("accuracy", "the classes have similar numbers of rows")


def accuracy_noise(rows: int) -> float:
    """Return the standard error of a typical accuracy on so many validation rows."""
    return round(math.sqrt(_TYPICAL * (1.0 - _TYPICAL) / rows), 4)


def _keep_within(facts: Facts) -> Derived:
    rows = facts.evaluated_rows
    if not rows:
        return Derived(0.0, "no validation rows")
    return Derived(
        accuracy_noise(rows),
        f"the standard error of an accuracy of {_TYPICAL:.0%} on {rows:,} rows; of "
        "checkpoints that do not differ by more, the latest is kept",
    )


def _early_stopping(facts: Facts) -> Derived:
    if not facts.evaluates:
        return Derived("off", "no validation rows")
    return Derived({"patience": 5, "threshold": 0.0}, "5 evaluations without improvement")


RULES: Mapping[str, Callable[[Facts], Derived]] = MappingProxyType(
    {
        "adapter.head": _head,
        "adapter.head_rank": _head_rank,
        "data.validation_fraction": _validation_fraction,
        "data.max_tokens": _max_tokens,
        "optimizer.learning_rate": _learning_rate,
        "train.batch_order": _batch_order,
        "train.batch_rows": _batch_rows,
        "train.contrastive": _contrastive,
        "train.epochs": _epochs,
        "train.evaluate_every": _evaluate_every,
        "train.head_end": _head_end,
        "train.keep_best": _keep_best,
        "train.keep_within": _keep_within,
        "train.early_stopping": _early_stopping,
    }
)
