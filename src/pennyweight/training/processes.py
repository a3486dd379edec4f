"""Several processes that train one model: how long they wait for each other, and what they send."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs, broadcast_object_list
from torch.nn.parallel import DistributedDataParallel

from pennyweight.errors import RunError, TerminatedError, TrainingError, first_line
from pennyweight.signals import ended_processes

__all__ = [
    "TIMEOUT",
    "explaining_lost_processes",
    "gradient_bytes",
    "of_main_process",
    "share_model",
    "waiting",
]

_Value = TypeVar("_Value")

TIMEOUT = "PENNYWEIGHT_TIMEOUT_SECONDS"
_DEFAULT_SECONDS = 1800


def waiting() -> InitProcessGroupKwargs:
    """Return for accelerate how long processes wait for each other before they give up.

    Raises:
        RunError: the environment variable `TIMEOUT` is set to something else than a whole number.
    """
    return InitProcessGroupKwargs(timeout=timedelta(seconds=_timeout_seconds()))


def _timeout_seconds() -> int:
    text = os.environ.get(TIMEOUT, "").strip() or str(_DEFAULT_SECONDS)
    if not text.isdecimal() or not 0 < int(text[:10]) < 2**31:
        raise RunError(
            f"{TIMEOUT}: given {text[:40]!r}; allowed: a whole number of seconds from 1, which "
            "processes that train together wait for each other"
        )
    return int(text)


def gradient_bytes(model: torch.nn.Module) -> int:
    """Return the size of the gradients of all trained parameters, in bytes.

    Gradients have the dtype of their parameters.
    """
    return sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)


def share_model(accelerator: Accelerator, model: Any) -> Any:
    """Return a model that is wrapped for the processes of an accelerator.

    In each step, the processes exchange the gradients of the trained parameters and nothing else of
    the model.
    """
    model = accelerator.prepare(model)
    if isinstance(model, DistributedDataParallel):
        # Buffers, such as the frozen matrices of VeRA, would be sent before each forward pass. They
        # are constant, and equal from the start. Accelerate knows the setting by a name only that
        # torch has deprecated.
        model.forward_sync_buffers = False
    return model


def of_main_process(value: _Value) -> _Value:
    """Return what the main process has called this function with, in every process.

    What is decided by a clock must be decided once: processes that take different numbers of steps
    wait for each other forever.
    """
    (shared,) = broadcast_object_list([value])
    result: _Value = shared
    return result


@contextmanager
def explaining_lost_processes(
    accelerator: Accelerator, *, rest: Callable[[], str]
) -> Iterator[None]:
    """Say that another process has ended, where this one fails because of that.

    Args:
        accelerator: of the processes.
        rest: returns how to continue, for the message.

    Raises:
        TrainingError: another process has ended, or has not answered in time.
    """
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, TerminatedError) as error:
        # The launcher stops all processes when one of them ends, and its signal may come first.
        is_stopped = isinstance(error, TerminatedError)
        ended = error.ended if isinstance(error, TerminatedError) else ended_processes()
        if accelerator.num_processes == 1 or (is_stopped and not ended):
            raise
        reason = (
            f"which has ended: process {', '.join(map(str, ended))}"
            if ended
            else f"which has probably ended, or has not answered for {_timeout_seconds()} seconds "
            f"({TIMEOUT}): {_reason(error)}"
        )
        raise TrainingError(
            f"process {accelerator.process_index} cannot go on without another process of this "
            f"training, {reason}; {rest()}"
        ) from None


def _reason(error: BaseException) -> str:
    """Return what gloo or NCCL say, without the place in their source and their advice."""
    return re.sub(r"^\[\S+:\d+\] ", "", first_line(error)).partition(". ")[0]
