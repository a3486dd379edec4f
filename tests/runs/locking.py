"""Another process that holds the lock of a run's directory."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_CODE = """
import sys
from pathlib import Path
from pennyweight.runs.directory import RunDirectory, lock_run
with lock_run(RunDirectory(Path(sys.argv[1]))):
    print("locked", flush=True)
    sys.stdin.readline()
"""


@contextmanager
def another_process_trains(run: Path) -> Iterator[subprocess.Popen[str]]:
    """Hold the lock of a run's directory in another process until the block ends."""
    with subprocess.Popen(
        [sys.executable, "-c", _CODE, str(run)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        try:
            yield process
        finally:
            process.kill()
