"""Which device, precision and attention a run uses; chosen once and said aloud."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from pennyweight.errors import TrainingError

__all__ = ["Compute", "choose_compute"]

Precision = Literal["fp32", "bf16", "fp16"]


@dataclass(frozen=True, slots=True)
class Compute:
    """Where and how the matrix products are done.

    Attributes:
        device: "cuda", "mps" or "cpu".
        precision: of the matrix products.
        attention: transformers' implementation.
        why: one line that says what was chosen and why.
    """

    device: str
    precision: Precision
    attention: str
    why: str


def choose_compute(*, precision: str, attention: str) -> Compute:
    """Settle "auto" for this machine.

    Raises:
        TrainingError: the asked precision does not work on this device.
    """
    device, name = "cpu", "CPU"
    fast: Precision = "bf16" if _fast_bf16_on_cpu() else "fp32"
    works: tuple[Precision, ...] = ("fp32", "bf16")
    if torch.cuda.is_available():
        device, name = "cuda", torch.cuda.get_device_name()
        fast = "bf16" if torch.cuda.is_bf16_supported() else "fp16"
        works = ("fp32", fast, "fp16")
    elif torch.backends.mps.is_available():
        device, name, fast, works = "mps", "Apple GPU", "fp32", ("fp32",)
    if precision != "auto" and precision not in works:
        raise TrainingError(
            f"train.precision: {precision} does not train on this device ({name}); "
            f"allowed here: auto, {', '.join(dict.fromkeys(works))}"
        )
    chosen: Precision = fast if precision == "auto" else precision  # type: ignore[assignment]
    # Measured on CPU: the backward pass of fused attention is slower than the plain products.
    plain = "eager" if device == "cpu" else "sdpa"
    kernel = plain if attention == "auto" else attention
    how = "chosen for it" if precision == "auto" else "as the recipe says"
    return Compute(device, chosen, kernel, f"{name}, {chosen} ({how}), {kernel} attention")


def _fast_bf16_on_cpu() -> bool:
    flags = torch.backends.cpu.get_cpu_capability()
    return "AVX512" in flags and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
