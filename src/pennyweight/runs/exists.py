"""Check that a directory is a run, without loading the schema of its record."""

from __future__ import annotations

import difflib
from pathlib import Path

from pennyweight.errors import RunError

__all__ = ["RECORD", "require_run"]

RECORD = "record.json"
_SHOWN = 3


def require_run(run: str | Path) -> None:
    """Check that a directory holds a run's record.

    Raises:
        RunError: it holds none.
    """
    if not _is_run(Path(run)):
        raise RunError(f"{run}: not a run: {RECORD} is missing; {_advice(Path(run))}")


def _is_run(path: Path) -> bool:
    return (path / RECORD).is_file()


def _runs_in(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if _is_run(path))
    except OSError:
        return []


def _advice(path: Path) -> str:
    """Return how to name a run instead: one inside, one of a similar name, or a new one."""
    if runs := _runs_in(path):
        others = ", ..." if len(runs) > _SHOWN else ""
        return f"it holds the runs {', '.join(map(str, runs[:_SHOWN]))}{others}"
    names = {run.name: run for run in _runs_in(path.parent)}
    if similar := difflib.get_close_matches(path.name, names, n=1):
        return f"did you mean {names[similar[0]]}?"
    if path.is_dir() and any(path.iterdir()):
        return "name the directory of a finished run"
    return f"train one with --out {path}"
