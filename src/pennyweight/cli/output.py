"""Output of commands besides tables, and settings that keep libraries from printing."""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import logging
import os
from pathlib import Path

import typer

__all__ = [
    "exit_quickly",
    "log_to_stderr",
    "preload",
    "print_json",
    "print_rows_written",
    "quiet_libraries",
    "share_cores",
]

_QUIET = {
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "TOKENIZERS_PARALLELISM": "true",
}

_NO_COMPILER = "TORCHDYNAMO_DISABLE"
# What a user sets to decide how threads wait.
_WAITING = frozenset({"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"})


def quiet_libraries() -> None:
    """Turn off progress bars and notices of the libraries."""
    # Through the environment, so that a command does not import a library that it does not need.
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    # On import it lists faster kernels that are not installed.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


def share_cores() -> None:
    """Let OpenMP's threads sleep soon while they wait for each other, before PyTorch is loaded.

    By default they spin for milliseconds, and take the cores away from the thread that they wait
    for if other programs run as well.
    """
    if not _WAITING & os.environ.keys():
        os.environ["GOMP_SPINCOUNT"] = "2000"


def exit_quickly() -> None:
    """Leave out the interpreter's last search for garbage, after all other functions at exit.

    It visits every object of every library once more, which takes a second after PyTorch and
    transformers are loaded.
    """
    atexit.register(gc.freeze)


def preload(*modules: str) -> None:
    """Import modules faster than an import statement; for commands that compile nothing.

    PEFT imports bitsandbytes where it is installed, which prepares functions for `torch.compile` on
    import. The compiler takes longer to import than everything else of a plan, and is not needed
    where `TORCHDYNAMO_DISABLE` is set. Imports leave no garbage to look for.
    """
    collects = gc.isenabled()
    given = os.environ.get(_NO_COMPILER)
    os.environ[_NO_COMPILER] = "1"
    gc.disable()
    try:
        for module in modules:
            importlib.import_module(module)
    finally:
        if collects:
            gc.enable()
        if given is None:
            del os.environ[_NO_COMPILER]
        else:
            os.environ[_NO_COMPILER] = given


def log_to_stderr(line: str) -> None:
    """Print a line of progress to standard error, so that standard output can be piped."""
    typer.echo(line, err=True)


def print_json(value: object) -> None:
    """Print a value as JSON to standard output."""
    typer.echo(json.dumps(value, indent=1, ensure_ascii=False))


def print_rows_written(rows: int, out: Path, *, set_aside: int = 0) -> None:
    """Print how many rows were written, and where; and how many others could not be used."""
    typer.echo(f"{rows:,} rows in {out}")
    if set_aside:
        are = "row is" if set_aside == 1 else "rows are"
        typer.echo(f"{set_aside:,} bad {are} set aside and not among them")
