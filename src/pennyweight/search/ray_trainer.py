"""One process of a Ray cluster that trains: it is an actor, and is asked for what happens."""

from __future__ import annotations

import os
import platform
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Literal

from filelock import FileLock, Timeout

from pennyweight.errors import PennyweightError, RunError
from pennyweight.runs.directory import RunDirectory

__all__ = ["Channel", "Event", "Order", "Trainer"]

# The file system of a lost node may release its locks late.
_LOCK_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Order:
    """Something to train, as a value that can be sent to another process.

    Attributes:
        name: for messages.
        directory: of the run.
        call: trains it, and returns what is sent back.
    """

    name: str
    directory: Path
    call: Callable[[Channel], Any]


@dataclass(frozen=True, slots=True)
class Event:
    """The outcome of a training.

    Attributes:
        kind: "line" to log; "question", which the training waits to be answered; "result" of the
            order's call; "failure", the `PennyweightError` that ended it; or "crash", another
            exception.
        value: of that kind.
    """

    kind: Literal["line", "question", "result", "failure", "crash"]
    value: Any


@dataclass(frozen=True, slots=True)
class Channel:
    """How a training speaks with the process that has ordered it.

    Attributes:
        events: what happened, for the actor to pass on.
        answers: to questions among them.
    """

    events: SimpleQueue[Event] = field(default_factory=SimpleQueue)
    answers: SimpleQueue[Any] = field(default_factory=SimpleQueue)

    def log(self, line: str) -> None:
        """Have a line logged."""
        self.events.put(Event("line", line))

    def ask(self, question: Any) -> Any:
        """Return the answer to a question."""
        self.events.put(Event("question", question))
        return self.answers.get()


class Trainer:
    """Trains one order after the other, each in a thread, so that it can be asked meanwhile.

    Args:
        working_directory: in which relative paths are looked up.
        shared: a file that the ordering process has written into the output directory.
        threads: of the CPU, for each training.
        uses_gpu: whether Ray has set GPUs aside for this process; else it sees none.

    Raises:
        RunError: this node does not share the file system.
    """

    def __init__(
        self, working_directory: Path, shared: Path, *, threads: int, uses_gpu: bool
    ) -> None:
        if not uses_gpu:
            os.environ["CUDA_VISIBLE_DEVICES"] = ""
        self._threads = threads
        self._channel = Channel()
        try:
            os.chdir(working_directory)
            is_shared = shared.is_file()
        except OSError:
            is_shared = False
        self._refusal = None if is_shared else _not_shared(working_directory, shared.parent)

    def node(self) -> str:
        """Return the name of this node.

        Raises:
            RunError: it does not share the file system.
        """
        if self._refusal is not None:
            raise RunError(self._refusal)
        return platform.node()

    def begin(self, order: Order, *, is_retry: bool) -> Event:
        """Begin to train, and return what happens first."""
        self._channel = Channel()
        arguments = (order, self._channel, is_retry)
        threading.Thread(target=self._train, args=arguments, daemon=True).start()
        return self.next_event()

    def answer(self, value: Any) -> Event:
        """Answer a question, and return what happens next."""
        self._channel.answers.put(value)
        return self.next_event()

    def next_event(self) -> Event:
        """Return what happens next."""
        return self._channel.events.get()

    def _train(self, order: Order, channel: Channel, is_retry: bool) -> None:
        import torch

        torch.set_num_threads(self._threads)
        try:
            if is_retry:
                _wait_for_lock(order.directory)
            channel.events.put(Event("result", order.call(channel)))
        except PennyweightError as error:
            channel.events.put(Event("failure", error))
        except BaseException as error:  # noqa: BLE001 - raised again by the ordering process
            channel.events.put(Event("crash", error))


def _not_shared(working_directory: Path, out: Path) -> str:
    return (
        f"--engine ray: node {platform.node()} does not see {out} from {working_directory}; all "
        "nodes need the output, the data and the base model at the same paths: use a file system "
        "that they share, and start the command in a directory on it"
    )


def _wait_for_lock(directory: Path) -> None:
    """Wait until the process that trained a run before has ended for the file system as well.

    Raises:
        RunError: it has not.
    """
    if not directory.is_dir():
        return
    try:
        with FileLock(RunDirectory(directory).lock, timeout=_LOCK_SECONDS):
            return
    except Timeout:
        raise RunError(
            f"{directory}: is still locked by the process that trained it, {_LOCK_SECONDS:.0f} s "
            "after Ray has lost it; stop that process, and repeat the command"
        ) from None
