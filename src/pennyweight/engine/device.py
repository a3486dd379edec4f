"""The device, precision and attention of a run: chosen here only, and logged."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch

from pennyweight.engine.kernels.attention import PACKED
from pennyweight.engine.kernels.families import FAMILIES, can_pack
from pennyweight.errors import OutOfMemoryError, TrainingError

__all__ = ["DTYPES", "Compute", "Precision", "Products", "choose_compute", "out_of_memory_named"]

Precision = Literal["fp32", "bf16", "fp16"]
Products = Literal["float", "int8"]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


# What torch's allocator on the CPU says; on a GPU it has an exception of its own.
_NO_MEMORY = ("can't allocate memory", "not enough memory", "Cannot allocate memory")


@contextmanager
def out_of_memory_named(message: str) -> Iterator[None]:
    """Raise `OutOfMemoryError` with a message if the block needs more memory than there is."""
    try:
        yield
    except (MemoryError, torch.OutOfMemoryError):
        raise OutOfMemoryError(f"out of memory: {message}") from None
    except RuntimeError as error:
        if not any(sign in str(error) for sign in _NO_MEMORY):
            raise
        raise OutOfMemoryError(f"out of memory: {message}") from None


# Encoders that mix weights of bf16 with numbers that they compute in float32.
_NOT_IN_BF16 = frozenset({"canine", "convbert", "deberta", "fnet", "funnel", "mobilebert", "xlnet"})


@dataclass(frozen=True, slots=True)
class Compute:
    """The device, precision and attention of a run.

    Attributes:
        device: "cuda", "mps" or "cpu".
        precision: precision of the frozen encoder and its activations; trained parameters are
            float32.
        attention: transformers' name of the attention implementation.
        why: one line on what was chosen and why.
        autocast: whether torch chooses the dtype of each operation, because weights have two
            dtypes, or because all are float32 and products should run in `precision`.
        products: "int8" if frozen linear layers multiply integers; see `engine.kernels.int8`.
    """

    device: str
    precision: Precision
    attention: str
    why: str
    autocast: bool = False
    products: Products = "float"

    def for_inference(self) -> Compute:
        """Return the choice for a model without trained parameters."""
        return replace(self, autocast=self.precision == "fp16")


@dataclass(frozen=True, slots=True)
class _Hardware:
    """A device, its name for messages, and the precisions it trains in, the best one first."""

    device: str
    name: str
    precisions: tuple[Precision, ...]


def choose_compute(
    *,
    precision: str,
    attention: str,
    products: Products = "float",
    config: Any = None,
    trains_all: bool = False,
) -> Compute:
    """Choose device, precision and attention for this machine and base.

    Args:
        precision: "auto" or the name of one.
        attention: "auto", "packed", or transformers' name of one.
        products: in which numbers frozen linear layers multiply.
        config: the base's config; without it, one that supports packed batches is assumed.
        trains_all: whether no weight is frozen; all weights are float32 then.

    Raises:
        TrainingError: the precision or the products do not work on this device, or the attention
            not with this base.
    """
    hardware = _hardware()
    kind = getattr(config, "model_type", None)
    precisions = hardware.precisions
    if kind in _NOT_IN_BF16:
        precisions = tuple(each for each in precisions if each != "bf16")
    if products == "int8" and hardware.device != "cpu":
        raise TrainingError(
            f"train.frozen_products: int8 is for CPUs, and this run uses {hardware.name}; use "
            "--set train.frozen_products=float"
        )
    if precision != "auto" and precision not in precisions:
        refusing = f"on this device ({hardware.name})"
        if precision in hardware.precisions:
            refusing = f"by transformers' {kind} encoders"
        raise TrainingError(
            f"train.precision: {precision} is not supported {refusing}; allowed here: auto, "
            f"{', '.join(sorted(precisions))}"
        )
    is_auto = precision == "auto"
    chosen: Precision = precisions[0] if is_auto else precision  # type: ignore[assignment]
    reason = "chosen automatically" if is_auto else "set by train.precision"
    numbers = "frozen products in int8, " if products == "int8" else ""
    kernel, batches = _choose_attention(attention, hardware.device, config)
    return Compute(
        hardware.device,
        chosen,
        kernel,
        why=f"{hardware.name}, {chosen} ({reason}), {numbers}{batches}",
        autocast=chosen == "fp16" or (trains_all and chosen != "fp32"),
        products=products,
    )


def _hardware() -> _Hardware:
    if torch.cuda.is_available():
        precisions: tuple[Precision, ...] = ("fp16", "fp32")
        if torch.cuda.is_bf16_supported():
            precisions = ("bf16", *precisions)
        return _Hardware("cuda", torch.cuda.get_device_name(), precisions)
    if torch.backends.mps.is_available():
        return _Hardware("mps", "Apple GPU", ("fp32",))
    return _Hardware("cpu", "CPU", ("bf16", "fp32") if _has_fast_bf16() else ("fp32", "bf16"))


def _has_fast_bf16() -> bool:
    capability = torch.backends.cpu.get_cpu_capability()
    return "AVX512" in capability and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _choose_attention(attention: str, device: str, config: Any) -> tuple[str, str]:
    """Return transformers' name of the attention, and a few words on the batches it gets."""
    packs = config is None or can_pack(config)
    if attention == "packed" and not packs:
        raise TrainingError(
            f"base.attention: {config.model_type} encoders do not support packed batches, only "
            f"{', '.join(FAMILIES)} encoders do; use --set base.attention=auto"
        )
    if attention == "packed" or (attention == "auto" and packs):
        return PACKED, "packed batches"
    if attention != "auto":
        return attention, f"padded batches with {attention} attention (set by base.attention)"
    # Measured on a CPU: the backward pass of fused attention is slower than the plain products.
    kernel = "eager" if device == "cpu" else "sdpa"
    return kernel, (
        f"padded batches with {kernel} attention ({config.model_type} encoders do not support "
        "packed batches)"
    )
