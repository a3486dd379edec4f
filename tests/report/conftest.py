"""Two finished runs, one study, and a run under way, all tiny."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from pennyweight.runs.training import train
from runs.tiny import bert, own_cache, roberta, sets, tiny_recipe

__all__ = ["bert", "finished", "own_cache", "roberta", "sets"]


@pytest.fixture(scope="session")
def finished(
    roberta: Path, bert: Path, sets: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A folder with the runs `one` and `other`, and `going` that is not complete."""
    folder = tmp_path_factory.mktemp("finished")
    for name, base in (("one", roberta), ("other", bert)):
        recipe = tiny_recipe(base, sets, train={"epochs": 3}, evaluate={"calibration_bins": 5})
        train(recipe.model_copy(update={"name": f"tiny {name}"}), out=folder / name)
    shutil.copytree(folder / "one", folder / "going")
    record = json.loads((folder / "one" / "record.json").read_text())
    going = {**record, "status": "running", "metrics": {}, "mistakes": {}, "parameters": {}}
    (folder / "going" / "record.json").write_text(json.dumps(going))
    return folder
