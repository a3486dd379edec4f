"""The `pennyweight demo` command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pennyweight.cli.options import Set
from pennyweight.cli.output import quiet_libraries
from pennyweight.cli.train import train_and_report
from pennyweight.errors import RunError

__all__ = ["command"]

_RECIPE = "demo"
_TEXTS = (
    "The central bank left interest rates unchanged on Thursday.",
    "A late goal settled the derby in the rain.",
)


def command(
    out: Annotated[
        Path, typer.Option("--out", metavar="RUN", help="The directory of the run.")
    ] = Path("runs/demo"),
    overrides: Set = None,
) -> None:
    """Train on the bundled sample, without any download.

    It trains the shipped recipe "demo", which uses the embedded encoder, prints the results, and
    classifies two sentences.
    """
    quiet_libraries()
    from pennyweight.recipe import load_recipe

    recipe = load_recipe(_RECIPE, overrides=overrides or ())
    _refuse_complete_run(out)
    train_and_report(recipe, out)
    from pennyweight.inference.classifier import Classifier

    typer.echo("\nPredictions:")
    for text, label in zip(_TEXTS, Classifier.load(out).predict(_TEXTS), strict=True):
        typer.echo(f"  {label:<10} {text}")
    typer.echo(
        "\nNext:\n"
        f"  pennyweight evaluate {out} --data sample:shifted\n"
        f"  pennyweight predict {out} --data sample:test --out predictions.csv\n"
        f"  pennyweight report {out} --out report/demo\n"
        "  pennyweight train --data FILE --out runs/mine"
    )


def _refuse_complete_run(out: Path) -> None:
    from pennyweight.runs.directory import RunDirectory
    from pennyweight.runs.record import load_record

    if RunDirectory(out).record.is_file() and load_record(out).status == "complete":
        raise RunError(
            f"--out {out}: holds a complete run already; choose another directory, for example "
            f"pennyweight demo --out {_unused(out)}"
        )


def _unused(out: Path) -> Path:
    number = 2
    while (other := out.with_name(f"{out.name}-{number}")).exists():
        number += 1
    return other
