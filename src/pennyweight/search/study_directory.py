"""The layout of a study's directory: its table, and the runs of each row."""

from __future__ import annotations

import re
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from pennyweight.documents import read_document
from pennyweight.errors import RunError

__all__ = ["STUDY_FILE", "is_study", "row_directory", "study_runs"]

STUDY_FILE = "study.json"


class _Row(BaseModel):
    model_config = ConfigDict(frozen=True)

    name: str
    seeds: tuple[int, ...]


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True)

    rows: tuple[_Row, ...]


def row_directory(study: Path, number: int, name: str) -> Path:
    """Return the directory with a row's runs; rows are numbered from 1."""
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:60]
    return study / f"{number:02d}-{slug}"


def is_study(path: Path) -> bool:
    """Return whether a directory holds a study's table."""
    return (path / STUDY_FILE).is_file()


def study_runs(study: Path) -> dict[str, list[Path]]:
    """Return the directories of the complete runs of each row, by the row's name.

    Raises:
        RunError: the table cannot be read.
    """
    file = study / STUDY_FILE
    try:
        table = _Table.model_validate_json(read_document(file))
    except (OSError, ValueError):
        raise RunError(
            f"{file}: damaged, or written by another version; repeat `pennyweight study`"
        ) from None
    return {
        row.name: [row_directory(study, number, row.name) / f"seed-{seed}" for seed in row.seeds]
        for number, row in enumerate(table.rows, start=1)
    }
