"""Watch what a block does: processes it starts, connections, files it opens, time and memory."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["Watch", "watching"]

_FORBIDDEN = frozenset(
    {
        "os.system",
        "os.exec",
        "os.posix_spawn",
        "os.fork",
        "subprocess.Popen",
        "socket.connect",
        "socket.getaddrinfo",
        "pty.spawn",
    }
)


@dataclass
class Watch:
    """Events in a block.

    Attributes:
        events: forbidden events, such as a process that was started.
        opened: files that were opened through Python.
        seconds: processor time of the block, which does not depend on what else runs.
        bytes: by how much the peak of the resident memory exceeded what was used before.
    """

    events: list[str] = field(default_factory=list)
    opened: list[str] = field(default_factory=list)
    seconds: float = 0.0
    bytes: int = 0


_current: list[Watch] = []


def _hook(event: str, arguments: Any) -> None:
    if not _current:
        return
    if event in _FORBIDDEN:
        _current[-1].events.append(event)
    elif event == "open" and isinstance(arguments[0], str | bytes):
        path = arguments[0]
        _current[-1].opened.append(path.decode() if isinstance(path, bytes) else path)


# A hook cannot be removed, so there is one for all blocks.
sys.addaudithook(_hook)


@contextmanager
def watching() -> Iterator[Watch]:
    """Yield a `Watch` that is complete once the block has ended."""
    watch = Watch()
    before = _memory("VmRSS", reset=True)
    began = time.process_time()
    _current.append(watch)
    try:
        yield watch
    finally:
        _current.pop()
        watch.seconds = time.process_time() - began
        watch.bytes = max(0, _memory("VmHWM") - before)


def _memory(key: str, *, reset: bool = False) -> int:
    """Return a figure of `/proc/self/status` in bytes; 0 where there is none."""
    try:
        if reset:
            Path("/proc/self/clear_refs").write_text("5")
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:"))
