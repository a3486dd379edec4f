"""`pennyweight data`: the data lab's verbs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pennyweight.cli.options import (
    Format,
    Json,
    Out,
    RecipeName,
    Set,
    TextColumn,
    print_json,
    quiet_libraries,
    source,
)

if TYPE_CHECKING:
    from pennyweight.recipe import Recipe

__all__ = [
    "app",
    "augment",
    "clean",
    "filter_",
    "generate",
    "language_model",
    "overlap",
    "preview",
]

app = typer.Typer(
    help="Clean, filter, augment and generate training rows, and look for leaks.",
    no_args_is_help=True,
)


def _load(recipe: str, overrides: list[str] | None) -> Recipe:
    from pennyweight.recipe import load_recipe

    loaded = load_recipe(recipe, overrides=overrides or ())
    quiet_libraries()
    return loaded


def _say(line: str) -> None:
    typer.echo(line, err=True)


def _told(out: Path, found: dict[str, Any]) -> None:
    typer.echo(f"{found['rows']:,} rows in {out}")


@app.command()
def preview(
    recipe: RecipeName,
    overrides: Set = None,
    rows: Annotated[int, typer.Option("--rows", help="How many to show.")] = 10,
) -> None:
    """Show training texts before and after the recipe's cleaning, side by side."""
    loaded = _load(recipe, overrides)
    from pennyweight.cli.tables import show_table
    from pennyweight.runs.data_lab import preview as run

    found = list(run(loaded, rows=rows))
    if not found:
        typer.echo("no text is changed by: " + (", ".join(loaded.data.clean) or "no step"))
        return
    show_table(("before", "after"), found)


@app.command()
def clean(recipe: RecipeName, out: Out, overrides: Set = None) -> None:
    """Write the recipe's training rows, cleaned, as Parquet."""
    loaded = _load(recipe, overrides)
    from pennyweight.runs.data_lab import clean_rows

    _told(out, clean_rows(loaded, out=out))


@app.command(name="filter")
def filter_(recipe: RecipeName, out: Out, overrides: Set = None) -> None:
    """Write the training rows that the recipe's filters keep, and those they remove."""
    loaded = _load(recipe, overrides)
    from pennyweight.runs.data_lab import filter_rows

    _told(out, filter_rows(loaded, out=out, say=_say))


@app.command()
def augment(recipe: RecipeName, out: Out, overrides: Set = None) -> None:
    """Write the changed copies that the recipe's augmentations make, for data.extra."""
    loaded = _load(recipe, overrides)
    from pennyweight.runs.data_lab import made_rows

    _told(out, made_rows(loaded, out=out, say=_say))


@app.command()
def generate(recipe: RecipeName, out: Out, overrides: Set = None, as_json: Json = False) -> None:
    """Let a language model that has read the target write labelled rows, for data.extra."""
    loaded = _load(recipe, overrides)
    from pennyweight.runs.data_lab import write_generated

    found = write_generated(loaded, out=out, say=_say)
    if as_json:
        print_json({key: found[key] for key in ("written", "died", "alive", "length_fit", "rows")})
        return
    _told(out, found)


@app.command()
def overlap(recipe: RecipeName, overrides: Set = None, as_json: Json = False) -> None:
    """Count texts that stand in two of the recipe's sets, exactly or nearly."""
    loaded = _load(recipe, overrides)
    from pennyweight.cli.tables import show_table
    from pennyweight.runs.data_lab import count_overlaps

    rows = [found.to_json() for found in count_overlaps(loaded, say=_say)]
    if as_json:
        print_json(rows)
        return
    show_table(
        ("rows of", "found in", "exact", "near"), [[str(v) for v in r.values()] for r in rows]
    )


@app.command(name="language-model")
def language_model(
    data: Annotated[str, typer.Argument(metavar="TEXTS", help="A file, or a sample.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="A new directory.")],
    file_format: Format = None,
    text_column: TextColumn = None,
    epochs: Annotated[float, typer.Option("--epochs", help="Passes over the texts.")] = 1.0,
    layers: Annotated[int, typer.Option("--layers", help="Of the model.")] = 4,
    width: Annotated[int, typer.Option("--width", help="Of its states.")] = 256,
    vocabulary: Annotated[int, typer.Option("--vocabulary", help="Tokens it knows.")] = 8192,
    seed: Annotated[int, typer.Option("--seed", help="Of weights and order.")] = 0,
) -> None:
    """Train a small GPT-2 and its tokenizer on texts, for generate.model."""
    quiet_libraries()
    from pennyweight.runs.data_lab import train_language_model

    train_language_model(
        source(data, file_format, text_column, None),
        out=out,
        epochs=epochs,
        options={"layers": layers, "width": width, "vocabulary": vocabulary},
        seed=seed,
        say=_say,
    )
    typer.echo(f"language model in {out}")
