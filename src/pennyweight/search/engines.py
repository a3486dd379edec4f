"""Where the workers of a search run. An engine returns when all trials are done."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Mapping
from dataclasses import replace
from multiprocessing.connection import Connection, wait
from types import MappingProxyType
from typing import Protocol

from pennyweight.errors import PennyweightError, RunError
from pennyweight.search.job import SearchJob
from pennyweight.search.worker import Log, work

__all__ = ["ENGINES", "Engine"]


class Engine(Protocol):
    """Runs `work` in as many processes as the job asks for, and returns when they have ended."""

    def __call__(self, job: SearchJob, *, log: Log) -> None:
        """Train all trials of a search.

        Raises:
            PennyweightError: a worker could not go on.
        """


def _local(job: SearchJob, *, log: Log) -> None:
    """Train in this process, or in several on this machine, each with its share of threads."""
    if job.workers == 1:
        work(job, log=log)
        return
    # Forked processes would share the locks and threads of torch.
    context = multiprocessing.get_context("spawn")
    threads = max(1, _cores() // job.workers)
    processes, connections = [], []
    for _ in range(job.workers):
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=_worker, args=(replace(job, workers=1), threads, sender))
        process.start()
        sender.close()
        processes.append(process)
        connections.append(receiver)
    try:
        errors = _listen(connections, log)
    finally:
        # After Ctrl-C, which reaches all of them, each finishes the step under way.
        for process in processes:
            process.join()
    if errors:
        raise RunError(errors[0])
    codes = [process.exitcode for process in processes if process.exitcode]
    if codes:
        raise RunError(
            f"{len(codes)} of {job.workers} workers ended with exit code {codes[0]}; the same "
            "command continues the search"
        )


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _worker(job: SearchJob, threads: int, sender: Connection) -> None:
    """Work in a process of its own; lines and the error that ends it go to the parent."""
    import torch

    torch.set_num_threads(threads)

    def log(line: str) -> None:
        try:
            sender.send(("line", line))
        except OSError:  # the parent has ended
            raise KeyboardInterrupt from None

    try:
        work(job, log=log)
    except PennyweightError as error:
        sender.send(("error", str(error)))
    except KeyboardInterrupt:
        raise SystemExit(130) from None


def _listen(connections: list[Connection], log: Log) -> list[str]:
    """Log what workers say until all have ended; return the errors that ended them."""
    errors: list[str] = []
    still_open = list(connections)
    while still_open:
        for ready in wait(still_open):
            assert isinstance(ready, Connection)  # noqa: S101 - given above
            try:
                kind, text = ready.recv()
            except (EOFError, OSError):  # it has ended, or was killed while it sent a line
                still_open.remove(ready)
                continue
            if kind == "error":
                errors.append(text)
            else:
                log(text)
    return errors


ENGINES: Mapping[str, Engine] = MappingProxyType({"local": _local})
