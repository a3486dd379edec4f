"""Run commands of Pennyweight in processes that start at once, to kill them at any moment.

Run as a program, this file imports Pennyweight and forks a process for each command, which it reads
from standard input as a line of JSON. `CommandServer` starts it and talks to it.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Ended:
    """A command that has ended: its exit code, -N after signal N, and all that it printed."""

    code: int
    output: str
    seconds: float

    @property
    def last_line(self) -> str:
        """The last line that it printed."""
        return self.output.strip().rpartition("\n")[2]


class Command:
    """A command under way."""

    def __init__(self, server: CommandServer, pid: int, log: Path) -> None:
        self.pid = pid
        self.log = log
        self._server = server
        self._began = time.perf_counter()

    def signal(self, number: int) -> None:
        """Send a signal, unless the command has ended."""
        try:
            os.kill(self.pid, number)
        except ProcessLookupError:
            return

    def wait_for(self, text: str, *, seconds: float = 120.0) -> None:
        """Wait until the command has printed a text, or has ended."""
        end = time.monotonic() + seconds
        while text not in self.log.read_text(errors="replace") and time.monotonic() < end:
            time.sleep(0.005)

    def wait(self, *, kill_after: float | None = None) -> Ended:
        """Wait for the end of the command.

        Args:
            kill_after: after so many seconds the command is killed, with SIGKILL; None for never.
        """
        timer = None
        if kill_after is not None:
            timer = threading.Timer(kill_after, self.signal, [signal.SIGKILL])
            timer.start()
        code = self._server.ask({"wait": self.pid})
        if timer is not None:
            timer.cancel()
        seconds = time.perf_counter() - self._began
        return Ended(code, self.log.read_text(errors="replace"), seconds)


class CommandServer:
    """Starts commands; every one may run beside the others."""

    def __init__(self, logs: Path, *, cache: Path) -> None:
        self._logs = logs
        self._commands = 0
        self._cache = cache
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"},
        )

    def start(
        self,
        *arguments: str | Path,
        cwd: Path,
        cache: Path | None = None,
        limits: dict[str, int] | None = None,
        prelude: str = "",
    ) -> Command:
        """Start `pennyweight ARGUMENTS`.

        Args:
            arguments: of the command.
            cwd: its working directory.
            cache: Pennyweight's cache; None for one that all commands share.
            limits: `setrlimit` values by the name of the resource, for example "RLIMIT_AS".
            prelude: Python that is run before.
        """
        self._commands += 1
        log = self._logs / f"{self._commands:05d}.log"
        log.touch()
        request = {
            "arguments": list(map(str, arguments)),
            "cwd": str(cwd),
            "log": str(log),
            "cache": str(cache or self._cache),
            "limits": limits or {},
            "prelude": prelude,
        }
        return Command(self, self.ask(request), log)

    def run(self, *arguments: str | Path, **options: Any) -> Ended:
        """Start a command and wait for its end; the options are those of `start`."""
        return self.start(*arguments, **options).wait()

    def ask(self, request: dict[str, Any]) -> int:
        """Return the answer to a request."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def close(self) -> None:
        """End the server."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


def _serve() -> None:
    _import_everything()
    # Collections in the forked processes would go through, and so copy, all that was imported.
    gc.collect()
    gc.freeze()
    for line in sys.stdin:
        request = json.loads(line)
        if "wait" in request:
            _, status = os.waitpid(request["wait"], 0)
            answer = os.waitstatus_to_exitcode(status)
        else:
            answer = os.fork()
            if answer == 0:
                _run(request)
        sys.stdout.write(f"{answer}\n")
        sys.stdout.flush()


def _import_everything() -> None:
    """Import what commands import late, and run none of it: threads do not survive a fork."""
    import pennyweight.cli.main
    import pennyweight.inference.parts.predict_files
    import pennyweight.inference.predict
    import pennyweight.lab.language_model
    import pennyweight.search.search
    import pennyweight.search.studies
    import pennyweight.training.train  # noqa: F401


def _run(request: dict[str, Any]) -> None:
    """Run a command in this process, which has just been forked, and end it."""
    descriptor = os.open(request["log"], os.O_WRONLY | os.O_APPEND)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (descriptor, 1), (descriptor, 2)):
        os.dup2(source, target)
    os.chdir(request["cwd"])
    os.environ["PENNYWEIGHT_CACHE"] = request["cache"]
    for name, value in request["limits"].items():
        resource.setrlimit(getattr(resource, name), (value, value))
    code: Any = 1
    try:
        exec(request["prelude"], {})
        from pennyweight.cli.main import main

        sys.argv = ["pennyweight", *request["arguments"]]
        main()
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:  # noqa: BLE001 - as the interpreter would do
        import traceback

        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    _serve()
