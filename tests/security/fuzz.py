"""Fuzz every parser for some minutes: coverage-guided with atheris, else with hypothesis.

    python tests/security/fuzz.py --minutes 2 [--target NAME ...]

Prints the executions, the slowest input in seconds and the peak memory of each parser. An
undeclared exception ends the run with its traceback and the input, which belongs into a test.
"""

from __future__ import annotations

import argparse
import importlib.util
import random
import resource
import subprocess
import sys
import time
from pathlib import Path

_TESTS = Path(__file__).resolve().parents[1]
_LONGEST_SECONDS, _LARGEST_MIB = 10.0, 1024


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=1.0, help="in all")
    parser.add_argument("--target", action="append", help="a parser; can be repeated")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    sys.path.insert(0, str(_TESTS))
    if options.one:
        return _fuzz(options.one, seconds=options.minutes * 60)
    from security.fuzz_targets import TARGETS

    names = options.target or list(TARGETS)
    guided = importlib.util.find_spec("atheris") is not None
    print("coverage-guided by atheris" if guided else "atheris is not installed: mutations only")
    failed = []
    for name in names:
        share = str(options.minutes / len(names))
        command = [sys.executable, __file__, "--one", name, "--minutes", share]
        if subprocess.run(command, check=False).returncode:
            failed.append(name)
    print(f"failed: {', '.join(failed)}" if failed else "no undeclared exception")
    return bool(failed)


class _Counter:
    """Runs a target, and remembers how often, and how long the slowest input took."""

    def __init__(self, name: str) -> None:
        from security.fuzz_targets import TARGETS

        self._name = name
        self._target = TARGETS[name]
        self.runs = 0
        self.slowest = 0.0

    def __call__(self, content: bytes) -> None:
        began = time.monotonic()
        try:
            self._target.run(content)
        except Exception:
            print(f"{self._name}: undeclared exception for {content!r}", flush=True)
            raise
        self.runs += 1
        self.slowest = max(self.slowest, time.monotonic() - began)

    def report(self) -> int:
        """Print the figures, and return the exit code."""
        mebibytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        print(
            f"{self._name:<15} {self.runs:>9,} executions, slowest {self.slowest:6.2f} s, "
            f"peak {mebibytes:,} MiB",
            flush=True,
        )
        return int(self.slowest > _LONGEST_SECONDS or mebibytes > _LARGEST_MIB)


def _fuzz(name: str, *, seconds: float) -> int:
    if importlib.util.find_spec("atheris") is None:
        return _mutate(_Counter(name), name, seconds=seconds)
    return _guided(name, seconds=seconds)


def _mutate(counter: _Counter, name: str, *, seconds: float) -> int:
    from security.fuzz_targets import TARGETS
    from security.test_fuzz import mutated

    draw = random.Random(0)
    seeds = TARGETS[name].seeds
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        changes = [
            (draw.random(), draw.randrange(8), draw.randbytes(draw.randrange(5)))
            for _ in range(draw.randrange(1, 6))
        ]
        counter(mutated(draw.choice(seeds), changes))
    return counter.report()


def _guided(name: str, *, seconds: float) -> int:
    import tempfile

    import atheris

    # Only Pennyweight's own code is traced; the libraries would drown it.
    with atheris.instrument_imports(include=["pennyweight"]):
        from security.fuzz_targets import TARGETS
    counter = _Counter(name)
    with tempfile.TemporaryDirectory() as corpus:
        for number, seed in enumerate(TARGETS[name].seeds):
            (Path(corpus) / str(number)).write_bytes(seed)
        end = time.monotonic() + seconds

        def test(content: bytes) -> None:
            if time.monotonic() > end:
                # libFuzzer ends the process itself, without returning to Python.
                import os

                code = counter.report()
                sys.stdout.flush()
                os._exit(code)
            counter(content)

        arguments = [sys.argv[0], corpus, "-max_len=65536", "-rss_limit_mb=4096", "-verbosity=0"]
        atheris.Setup(arguments, test)
        atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())
