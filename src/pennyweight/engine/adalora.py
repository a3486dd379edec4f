"""AdaLoRA's two duties in a training loop, which a plain one forgets (arXiv:2303.10512).

After every optimizer step ranks are reallocated (`update_and_allocate`, which needs the gradients),
and the loss holds a penalty that keeps P and Q orthogonal.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from peft import PeftType

from pennyweight.errors import RecipeError

__all__ = ["allocate_ranks", "is_adalora", "orthogonality"]


def is_adalora(model: Any) -> bool:
    """Whether PEFT's model has an AdaLoRA adapter."""
    configs = getattr(model, "peft_config", None)
    return bool(configs and configs["default"].peft_type == PeftType.ADALORA)


def allocate_ranks(model: Any, optimizer: torch.optim.Optimizer, *, steps: int) -> None:
    """Reallocate ranks after every step of the optimizer, over a run of `steps` steps.

    Raises:
        RecipeError: the run is too short for the recipe's phases.
    """
    config = model.peft_config["default"]
    if config.tinit + config.tfinal >= steps:
        raise RecipeError(
            f"adapter.start_steps and adapter.final_steps: {config.tinit} + {config.tfinal} leave "
            f"no step to reallocate ranks in a run of {steps}; give smaller ones, for example "
            f"--set adapter.start_steps={steps // 5} --set adapter.final_steps={steps // 3}"
        )
    config.total_step = steps
    model.base_model.rankallocator.set_total_step(steps)
    done = 0

    def reallocate(*_: Any) -> None:
        nonlocal done
        done += 1
        model.base_model.update_and_allocate(done)

    optimizer.register_step_post_hook(reallocate)


def orthogonality(model: Any) -> Callable[[], torch.Tensor]:
    """The weighted mean Frobenius norm of P'P - I and Q Q' - I (section 3.1, equation 4)."""
    weight = model.peft_config["default"].orth_reg_weight
    named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    rights = [p for n, p in named if ".lora_A." in n]
    lefts = [p for n, p in named if ".lora_B." in n]

    def penalty() -> torch.Tensor:
        norms = [
            torch.linalg.matrix_norm(q @ q.t() - torch.eye(len(q), device=q.device))
            for q in [*rights, *(p.t() for p in lefts)]
        ]
        return weight * torch.stack(norms).mean()

    return penalty
