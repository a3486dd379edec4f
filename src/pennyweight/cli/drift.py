"""The `pennyweight drift` command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pennyweight.cli.flatten import flatten_options
from pennyweight.cli.options import Json, RowsOptions, RunOptions, SkipBadRows
from pennyweight.cli.output import print_json, quiet_libraries

if TYPE_CHECKING:
    from pennyweight.inference.drift import Drift

__all__ = ["command"]

_METHODS = {"atc": "average thresholded confidence", "doc": "difference of confidences"}


@flatten_options
def command(
    model: RunOptions,
    rows: RowsOptions,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="Also write the result to this file, as JSON."),
    ] = None,
    skip_bad_rows: SkipBadRows = False,
    as_json: Json = False,
) -> None:
    """Compare new text with a run's own rows.

    The accuracy on it is estimated as well; no labels are needed. The command prints the share of
    each class, how well training and new texts can be told apart by their characters, the distance
    of their hidden features, and the accuracy to expect with a 95% interval. The run's own rows are
    read again from where its recipe says.
    """
    quiet_libraries()
    from pennyweight.inference.drift import drift
    from pennyweight.inference.output import refuse_to_replace
    from pennyweight.runs.record import write_text

    refuse_to_replace(rows.source, out)
    result = drift(
        model.run,
        rows.source,
        on_bad_row="set-aside" if skip_bad_rows else "stop",
        backend=model.backend.value,
    )
    if out is not None:
        write_text(out, json.dumps(result.to_json(), indent=1, ensure_ascii=False) + "\n")
    if as_json:
        print_json(result.to_json())
    else:
        _show(result)


def _show(result: Drift) -> None:
    from pennyweight.cli.tables import show_table

    show_table(
        ("class", "training", "predicted now"),
        [
            (
                each.label,
                "" if each.training is None else f"{each.training:.1%}",
                f"{each.predicted:.1%}",
            )
            for each in result.shares
        ],
    )
    if result.text_area is not None:
        typer.echo(
            f"texts: area under the ROC curve {result.text_area:.3f} of training against new texts "
            "(0.5: they cannot be told apart; 1: always)"
        )
    if (distance := result.distance) is not None:
        typer.echo(
            f"features: squared MMD {distance.distance:.4f}, by chance up to "
            f"{distance.chance:.4f} (p = {distance.p:.3f})"
        )
    for each in result.expected:
        low, high = each.interval
        typer.echo(
            f"expected accuracy {each.accuracy:.1%} (95% interval {low:.1%} to {high:.1%}) by the "
            f"{_METHODS[each.method]}"
        )
    if result.validation_accuracy is not None:
        typer.echo(f"accuracy on validation {result.validation_accuracy:.1%}")
    for note in result.notes:
        typer.echo(f"note: {note}")
