"""The layout of a study's directory: its table, and the runs of each row."""

from __future__ import annotations

import re
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from pennyweight.documents import read_document
from pennyweight.errors import RunError

__all__ = ["CHOICE", "STUDY_FILE", "is_study", "row_directory", "row_title", "study_runs"]

STUDY_FILE = "study.json"
# Below a row's directory: the runs among which its values are chosen.
CHOICE = "choose"


class _Row(BaseModel):
    model_config = ConfigDict(frozen=True)

    name: str
    seeds: tuple[int, ...]
    dataset: str = ""


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True)

    rows: tuple[_Row, ...]


def row_directory(study: Path, number: int, name: str, dataset: str = "") -> Path:
    """Return the directory with a row's runs; rows are numbered from 1.

    In a study with several data sets, it is the directory with those on one of them.
    """
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:60]
    return study / f"{number:02d}-{slug}" / dataset


def row_title(name: str, dataset: str) -> str:
    """Return the name of a row with that of the data set, if the study has several."""
    return f"{name}, {dataset}" if dataset else name


def is_study(path: Path) -> bool:
    """Return whether a directory holds a study's table."""
    return (path / STUDY_FILE).is_file()


def study_runs(study: Path) -> dict[str, list[Path]]:
    """Return the directories of the complete runs of each row, by the row's name.

    With several data sets, a row has runs on each of them, and its name is followed by theirs.

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
    numbers = {
        name: number
        for number, name in enumerate(dict.fromkeys(row.name for row in table.rows), start=1)
    }
    return {
        row_title(row.name, row.dataset): [
            row_directory(study, numbers[row.name], row.name, row.dataset) / f"seed-{seed}"
            for seed in row.seeds
        ]
        for row in table.rows
    }
