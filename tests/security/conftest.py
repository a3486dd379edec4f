"""Fixtures: the tiny bases, and what hostile files must not touch."""

from __future__ import annotations

import shutil
from pathlib import Path

import datasets
import pytest

from security.hostile import SECRET, Place


@pytest.fixture
def place(tmp_path: Path, bert: Path) -> Place:
    """A folder for hostile files, and beside it a folder that they must not read."""
    folder, outside = tmp_path / "folder", tmp_path / "outside"
    folder.mkdir()
    datasets.Dataset.from_dict({"text": [SECRET], "label": [0]}).save_to_disk(str(outside))
    next(outside.glob("*.arrow")).rename(outside / "rows.arrow")
    shutil.copytree(bert, outside / "other-base")
    secret = outside / "secret"
    secret.write_text(f"{SECRET}\n")
    return Place(folder, tmp_path / "marker", secret, bert)
