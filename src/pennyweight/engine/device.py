"""Which device, precision and attention a run uses; chosen once and said aloud."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import torch

from pennyweight.engine.attention import PACKED
from pennyweight.engine.pack import FAMILIES, can_pack
from pennyweight.errors import TrainingError

__all__ = ["DTYPES", "Compute", "Precision", "choose_compute"]

Precision = Literal["fp32", "bf16", "fp16"]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, slots=True)
class Compute:
    """Where and how the matrix products are done.

    Attributes:
        device: "cuda", "mps" or "cpu".
        precision: of the frozen encoder and its activations; what is trained stays float32.
        attention: transformers' name of the implementation.
        why: one line that says what was chosen and why.
        autocast: whether torch picks the dtype for each operation, because weights are of two, or
            because all are float32 and the products still are to be in `precision`.
    """

    device: str
    precision: Precision
    attention: str
    why: str
    autocast: bool = False

    def for_inference(self) -> Compute:
        """The same, for a model of which nothing is trained any more."""
        return replace(self, autocast=self.precision == "fp16")


def choose_compute(
    *, precision: str, attention: str, config: Any = None, trains_all: bool = False
) -> Compute:
    """Settle "auto" for this machine and this base.

    Args:
        precision: "auto" or one by name.
        attention: "auto", "packed", or one of transformers' by name.
        config: the base's config; without it, the answer is for one that can be packed.
        trains_all: whether no weight is frozen; all are then held in float32.

    Raises:
        TrainingError: what was asked for does not work on this device, or with this base.
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
    how = "chosen for it" if precision == "auto" else "as the recipe says"
    kernel, batches = _choose_attention(attention, device, config)
    casts = chosen == "fp16" or (trains_all and chosen != "fp32")
    return Compute(device, chosen, kernel, f"{name}, {chosen} ({how}), {batches}", casts)


def _choose_attention(attention: str, device: str, config: Any) -> tuple[str, str]:
    """Transformers' name of the attention, and a few words about the batches it gets."""
    packs = config is None or can_pack(config)
    if attention == "packed" and not packs:
        raise TrainingError(
            f"base.attention: packed batches do not work with a {config.model_type} encoder; "
            f"they do with {', '.join(FAMILIES)}; use --set base.attention=auto"
        )
    if attention == "packed" or (attention == "auto" and packs):
        return PACKED, "packed batches without padding"
    if attention != "auto":
        return attention, f"padded batches, {attention} attention as the recipe says"
    # Measured on CPU: the backward pass of fused attention is slower than the plain products.
    kernel = "eager" if device == "cpu" else "sdpa"
    return kernel, (
        f"padded batches, {kernel} attention: packing does not know {config.model_type} encoders"
    )


def _fast_bf16_on_cpu() -> bool:
    flags = torch.backends.cpu.get_cpu_capability()
    return "AVX512" in flags and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
