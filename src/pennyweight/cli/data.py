"""The `pennyweight data` commands: the steps of the data lab, one at a time."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from pennyweight.cli.flatten import flatten_options
from pennyweight.cli.options import FormatOptions, Json, Out, OutDirectory, RecipeOptions
from pennyweight.cli.output import (
    log_to_stderr,
    preload,
    print_json,
    print_rows_written,
    quiet_libraries,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pennyweight.data.infer import Inferred

__all__ = [
    "LanguageModelOptions",
    "app",
    "augment",
    "clean",
    "filter_",
    "generate",
    "language_model",
    "overlap",
    "preview",
]

_LABELS_SHOWN = 12

app = typer.Typer(
    help="Clean, filter, augment and generate rows, and find leaks.",
    no_args_is_help=True,
)


@dataclass(frozen=True, slots=True)
class LanguageModelOptions:
    """The size of a language model and the length of its training."""

    epochs: Annotated[float, typer.Option("--epochs", help="Number of passes over the texts.")] = (
        1.0
    )
    layers: Annotated[
        int, typer.Option("--layers", min=1, help="Number of transformer layers.")
    ] = 4
    width: Annotated[int, typer.Option("--width", min=1, help="Hidden size.")] = 256
    vocabulary: Annotated[
        int, typer.Option("--vocabulary", min=257, help="Vocabulary size in tokens.")
    ] = 8192
    seed: Annotated[int, typer.Option("--seed", help="Random seed.")] = 0


@app.command()
@flatten_options
def preview(
    recipe: RecipeOptions,
    rows: Annotated[int, typer.Option("--rows", min=1, help="Number of texts to show.")] = 10,
) -> None:
    """Show the labels, and texts before and after cleaning.

    Columns, task and labels of the training rows are inferred where the recipe does not set them.
    """
    loaded = recipe.load()
    quiet_libraries()
    preload("peft", "pennyweight.training.data_lab")
    from pennyweight.cli.tables import show_table
    from pennyweight.training.data_lab import infer_rows
    from pennyweight.training.data_lab import preview as changed_texts

    for line in _describe(infer_rows(loaded)):
        typer.echo(line)
    pairs = list(changed_texts(loaded, rows=rows))
    if not pairs:
        steps = ", ".join(loaded.data.clean) or "none"
        typer.echo(f"no text is changed by the cleaning steps: {steps}")
        return
    show_table(("before", "after"), pairs)


def _describe(rows: Inferred) -> Iterator[str]:
    """Yield what rows are, line by line."""
    texts = rows.pair_columns or rows.text_columns
    labels = rows.label_columns or (rows.label_column or "",)
    kind = "pair of texts" if rows.pair_columns else "text"
    yield f"{kind}: {_listed(texts)}; label: {_listed(labels)}; {rows.rows:,} rows"
    counts = [f"{label} ({count:,})" for label, count in zip(rows.labels, rows.counts, strict=True)]
    rest = f" and {len(counts) - _LABELS_SHOWN:,} more" if len(counts) > _LABELS_SHOWN else ""
    joined = f', joined by "{rows.label_separator}"' if rows.label_separator else ""
    yield (
        f"task: {rows.task}{joined}; {len(counts):,} labels, {rows.order}: "
        f"{', '.join(counts[:_LABELS_SHOWN])}{rest}"
    )
    yield from rows.notes


def _listed(columns: Sequence[str]) -> str:
    names = ", ".join(f'"{column}"' for column in columns[:_LABELS_SHOWN])
    return f"{'columns' if len(columns) > 1 else 'column'} {names}"


@app.command()
@flatten_options
def clean(recipe: RecipeOptions, out: Out) -> None:
    """Write the cleaned training rows as Parquet."""
    loaded = recipe.load()
    quiet_libraries()
    from pennyweight.training.data_lab import clean_rows

    manifest = clean_rows(loaded, out=out)
    print_rows_written(manifest["rows"], out, set_aside=manifest["set_aside"])


@app.command(name="filter")
@flatten_options
def filter_(recipe: RecipeOptions, out: Out) -> None:
    """Write the training rows that the filters keep.

    Rows that are split off for validation, or that are also in another set, are left out first.
    The rows that each filter removes are written to a directory beside the file.
    """
    loaded = recipe.load()
    quiet_libraries()
    from pennyweight.training.data_lab import filter_rows

    manifest = filter_rows(loaded, out=out, log=log_to_stderr)
    print_rows_written(manifest["rows"], out, set_aside=manifest["set_aside"])


@app.command()
@flatten_options
def augment(recipe: RecipeOptions, out: Out) -> None:
    """Write the copies that the augmentations add.

    Use the file as data.extra of a recipe.
    """
    loaded = recipe.load()
    quiet_libraries()
    from pennyweight.training.data_lab import augment_rows

    print_rows_written(augment_rows(loaded, out=out, log=log_to_stderr)["rows"], out)


@app.command()
@flatten_options
def generate(recipe: RecipeOptions, out: Out, as_json: Json = False) -> None:
    """Write labelled rows that a language model generates.

    The recipe needs a [generate] section. A local model is first adapted to data.target; an
    endpoint gets texts of data.target as examples. The manifest beside the file says how many texts
    each gate rejected. Use the file as data.extra of a recipe.
    """
    loaded = recipe.load()
    quiet_libraries()
    from pennyweight.training.data_lab import write_generated

    manifest = write_generated(loaded, out=out, log=log_to_stderr)
    if as_json:
        keys = ("written", "written_by_class", "rejected", "accepted", "length_fit", "rows")
        print_json({key: manifest[key] for key in keys})
        return
    print_rows_written(manifest["rows"], out)


@app.command()
@flatten_options
def overlap(recipe: RecipeOptions, as_json: Json = False) -> None:
    """Count the texts that occur in more than one set.

    Exact matches and near duplicates are counted for every pair of sets.
    """
    loaded = recipe.load()
    quiet_libraries()
    from pennyweight.cli.tables import show_table
    from pennyweight.training.data_lab import count_overlaps

    counts = [overlap.count() for overlap in count_overlaps(loaded, log=log_to_stderr)]
    if as_json:
        print_json([asdict(count) for count in counts])
        return
    show_table(
        ("rows of", "found in", "exact", "near"),
        [(c.rows_of, c.found_in, f"{c.exact:,}", f"{c.near:,}") for c in counts],
    )


@app.command(name="language-model")
@flatten_options
def language_model(
    texts: Annotated[
        str, typer.Argument(metavar="TEXTS", help='A file of texts, or "sample:SPLIT".')
    ],
    out: OutDirectory,
    file: FormatOptions,
    model: LanguageModelOptions,
) -> None:
    """Train a small GPT-2 and its tokenizer from scratch.

    Use the directory as generate.model of a recipe.
    """
    quiet_libraries()
    from pennyweight.lab.language_model import ModelSize
    from pennyweight.training.data_lab import train_language_model

    train_language_model(
        file.source_at(texts),
        out=out,
        epochs=model.epochs,
        size=ModelSize(model.vocabulary, model.layers, model.width),
        seed=model.seed,
        log=log_to_stderr,
    )
    typer.echo(f"language model in {out}")
