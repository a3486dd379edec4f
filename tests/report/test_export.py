"""TensorBoard and MLflow receive the same curves, metrics and figures."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from pennyweight.cli.main import app
from pennyweight.runs.record import load_record


def test_tensorboard_gets_curves_and_figures(finished: Path, tmp_path: Path) -> None:
    command = ["report", str(finished / "one"), "--out", str(tmp_path / "out"), "--only", "figures"]
    result = CliRunner().invoke(app, [*command, "--tensorboard", str(tmp_path / "tb")])
    assert result.exit_code == 0, result.output
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "tb" / "one")).Reload()
    record = load_record(finished / "one")
    losses = [entry.value for entry in events.Scalars("train/loss")]
    assert losses == pytest.approx([entry.loss for entry in record.history])
    assert "confusion" in events.Tags()["images"]


def test_mlflow_gets_them_too(finished: Path, tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow")
    from pennyweight.report.export import to_mlflow

    to_mlflow([finished / "one"], tmp_path / "mlflow")
    (run,) = mlflow.search_runs(experiment_names=["pennyweight"], output_format="list")
    record = load_record(finished / "one")
    assert run.data.metrics["final.test.accuracy"] == record.metrics["test"].accuracy
