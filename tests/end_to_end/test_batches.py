"""How batches are made must not cost accuracy: packed or padded, grouped by length or random."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import pennyweight

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_packing_and_grouping_do_not_cost_accuracy(tmp_path: Path) -> None:
    study = pennyweight.load_study(
        ROOT / "benchmarks" / "packed-or-padded.toml", overrides=["train.epochs=3"]
    )
    padded, packed, shuffled = pennyweight.run_study(study, out=tmp_path / "out")
    for row in (packed, shuffled):
        for name in ("validation", "test"):
            differences = np.subtract(row.values[name], padded.values[name])
            # Three standard errors of the mean difference, and a row or two beside them.
            error = differences.std(ddof=1) / len(differences) ** 0.5
            assert abs(differences.mean()) < 3 * error + 0.01
