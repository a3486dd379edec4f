"""The training loss: cross-entropy, distillation and consistency terms, and adapter penalties."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from pennyweight.engine.batches.rows import Targets, TeacherOutputs
from pennyweight.engine.features import Features, Mix, draw_mix

__all__ = ["Objective", "ObjectiveOptions"]


@dataclass(frozen=True, slots=True)
class ObjectiveOptions:
    """Weights and parameters of the terms of the loss; the defaults are plain cross-entropy.

    Attributes:
        label_smoothing: share of the target that is spread over all classes (arXiv:1512.00567,
            section 7).
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
    """

    label_smoothing: float = 0.0
    r_drop: float = 0.0
    consistency: float = 0.0
    mixup: float = 0.0
    temperature: float = 1.0
    soft: float = 0.0
    hidden: float = 0.0


@dataclass(frozen=True, slots=True)
class Objective:
    """The loss of an optimizer step.

    Attributes:
        options: weights of the terms.
        features: watches the output layer's input in the model that is trained; required for
            `mixup` and `hidden`.
        penalties: functions that each return a scalar, added once per optimizer step; they are not
            part of the losses that a run reports.
    """

    options: ObjectiveOptions = ObjectiveOptions()
    features: Features | None = None
    penalties: tuple[Callable[[], torch.Tensor], ...] = ()

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
        loss = torch.stack([self._cross_entropy(one, targets) for one in wide]).mean()
        teacher = targets.teacher
        if teacher is not None:
            distances = [self._distillation(one, teacher) for one in wide]
            loss = (1.0 - soft) * loss + soft * torch.stack(distances).mean()
            loss = loss + self._hidden_distance(teacher)
        if self.passes == 2:
            loss = loss + self._divergence(wide, targets.labels)
        return loss

    def penalty(self) -> torch.Tensor | float:
        """Return the sum of all penalties."""
        return sum((penalty() for penalty in self.penalties), start=0.0)

    @property
    def _mix(self) -> Mix | None:
        return None if self.features is None else self.features.mix

    def _cross_entropy(self, logits: torch.Tensor, targets: Targets) -> torch.Tensor:
        labels, smoothing = targets.labels, self.options.label_smoothing
        if self._mix is None and targets.weights is None and targets.smoothing is None:
            return functional.cross_entropy(
                logits, labels, reduction="sum", label_smoothing=smoothing, ignore_index=-1
            )
        classes = logits.shape[1]
        share = targets.smoothing[:, None] if targets.smoothing is not None else smoothing
        distribution = functional.one_hot(labels.clamp(min=0), classes).float()
        distribution = (1.0 - share) * distribution + share / classes
        weights = (labels >= 0).float()
        if targets.weights is not None:
            weights = weights * targets.weights
        distribution = distribution * weights[:, None]
        if self._mix is not None:
            distribution = self._mix.of(distribution)
        return -(distribution * functional.log_softmax(logits, dim=1)).sum()

    def _divergence(self, logits: list[torch.Tensor], labels: torch.Tensor) -> torch.Tensor:
        """Return half the symmetric divergence of two passes, weighted per row."""
        one, other = (functional.log_softmax(each, dim=1) for each in logits)
        forward = functional.kl_div(one, other, reduction="none", log_target=True)
        backward = functional.kl_div(other, one, reduction="none", log_target=True)
        weights = torch.where(labels >= 0, self.options.r_drop, self.options.consistency)
        return ((forward + backward).sum(dim=1) * weights).sum() / 2

    def _distillation(self, logits: torch.Tensor, outputs: TeacherOutputs) -> torch.Tensor:
        temperature = self.options.temperature
        student = functional.log_softmax(logits / temperature, dim=1)
        teacher = functional.softmax(outputs.log_probabilities / temperature, dim=1)
        if self._mix is not None:
            teacher = self._mix.of(teacher)
        return functional.kl_div(student, teacher, reduction="sum") * temperature**2

    def _hidden_distance(self, outputs: TeacherOutputs) -> torch.Tensor | float:
        if self.features is None or outputs.features is None:
            return 0.0
        teacher = outputs.features if self._mix is None else self._mix.of(outputs.features)
        similarities = [
            functional.cosine_similarity(student.float(), teacher, dim=1)
            for student in self.features.seen
        ]
        return self.options.hidden * (1.0 - torch.stack(similarities)).mean(dim=0).sum()
