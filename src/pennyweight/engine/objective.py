"""What training makes small: the rows' cross-entropy, and penalties on the adapters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from pennyweight.engine.batch import Targets, Taught
from pennyweight.engine.features import Features, Mix, draw_mix

__all__ = ["Objective"]


@dataclass(frozen=True, slots=True)
class Objective:
    """The loss of a step.

    Attributes:
        label_smoothing: share of the target spread over all classes (arXiv:1512.00567, section 7).
        r_drop: weight of the divergence between two passes under different dropout masks
            (R-Drop, arXiv:2106.14448); at 0 there is one pass.
        consistency: the same for rows without a label (the Pi model of arXiv:1610.02242).
        mixup: parameter of the Beta distribution that rows are mixed by; at 0 they are not.
        temperature: divides teachers' and student's logits in the distillation loss.
        soft: share of that loss (arXiv:1503.02531, section 2); it is scaled by temperature
            squared, so that its gradients keep their size.
        hidden: weight of one minus the cosine between the student's and the teacher's input to
            the output layer (the cosine loss of DistilBERT, arXiv:1910.01108, section 2).
        features: of the model that learns; needed with `mixup` and `hidden`.
        penalties: each adds a scalar once per optimizer step; the losses that a run shows are
            those of the rows alone.
    """

    label_smoothing: float = 0.0
    r_drop: float = 0.0
    consistency: float = 0.0
    mixup: float = 0.0
    temperature: float = 1.0
    soft: float = 0.0
    hidden: float = 0.0
    features: Features | None = None
    penalties: tuple[Callable[[], torch.Tensor], ...] = ()

    @property
    def passes(self) -> int:
        """How often the rows go through the model."""
        return 2 if self.r_drop > 0.0 or self.consistency > 0.0 else 1

    def begin(self, rows: int, *, seed: tuple[int, ...]) -> None:
        """Settle, before the passes over so many rows, what is random in their loss."""
        if self.features is None:
            return
        mix = None
        if self.mixup > 0.0:
            mix = draw_mix(rows, strength=self.mixup, draw=np.random.default_rng(seed))
        self.features.begin(mix)

    @property
    def _mix(self) -> Mix | None:
        return None if self.features is None else self.features.mix

    def of_rows(self, logits: list[torch.Tensor], targets: Targets) -> torch.Tensor:
        """The loss, summed over rows.

        Rows without a label give only what teachers say of them, and their consistency.

        Args:
            logits: of each pass, `[rows, classes]`.
            targets: what the rows are to be taken for.
        """
        wide = [one.float() for one in logits]
        loss = torch.stack([self._entropy(one, targets) for one in wide]).mean()
        taught = targets.taught
        if taught is not None:
            distances = [self._from_teachers(one, taught) for one in wide]
            loss = (1.0 - self.soft) * loss + self.soft * torch.stack(distances).mean()
            loss = loss + self._from_hidden(taught)
        if self.passes == 2:
            loss = loss + self._between_passes(wide, targets.labels)
        return loss

    def _entropy(self, logits: torch.Tensor, targets: Targets) -> torch.Tensor:
        labels = targets.labels
        if self._mix is None and targets.weights is None and targets.smoothing is None:
            return functional.cross_entropy(
                logits,
                labels,
                reduction="sum",
                label_smoothing=self.label_smoothing,
                ignore_index=-1,
            )
        classes = logits.shape[1]
        share = (
            targets.smoothing[:, None] if targets.smoothing is not None else self.label_smoothing
        )
        wanted = functional.one_hot(labels.clamp(min=0), classes).float()
        wanted = (1.0 - share) * wanted + share / classes
        weights = (labels >= 0).float()
        if targets.weights is not None:
            weights = weights * targets.weights
        wanted = wanted * weights[:, None]
        if self._mix is not None:
            wanted = self._mix.of(wanted)
        return -(wanted * functional.log_softmax(logits, dim=1)).sum()

    def _between_passes(self, logits: list[torch.Tensor], labels: torch.Tensor) -> torch.Tensor:
        """Half the divergence both ways, weighted by whether a row has a label."""
        one, other = (functional.log_softmax(each, dim=1) for each in logits)
        there = functional.kl_div(one, other, reduction="none", log_target=True)
        back = functional.kl_div(other, one, reduction="none", log_target=True)
        weights = torch.where(labels >= 0, self.r_drop, self.consistency)
        return ((there + back).sum(dim=1) * weights).sum() / 2

    def _from_teachers(self, logits: torch.Tensor, taught: Taught) -> torch.Tensor:
        student = functional.log_softmax(logits / self.temperature, dim=1)
        teacher = functional.softmax(taught.log_probabilities / self.temperature, dim=1)
        if self._mix is not None:
            teacher = self._mix.of(teacher)
        return functional.kl_div(student, teacher, reduction="sum") * self.temperature**2

    def _from_hidden(self, taught: Taught) -> torch.Tensor | float:
        if self.features is None or taught.features is None:
            return 0.0
        theirs = taught.features if self._mix is None else self._mix.of(taught.features)
        alike = [
            functional.cosine_similarity(mine.float(), theirs, dim=1) for mine in self.features.seen
        ]
        return self.hidden * (1.0 - torch.stack(alike)).mean(dim=0).sum()

    def penalty(self) -> torch.Tensor | float:
        """All penalties together."""
        return sum((penalty() for penalty in self.penalties), start=0.0)
