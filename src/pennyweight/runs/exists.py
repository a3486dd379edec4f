"""Check that a directory is a run, without loading the schema of its record."""

from __future__ import annotations

from pathlib import Path

from pennyweight.errors import RunError

__all__ = ["RECORD", "require_run"]

RECORD = "record.json"


def require_run(run: str | Path) -> None:
    """Check that a directory holds a run's record.

    Raises:
        RunError: it holds none.
    """
    if not (Path(run) / RECORD).is_file():
        raise RunError(f"{run}: not a run: {RECORD} is missing; train one with --out {run}")
