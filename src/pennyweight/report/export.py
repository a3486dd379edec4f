"""Exports of runs to TensorBoard and MLflow: curves, final metrics and figures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

from pennyweight.environment import without_host_name
from pennyweight.errors import ReportError
from pennyweight.report.facts import Facts, RunFacts, load_facts
from pennyweight.report.figures import FIGURES, draw

__all__ = ["to_mlflow", "to_tensorboard"]

_EXPERIMENT = "pennyweight"


def to_tensorboard(runs: Sequence[str | Path], folder: Path) -> None:
    """Write each run's curves, final metrics and figures as TensorBoard logs.

    Raises:
        RunError: no run is complete.
    """
    from torch.utils.tensorboard.writer import SummaryWriter

    facts = load_facts(runs)
    for run in facts.runs:
        with without_host_name():
            summary = SummaryWriter(str(folder / facts.directory(run)))
        with summary as writer:
            for name, value, step in _scalars(run):
                writer.add_scalar(name, value, step)
            for name in FIGURES:
                figure = draw(name, Facts((run,)))
                if figure is not None:
                    writer.add_figure(name, figure)


def to_mlflow(runs: Sequence[str | Path], folder: Path) -> None:
    """Write each run's recipe, curves, final metrics and figures as an MLflow run.

    Raises:
        RunError: no run is complete.
        ReportError: MLflow is not installed.
    """
    if find_spec("mlflow") is None:
        raise ReportError("--mlflow needs MLflow; run: pip install 'pennyweight[mlflow]'")
    import mlflow

    folder.mkdir(parents=True, exist_ok=True)
    mlflow.set_tracking_uri(f"sqlite:///{(folder / 'mlflow.db').resolve()}")
    if mlflow.get_experiment_by_name(_EXPERIMENT) is None:
        artifacts = (folder / "artifacts").resolve().as_uri()
        mlflow.create_experiment(_EXPERIMENT, artifact_location=artifacts)
    mlflow.set_experiment(_EXPERIMENT)
    facts = load_facts(runs)
    for run in facts.runs:
        record = run.record
        with mlflow.start_run(run_name=facts.label(run)):
            mlflow.log_dict(record.recipe.model_dump(mode="json"), "recipe.json")
            counts = record.parameters.model_dump() if record.parameters else {}
            mlflow.log_params({"seed": record.recipe.seed, **counts})
            for name, value, step in _scalars(run):
                mlflow.log_metric(name.replace("/", "."), value, step=step)
            for name in FIGURES:
                figure = draw(name, Facts((run,)))
                if figure is not None:
                    mlflow.log_figure(figure, f"{name}.png")


def _scalars(run: RunFacts) -> Iterator[tuple[str, float, int]]:
    """Yield the name, value and step of every curve's points and of every final metric."""
    for step, loss in run.losses:
        yield "train/loss", loss, step
    for metric in ("accuracy", "macro_f1", "nll"):
        for step, value in run.evaluations(metric):
            yield f"validation/{metric}", value, step
    last = run.losses[-1][0] if run.losses else 0
    for name, metrics in run.record.metrics.items():
        yield f"final/{name}/accuracy", metrics.accuracy, last
        yield f"final/{name}/macro_f1", metrics.macro_f1, last
