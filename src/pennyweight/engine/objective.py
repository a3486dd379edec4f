"""What training makes small: the rows' cross-entropy, and penalties on the adapters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from pennyweight.engine.batch import Taught
from pennyweight.engine.features import Features, Mix, draw_mix

__all__ = ["Objective"]


@dataclass(slots=True)
class Objective:
    """The loss of a step.

    Attributes:
        label_smoothing: share of the target spread over all classes (arXiv:1512.00567, section 7).
        r_drop: weight of the divergence between two passes under different dropout masks
            (R-Drop, arXiv:2106.14448); at 0 there is one pass.
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
    mixup: float = 0.0
    temperature: float = 1.0
    soft: float = 0.0
    hidden: float = 0.0
    features: Features | None = None
    penalties: tuple[Callable[[], torch.Tensor], ...] = ()
    _mix: Mix | None = None

    @property
    def passes(self) -> int:
        """How often the rows go through the model."""
        return 2 if self.r_drop > 0.0 else 1

    def begin(self, rows: int, *, seed: tuple[int, ...]) -> None:
        """Settle, before the passes over so many rows, what is random in their loss."""
        if self.features is None:
            return
        self._mix = None
        if self.mixup > 0.0:
            draw = np.random.default_rng(seed)
            self._mix = draw_mix(rows, strength=self.mixup, draw=draw)
        self.features.begin(self._mix)

    def of_rows(
        self,
        logits: list[torch.Tensor],
        labels: torch.Tensor,
        taught: Taught | None = None,
    ) -> torch.Tensor:
        """The loss, summed over rows.

        Args:
            logits: of each pass, `[rows, classes]`.
            labels: int64 `[rows]`.
            taught: what teachers say of the rows.
        """
        wide = [one.float() for one in logits]
        targets = labels
        if self._mix is not None:
            targets = self._mix.of(functional.one_hot(labels, wide[0].shape[1]).float())
        smoothing = self.label_smoothing
        entropies = [
            functional.cross_entropy(one, targets, reduction="sum", label_smoothing=smoothing)
            for one in wide
        ]
        loss = torch.stack(entropies).mean()
        if taught is not None:
            distances = [self._from_teachers(one, taught) for one in wide]
            loss = (1.0 - self.soft) * loss + self.soft * torch.stack(distances).mean()
            loss = loss + self._from_hidden(taught)
        if self.passes == 2:
            one, other = (functional.log_softmax(logits, dim=1) for logits in wide)
            divergence = functional.kl_div(one, other, reduction="sum", log_target=True)
            divergence = divergence + functional.kl_div(
                other, one, reduction="sum", log_target=True
            )
            loss = loss + self.r_drop * divergence / 2
        return loss

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
