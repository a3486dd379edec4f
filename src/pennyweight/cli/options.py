"""Arguments and options that several verbs share, and what they all do at their start."""

from __future__ import annotations

import json
import logging
import os
import warnings
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

__all__ = [
    "Backend",
    "BackendName",
    "Data",
    "Format",
    "Json",
    "LabelColumn",
    "Out",
    "RecipeName",
    "Run",
    "Set",
    "SkipBadRows",
    "TextColumn",
    "print_json",
    "quiet_libraries",
    "source",
]

_QUIET = {
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "TOKENIZERS_PARALLELISM": "true",
}


class BackendName(StrEnum):
    """What can run a model."""

    torch = "torch"
    onnx = "onnx"


RecipeName = Annotated[
    str, typer.Argument(metavar="RECIPE", help="A shipped recipe's name, a TOML file, or a run.")
]
Run = Annotated[Path, typer.Argument(metavar="RUN", help="The directory of a finished run.")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a key, as in adapter.rank=8."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Data = Annotated[
    str,
    typer.Option("--data", metavar="FILE", help='A file, "hub:NAME[:SPLIT]" or "sample:SPLIT".'),
]
Out = Annotated[Path, typer.Option("--out", metavar="FILE", help="Where to write.")]
Format = Annotated[
    str | None, typer.Option("--format", help="The file's format, when it is not to be guessed.")
]
TextColumn = Annotated[
    list[str] | None, typer.Option("--text-column", help="A column of the text; may be repeated.")
]
Backend = Annotated[
    BackendName,
    typer.Option("--backend", help="What runs the model; onnx needs pennyweight[onnx]."),
]
LabelColumn = Annotated[str | None, typer.Option("--label-column", help="The label's column.")]
SkipBadRows = Annotated[
    bool, typer.Option("--skip-bad-rows", help="Set bad rows aside in the run instead of stopping.")
]


def source(
    location: str, file_format: str | None, text_columns: list[str] | None, label_column: str | None
) -> Any:
    """The source that the options describe."""
    from pennyweight.data.ingest import Source

    columns = tuple(text_columns) if text_columns else None
    return Source(location, file_format, columns, label_column)


def quiet_libraries() -> None:
    """Keep the libraries' own progress bars and notices off the user's terminal."""
    # Through the environment, so that a verb which needs none of them need not import them.
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    # It says on import which faster kernels it could have, had more been installed.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    warnings.filterwarnings(
        "ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning
    )


def print_json(value: object) -> None:
    """Print a value as JSON and nothing else, so that it can be piped on."""
    typer.echo(json.dumps(value, indent=1, ensure_ascii=False))
