"""The same curves and figures for those who live in TensorBoard or MLflow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

from pennyweight.errors import ReportError
from pennyweight.report.facts import Facts, RunFacts, load_facts
from pennyweight.report.figures import FIGURES, draw

__all__ = ["to_mlflow", "to_tensorboard"]


def to_tensorboard(runs: Sequence[str | Path], folder: Path) -> None:
    """Write each run's curves, final metrics and figures as TensorBoard logs.

    Raises:
        RunError: there is no complete run.
    """
    from torch.utils.tensorboard.writer import SummaryWriter

    for run in load_facts(runs).runs:
        with SummaryWriter(str(folder / run.path.resolve().name)) as writer:
            for name, value, step in _scalars(run):
                writer.add_scalar(name, value, step)
            for name in FIGURES:
                figure = draw(name, Facts((run,)))
                if figure is not None:
                    writer.add_figure(name, figure)


def to_mlflow(runs: Sequence[str | Path], folder: Path) -> None:
    """Write each run's recipe, curves, final metrics and figures as an MLflow run.

    Raises:
        RunError: there is no complete run.
        ReportError: MLflow is missing.
    """
    if find_spec("mlflow") is None:
        raise ReportError("--mlflow needs MLflow; pip install 'pennyweight[mlflow]'")
    import mlflow

    folder.mkdir(parents=True, exist_ok=True)
    mlflow.set_tracking_uri(f"sqlite:///{(folder / 'mlflow.db').resolve()}")
    name = "pennyweight"
    if mlflow.get_experiment_by_name(name) is None:
        mlflow.create_experiment(name, artifact_location=(folder / "artifacts").resolve().as_uri())
    mlflow.set_experiment(name)
    for run in load_facts(runs).runs:
        with mlflow.start_run(run_name=run.name):
            mlflow.log_dict(run.record.recipe, "recipe.json")
            mlflow.log_params({"seed": run.record.recipe["seed"], **run.record.parameters})
            for scalar, value, step in _scalars(run):
                mlflow.log_metric(scalar.replace("/", "."), value, step=step)
            for figure_name in FIGURES:
                figure = draw(figure_name, Facts((run,)))
                if figure is not None:
                    mlflow.log_figure(figure, f"{figure_name}.png")


def _scalars(run: RunFacts) -> Iterator[tuple[str, float, int]]:
    """Name, value and step of everything with a number."""
    for step, loss in run.losses:
        yield "train/loss", loss, step
    for metric in ("accuracy", "macro_f1", "nll"):
        for step, value in run.evaluations(metric):
            yield f"validation/{metric}", value, step
    last = run.losses[-1][0] if run.losses else 0
    for name, metrics in run.record.metrics.items():
        yield f"final/{name}/accuracy", metrics["accuracy"], last
