"""What training makes small: the rows' cross-entropy, and penalties on the adapters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn import functional

__all__ = ["Objective"]


@dataclass(frozen=True, slots=True)
class Objective:
    """The loss of a step.

    Attributes:
        label_smoothing: share of the target spread over all classes (arXiv:1512.00567, section 7).
        r_drop: weight of the divergence between two passes under different dropout masks
            (R-Drop, arXiv:2106.14448); at 0 there is one pass.
        temperature: divides teachers' and student's logits in the distillation loss.
        soft: share of that loss (arXiv:1503.02531, section 2); it is scaled by temperature
            squared, so that its gradients keep their size.
        penalties: each adds a scalar once per optimizer step; the losses that a run shows are
            those of the rows alone.
    """

    label_smoothing: float = 0.0
    r_drop: float = 0.0
    temperature: float = 1.0
    soft: float = 0.0
    penalties: tuple[Callable[[], torch.Tensor], ...] = ()

    @property
    def passes(self) -> int:
        """How often the rows go through the model."""
        return 2 if self.r_drop > 0.0 else 1

    def of_rows(
        self,
        logits: list[torch.Tensor],
        labels: torch.Tensor,
        taught: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The loss, summed over rows.

        Args:
            logits: of each pass, `[rows, classes]`.
            labels: int64 `[rows]`.
            taught: the teachers' log probabilities `[rows, classes]`; None without teachers.
        """
        wide = [one.float() for one in logits]
        smoothing = self.label_smoothing
        entropies = [
            functional.cross_entropy(one, labels, reduction="sum", label_smoothing=smoothing)
            for one in wide
        ]
        loss = torch.stack(entropies).mean()
        if taught is not None:
            distances = [self._from_teachers(one, taught) for one in wide]
            loss = (1.0 - self.soft) * loss + self.soft * torch.stack(distances).mean()
        if self.passes == 2:
            one, other = (functional.log_softmax(logits, dim=1) for logits in wide)
            divergence = functional.kl_div(one, other, reduction="sum", log_target=True)
            divergence = divergence + functional.kl_div(
                other, one, reduction="sum", log_target=True
            )
            loss = loss + self.r_drop * divergence / 2
        return loss

    def _from_teachers(self, logits: torch.Tensor, taught: torch.Tensor) -> torch.Tensor:
        student = functional.log_softmax(logits / self.temperature, dim=1)
        teacher = functional.log_softmax(taught / self.temperature, dim=1)
        distance = functional.kl_div(student, teacher, reduction="sum", log_target=True)
        return distance * self.temperature**2

    def penalty(self) -> torch.Tensor | float:
        """All penalties together."""
        return sum((penalty() for penalty in self.penalties), start=0.0)
