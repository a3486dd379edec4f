"""The training loss: that of the labels, distillation and consistency, and adapter penalties.

The labels of a batch decide the kind of task: `[rows]` for a single label, where the model's
probabilities are a softmax, and `[rows, classes]` for multi-label, where they are sigmoids.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from pennyweight.engine.batches.rows import Targets, TeacherOutputs
from pennyweight.engine.features import Features, Mix, draw_mix
from pennyweight.engine.train.losses import (
    bernoulli_divergence,
    contrastive_loss,
    multi_label_loss,
    single_label_loss,
)

__all__ = ["ClassBalance", "Objective", "ObjectiveOptions"]

# A teacher's probabilities are kept this far from 0 and 1, where their log-odds are infinite.
_SMALLEST_SHARE = 1e-6


@dataclass(frozen=True, slots=True)
class ObjectiveOptions:
    """Weights and parameters of the terms of the loss; the defaults are plain cross-entropy.

    Attributes:
        label_smoothing: share of the target that is spread over all classes (arXiv:1512.00567,
            section 7); of a multi-label target, share that is replaced by 1/2 for each class.
        r_drop: weight of the divergence between two passes with different dropout masks (R-Drop,
            arXiv:2106.14448); at 0 there is one pass.
        consistency: weight of the same divergence for unlabelled rows (the Pi model of
            arXiv:1610.02242).
        mixup: parameter of the Beta distribution from which mixup draws its shares; 0 for no
            mixup.
        temperature: divisor of the teacher's and the student's logits in the distillation loss.
        soft: weight of the distillation loss, against `1 - soft` for cross-entropy
            (arXiv:1503.02531, section 2); the loss is multiplied by temperature squared, which
            keeps the size of its gradients independent of the temperature.
        hidden: weight of one minus the cosine similarity of the student's and the teacher's input
            to the output layer (the cosine loss of DistilBERT, arXiv:1910.01108, section 2).
        contrastive: weight of the supervised contrastive loss of the output layer's inputs; see
            `losses.contrastive_loss`.
        contrastive_temperature: of that loss.
        focal_gamma: exponent of the focal loss (arXiv:1708.02002); at 0 it is cross-entropy.
        logit_adjustment: factor of the logarithm of the classes' shares that is added to the logits
            in the loss of the labels (Menon et al. 2021, arXiv:2007.07314); 0 for none.
        balance: whether the classes are weighted by the inverse of their number of rows.
    """

    label_smoothing: float = 0.0
    r_drop: float = 0.0
    consistency: float = 0.0
    mixup: float = 0.0
    temperature: float = 1.0
    soft: float = 0.0
    hidden: float = 0.0
    contrastive: float = 0.0
    contrastive_temperature: float = 0.1
    focal_gamma: float = 0.0
    logit_adjustment: float = 0.0
    balance: bool = False


@dataclass(frozen=True, slots=True)
class ClassBalance:
    """Facts for the loss about the numbers of rows in the classes, on the model's device.

    Attributes:
        weights: float32 `[classes]`, weight of a row with this label or, in a multi-label task, of
            its positive rows; None for equal weights.
        offsets: float32 `[classes]`, added to the logits in the loss of the labels; None for none.
    """

    weights: torch.Tensor | None = None
    offsets: torch.Tensor | None = None


@dataclass(frozen=True, slots=True)
class Objective:
    """The loss of an optimizer step.

    Attributes:
        options: weights of the terms.
        features: watches the output layer's input in the model that is trained; required for
            `mixup`, `hidden` and `contrastive`.
        penalties: functions that each return a scalar, added once per optimizer step; they are not
            part of the losses that a run reports.
        balance: weights and offsets of the classes.
    """

    options: ObjectiveOptions = ObjectiveOptions()
    features: Features | None = None
    penalties: tuple[Callable[[], torch.Tensor], ...] = ()
    balance: ClassBalance = ClassBalance()

    @property
    def passes(self) -> int:
        """Number of forward passes over the same rows."""
        return 2 if self.options.r_drop > 0.0 or self.options.consistency > 0.0 else 1

    def begin(self, rows: int, *, seed: tuple[int, ...]) -> None:
        """Draw the random numbers of the loss, before the forward passes over `rows` rows."""
        if self.features is None:
            return
        mix = None
        if self.options.mixup > 0.0:
            generator = np.random.default_rng(seed)
            mix = draw_mix(rows, strength=self.options.mixup, draw=generator)
        self.features.begin(mix)

    def of_rows(self, logits: list[torch.Tensor], targets: Targets) -> torch.Tensor:
        """Return the loss summed over rows, a scalar.

        Unlabelled rows contribute the distillation and consistency terms only.

        Args:
            logits: `[rows, classes]` for each pass.
            targets: the rows' labels, weights and teacher outputs.
        """
        soft = self.options.soft
        wide = [one.float() for one in logits]
        is_multi_label = targets.labels.ndim == 2
        of_labels = self._multi_label if is_multi_label else self._single_label
        loss = torch.stack([of_labels(one, targets) for one in wide]).mean()
        teacher = targets.teacher
        if teacher is not None:
            distances = [
                self._distillation(one, teacher, is_multi_label=is_multi_label) for one in wide
            ]
            loss = (1.0 - soft) * loss + soft * torch.stack(distances).mean()
            loss = loss + self._hidden_distance(teacher)
        if self.passes == 2:
            loss = loss + self._divergence(wide, targets.labels)
        if self.options.contrastive > 0.0 and self.features is not None:
            loss = loss + self.options.contrastive * self._contrast(targets.labels)
        return loss

    def _contrast(self, labels: torch.Tensor) -> torch.Tensor:
        """Return the contrastive loss of the features of all passes, summed over rows."""
        assert self.features is not None  # noqa: S101 - called only with features
        temperature = self.options.contrastive_temperature
        losses = [
            contrastive_loss(seen, labels, temperature=temperature) for seen in self.features.seen
        ]
        return torch.stack(losses).mean()

    def penalty(self) -> torch.Tensor | float:
        """Return the sum of all penalties."""
        return sum((penalty() for penalty in self.penalties), start=0.0)

    @property
    def _mix(self) -> Mix | None:
        return None if self.features is None else self.features.mix

    def _single_label(self, logits: torch.Tensor, targets: Targets) -> torch.Tensor:
        labels, gamma = targets.labels, self.options.focal_gamma
        if self.balance.offsets is not None:
            logits = logits + self.balance.offsets
        is_plain = gamma == 0.0 and self.balance.weights is None and self._mix is None
        is_plain = is_plain and targets.weights is None and targets.soft_labels is None
        if is_plain and targets.smoothing is None:
            return functional.cross_entropy(
                logits,
                labels,
                reduction="sum",
                label_smoothing=self.options.label_smoothing,
                ignore_index=-1,
            )
        classes = logits.shape[1]
        share = self._smoothing(targets)
        distribution = targets.soft_labels
        if distribution is None:
            distribution = functional.one_hot(labels.clamp(min=0), classes).float()
        distribution = (1.0 - share) * distribution + share / classes
        weights = _weights(labels >= 0, targets)
        if self.balance.weights is not None:
            weights = weights * self.balance.weights[labels.clamp(min=0)]
        return single_label_loss(logits, self._mixed(distribution * weights[:, None]), gamma=gamma)

    def _multi_label(self, logits: torch.Tensor, targets: Targets) -> torch.Tensor:
        share = self._smoothing(targets)
        target = (1.0 - share) * targets.labels.clamp(min=0).float() + share / 2.0
        weights = _weights(targets.labels[:, 0] >= 0, targets)[:, None]
        positive, negative = target * weights, (1.0 - target) * weights
        if self.balance.weights is not None:
            positive = positive * self.balance.weights
        return multi_label_loss(
            logits, self._mixed(positive), self._mixed(negative), gamma=self.options.focal_gamma
        )

    def _smoothing(self, targets: Targets) -> torch.Tensor | float:
        """Return the label smoothing: one number, or `[rows, 1]`."""
        smoothing = targets.smoothing
        return self.options.label_smoothing if smoothing is None else smoothing[:, None]

    def _mixed(self, values: torch.Tensor) -> torch.Tensor:
        """Return values `[rows, ...]` mixed as the rows are."""
        return values if self._mix is None else self._mix.of(values)

    def _divergence(self, logits: list[torch.Tensor], labels: torch.Tensor) -> torch.Tensor:
        """Return half the symmetric divergence of two passes, weighted per row."""
        if labels.ndim == 2:
            both = bernoulli_divergence(*logits) + bernoulli_divergence(*reversed(logits))
            is_labelled = labels[:, 0] >= 0
        else:
            one, other = (functional.log_softmax(each, dim=1) for each in logits)
            forward = functional.kl_div(one, other, reduction="none", log_target=True)
            backward = functional.kl_div(other, one, reduction="none", log_target=True)
            both, is_labelled = (forward + backward).sum(dim=1), labels >= 0
        weights = torch.where(is_labelled, self.options.r_drop, self.options.consistency)
        return (both * weights).sum() / 2

    def _distillation(
        self, logits: torch.Tensor, outputs: TeacherOutputs, *, is_multi_label: bool
    ) -> torch.Tensor:
        temperature = self.options.temperature
        if is_multi_label:
            share = self._mixed((outputs.log_probabilities / temperature).sigmoid())
            # The divergence of mixed probabilities, which may be 0 or 1.
            teacher = torch.logit(share, eps=_SMALLEST_SHARE)
            return bernoulli_divergence(logits / temperature, teacher).sum() * temperature**2
        student = functional.log_softmax(logits / temperature, dim=1)
        distribution = self._mixed(
            functional.softmax(outputs.log_probabilities / temperature, dim=1)
        )
        return functional.kl_div(student, distribution, reduction="sum") * temperature**2

    def _hidden_distance(self, outputs: TeacherOutputs) -> torch.Tensor | float:
        if self.features is None or outputs.features is None:
            return 0.0
        teacher = self._mixed(outputs.features)
        similarities = [
            functional.cosine_similarity(student.float(), teacher, dim=1)
            for student in self.features.seen
        ]
        return self.options.hidden * (1.0 - torch.stack(similarities)).mean(dim=0).sum()


def _weights(is_labelled: torch.Tensor, targets: Targets) -> torch.Tensor:
    """Return the weight of each row in the loss of the labels, float32 `[rows]`."""
    weights = is_labelled.float()
    return weights if targets.weights is None else weights * targets.weights
