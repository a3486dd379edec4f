"""The `pennyweight adapt` command."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import typer

from pennyweight.cli.flatten import flatten_options
from pennyweight.cli.options import FormatOptions, OutDirectory, Run, Set
from pennyweight.cli.train import train_and_report
from pennyweight.errors import RecipeError

__all__ = ["TargetOptions", "command", "parse_shares"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetOptions(FormatOptions):
    """Unlabelled text, and its class shares."""

    target: Annotated[
        str,
        typer.Option(
            "--target",
            metavar="FILE",
            help="Unlabelled text from where the classifier will be used: a file or "
            '"hub:NAME[:SPLIT]".',
        ),
    ]
    shares: Annotated[
        str | None,
        typer.Option(
            "--shares",
            metavar="SHARES",
            help='The class shares of the target, if they are known: "uniform", or one for each '
            "class, such as World=0.2,Sports=0.8. Wrong shares do harm.",
        ),
    ] = None


@flatten_options
def command(
    run: Run,
    target: TargetOptions,
    out: OutDirectory,
    resume: Annotated[
        bool, typer.Option("--resume", help="Resume an unfinished run from its last checkpoint.")
    ] = False,
    overrides: Set = None,
) -> None:
    """Train a finished run further on unlabelled target text.

    The run labels the text, together with a classifier of the words of that text, and its adapter
    learns from these labels and from a part of its training rows. The result is a new run with the
    same number of trainable parameters.
    """
    from pennyweight.recipe import with_overrides
    from pennyweight.training.adapt import adaptation_recipe

    shares = None if target.shares is None else parse_shares(target.shares)
    source = target.source_at(target.target)
    recipe = adaptation_recipe(run, source, name=out.name, shares=shares)
    train_and_report(with_overrides(recipe, list(overrides or ())), out, resume=resume)


def parse_shares(text: str) -> dict[str, float] | Literal["uniform"]:
    """Return class shares as they are given on the command line.

    Raises:
        RecipeError: the text is neither "uniform" nor a list of classes and numbers.
    """
    if text.strip() == "uniform":
        return "uniform"
    shares = {}
    for part in text.split(","):
        name, equals, value = part.rpartition("=")
        try:
            if not equals:
                raise ValueError
            shares[name.strip()] = float(value)
        except ValueError:
            raise RecipeError(
                f'--shares {text}: expected "uniform", or a share for each class such as '
                f"World=0.2,Sports=0.8; {part.strip()!r} is not CLASS=NUMBER"
            ) from None
    return shares
