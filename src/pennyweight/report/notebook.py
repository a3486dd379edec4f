"""An executed notebook that walks through a run, from its data to predictions on new sentences."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat import v4

from pennyweight.errors import ReportError
from pennyweight.runs.record import RunRecord, load_record

__all__ = ["write_notebook"]

_CELL = "# %% "
_PLACEHOLDER = re.compile(r"\b(?:NAME|SUMMARY|DIRECTORY|RUN|SENTENCES)\b")
_NEWS = ("World", "Sports", "Business", "Sci/Tech")
_NEWS_SENTENCES = (
    "The two governments signed a treaty that ends the dispute over their border.",
    "A goal in the last minute put the visitors through to the final.",
    "Shares rose after the company raised its forecast for the year.",
    "The probe sent its first images after three years of flight.",
)


def write_notebook(run: Path, path: Path) -> Path:
    """Write and execute the notebook of a run, which refers to the run by a relative path.

    Args:
        run: the run's directory.
        path: the notebook's file.

    Raises:
        RunError: `run` is not a run.
        ReportError: a cell fails, or the kernel is not installed.
    """
    record = load_record(run)
    directory = Path(os.path.relpath(run.resolve(), path.resolve().parent)).as_posix()
    values = {
        "NAME": record.recipe.name,
        "SUMMARY": record.recipe.summary,
        "DIRECTORY": directory,
        "RUN": repr(directory),
        "SENTENCES": _as_list(_sentences(record)),
    }
    nodes: Any = v4
    notebook = nodes.new_notebook(
        cells=[_cell(text, values) for text in _template().split(_CELL)[1:]]
    )
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number}"  # the default identifiers are random
    notebook.metadata["kernelspec"] = {
        "name": "python3",
        "display_name": "Python 3",
        "language": "python",
    }
    _execute(notebook, path)
    path.write_text(nbformat.writes(notebook), encoding="utf-8")
    return path


def _execute(notebook: Any, path: Path) -> None:
    """Run all cells in the notebook's own directory, and keep what they print and show."""
    _require_kernel()
    client = NotebookClient(
        notebook,
        timeout=600,
        kernel_name="python3",
        record_timing=False,
        resources={"metadata": {"path": str(path.resolve().parent)}},
    )
    # Without this, the kernel warns that its local connection is not encrypted.
    client.extra_arguments = ["--IPKernelApp.log_level=40"]
    try:
        client.execute()
    except CellExecutionError as error:
        reason = str(error).strip().splitlines()[-1]
        raise ReportError(f"{path}: a cell of the notebook fails: {reason}") from None
    for cell in notebook.cells:
        # Libraries report progress and missing extras there, which differ between machines.
        cell.outputs = [
            output for output in cell.get("outputs", []) if output.get("name") != "stderr"
        ]
        if cell.cell_type == "markdown":
            del cell["outputs"]


def _sentences(record: RunRecord) -> Sequence[str] | Sequence[tuple[str, str]]:
    """Return texts to classify: news for news classes, otherwise mistakes of the run."""
    labels = record.recipe.data.label_names
    mistakes = [mistake for some in record.mistakes.values() for mistake in some][:4]
    if record.pair_columns is not None:
        pairs = [(mistake.text, mistake.text_pair or "") for mistake in mistakes]
        return pairs or [("A first text.", "A second text.")]
    if labels == _NEWS:
        return _NEWS_SENTENCES
    return [mistake.text for mistake in mistakes] or [
        f"A text about {label}." for label in labels[:4]
    ]


def _as_list(sentences: Sequence[str] | Sequence[tuple[str, str]]) -> str:
    """Return a list of strings as Python source, one string per line."""
    lines = "".join(f"    {sentence!r},\n" for sentence in sentences)
    return f"[\n{lines}]"


def _template() -> str:
    folder = resources.files("pennyweight.report") / "templates"
    return (folder / "notebook.txt").read_text(encoding="utf-8")


def _cell(text: str, values: dict[str, str]) -> Any:
    kind, _, source = text.partition("\n")
    source = _PLACEHOLDER.sub(lambda match: values[match[0]], source)
    nodes: Any = v4
    new_cell = nodes.new_markdown_cell if kind == "markdown" else nodes.new_code_cell
    return new_cell(source.strip())


def _require_kernel() -> None:
    from jupyter_client.kernelspec import KernelSpecManager

    if "python3" not in KernelSpecManager().find_kernel_specs():
        raise ReportError(
            f"the notebook needs a Jupyter kernel; run: {sys.executable} -m pip install ipykernel"
        )
