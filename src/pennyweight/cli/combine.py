"""The `pennyweight combine` command."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from pennyweight.cli.flatten import flatten_options
from pennyweight.cli.output import quiet_libraries
from pennyweight.errors import RunError
from pennyweight.runs.exists import require_run

if TYPE_CHECKING:
    from pennyweight.runs.record import RunRecord


__all__ = ["CombinationName", "HeadName", "MethodOptions", "SpaceName", "command"]


class CombinationName(StrEnum):
    """The methods that combine runs."""

    average = "average"
    greedy = "greedy"
    weighted = "weighted"
    ties = "ties"
    dare = "dare"
    concatenated = "concatenated"
    interpolate = "interpolate"


class HeadName(StrEnum):
    """Treatments of the heads."""

    average = "average"
    first = "first"


class SpaceName(StrEnum):
    """The weights that are averaged."""

    auto = "auto"
    factors = "factors"
    deltas = "deltas"


_SPACES: Mapping[SpaceName, Literal["factors", "deltas"] | None] = MappingProxyType(
    {SpaceName.auto: None, SpaceName.factors: "factors", SpaceName.deltas: "deltas"}
)


@dataclass(frozen=True, slots=True)
class MethodOptions:
    """The method and its options."""

    method: Annotated[
        CombinationName,
        typer.Option("--method", help="The method; `pennyweight methods combinations` lists them."),
    ] = CombinationName.average
    weights: Annotated[
        str | None,
        typer.Option(
            "--weights",
            metavar="W,W",
            help="The weight of each run, such as 2,1; they are divided by their sum.",
        ),
    ] = None
    density: Annotated[
        float | None,
        typer.Option(
            "--density",
            metavar="SHARE",
            help="ties and dare: the share of the entries of each delta that is kept; if not "
            "given, 0.5.",
        ),
    ] = None
    toward: Annotated[
        float | None,
        typer.Option(
            "--toward",
            metavar="SHARE",
            help="interpolate: how far to go from the first run, or from the untrained adapter "
            "where one run is given, toward the last run: from 0 to 1.",
        ),
    ] = None
    head: Annotated[
        HeadName,
        typer.Option(
            "--head", help="Average the heads, or keep that of the first run that is used."
        ),
    ] = HeadName.average
    space: Annotated[
        SpaceName,
        typer.Option(
            "--space",
            help="Average the factors A and B, or the deltas B A; auto averages factors of runs "
            "that started from the same weights, and deltas of others.",
        ),
    ] = SpaceName.auto
    seed: Annotated[
        int | None,
        typer.Option(
            "--seed",
            metavar="NUMBER",
            help="dare: the seed of the entries that are dropped; if not given, that of the first "
            "run.",
        ),
    ] = None


@flatten_options
def command(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="Finished runs.", show_default=False)
    ],
    out: Annotated[
        Path,
        typer.Option("--out", metavar="DIR", help="The directory of the new run."),
    ],
    method: MethodOptions,
) -> None:
    """Combine the adapters of finished runs into one run.

    The runs have the same base and the same classes. The result is a run like any other, with the
    recipe of the first one, and is evaluated on its validation and test rows; the results of the
    runs themselves are printed beside it.
    """
    weights = _parse_weights(method.weights)
    for run in runs:
        require_run(run)
    quiet_libraries()
    from pennyweight.training.combine import combine
    from pennyweight.training.combine_options import CombineOptions
    from pennyweight.training.watcher import Watcher

    options = CombineOptions(
        method=method.method.value,
        weights=weights,
        density=method.density,
        toward=method.toward,
        head=method.head.value,
        space=_SPACES[method.space],
        seed=method.seed,
    )
    record = combine(list(runs), out=out, options=options, watcher=Watcher(log=typer.echo))
    _show(record, out)


def _parse_weights(text: str | None) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise RunError(f"--weights {text}: expected numbers, such as 2,1") from None


def _show(record: RunRecord, out: Path) -> None:
    """Print the results of the runs and of their combination, and where it is."""
    from pennyweight.cli.tables import headline, show_table

    combination, counts = record.combination, record.parameters
    assert combination is not None  # noqa: S101 - recorded by `combine`
    assert counts is not None  # noqa: S101 - as above
    rows = [
        [
            each.run,
            f"{each.share:.3g}",
            *(_percent(each.results.get(name)) for name in record.metrics),
        ]
        for each in combination.runs
    ]
    own = [_percent(metrics.headline.value) for metrics in record.metrics.values()]
    metrics = [each.headline.metric for each in record.metrics.values()]
    header = [f"{name} {metric}" for name, metric in zip(record.metrics, metrics, strict=True)]
    show_table(["run", "weight", *header], [*rows, [str(out), "", *own]])
    for name, measured in record.metrics.items():
        typer.echo(headline(name, measured))
    for mark in record.marks:
        typer.echo(mark)
    typer.echo(
        f"trainable parameters {counts.file:,} of {counts.budget:,} allowed, verified in "
        f"{out / 'adapter'}"
    )


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.2%}"
