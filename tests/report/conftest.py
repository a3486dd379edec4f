"""Two finished runs and one under way, all tiny, and a report about the finished ones."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from pennyweight.report.write import PaperOptions, write_report
from pennyweight.training.train import train
from tiny import BASELINES, tiny_recipe

PROSE = """# Overview

Our *own* words with `code`, 50 % and a_b # $x$, shown in [fig:curves].

# Related work

- one **strong** item
- another

# Lessons

What we learned.
"""


@pytest.fixture(scope="session")
def finished(
    roberta: Path, bert: Path, sets: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A folder with the runs `one` and `other`, and `going`, which is not complete."""
    folder = tmp_path_factory.mktemp("finished")
    for name, base in (("one", roberta), ("other", bert)):
        recipe = tiny_recipe(
            base, sets, train={"epochs": 3}, evaluate={"calibration_bins": 5, **BASELINES}
        )
        train(recipe.model_copy(update={"name": f"tiny {name}"}), out=folder / name)
    shutil.copytree(folder / "one", folder / "going")
    record = json.loads((folder / "one" / "record.json").read_text())
    going = {**record, "status": "running", "metrics": {}, "mistakes": {}, "parameters": None}
    (folder / "going" / "record.json").write_text(json.dumps(going))
    return folder


@pytest.fixture(scope="session")
def report(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete report about both runs, with prose of the author's."""
    pytest.importorskip("typst")
    out = tmp_path_factory.mktemp("report")
    prose = out / "prose.md"
    prose.write_text(PROSE)
    paper = PaperOptions("Title & more", ("A. One", "B. Two"), "https://example.org/x_y", prose)
    write_report([finished / "one", finished / "other"], out=out, paper=paper)
    return out
