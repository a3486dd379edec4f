"""Start `planted_server.py`, ask it from many clients, and stop it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_SCRIPT = Path(__file__).with_name("planted_server.py")
_TESTS = _SCRIPT.parents[1]
# For the processes that tests start: the code that is tested, not what is installed.
SOURCE = _TESTS.parent / "src"


@dataclass(frozen=True, slots=True)
class ServerProcess:
    """A server that answers at `address`, and writes its log to `log`."""

    process: subprocess.Popen[str]
    address: str
    log: Path


@contextmanager
def serving(
    folder: Path,
    *,
    log: Path,
    seconds: float = 0.0,
    seconds_per_row: float = 0.0,
    queue_rows: int = 1024,
    timeout: float = 30.0,
) -> Iterator[ServerProcess]:
    """Yield a server of all planted runs in a folder."""
    command = [sys.executable, str(_SCRIPT), str(folder)]
    command += [str(seconds), str(seconds_per_row), str(queue_rows), str(timeout)]
    paths = [str(_TESTS), str(SOURCE)]
    with (
        log.open("w") as errors,
        subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        ) as process,
    ):
        try:
            assert process.stdout is not None
            address = process.stdout.readline().strip()
            assert address, log.read_text()
            yield ServerProcess(process, address, log)
        finally:
            process.kill()
