"""An executed notebook that walks through a run: data, plan, curves, evaluation, mistakes."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat import v4

from pennyweight.errors import ReportError
from pennyweight.runs.record import load_record

__all__ = ["write_notebook"]


def write_notebook(run: Path, path: Path) -> Path:
    """Write and execute the notebook of a run.

    Args:
        run: its directory.
        path: of the notebook.

    Raises:
        ReportError: a cell fails, or the kernel cannot be started.
    """
    recipe = load_record(run).recipe
    told = {
        "NAME": str(recipe["name"]),
        "SUMMARY": str(recipe.get("summary", "")),
        "RUN": repr(str(run.resolve())),
    }
    made: Any = v4
    notebook = made.new_notebook(
        cells=[_cell(text, told) for text in _template().split("# %% ")[1:]]
    )
    # Random names would make every notebook another file.
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number}"
    notebook.metadata["kernelspec"] = {
        "name": "python3",
        "display_name": "Python 3",
        "language": "python",
    }
    _use_this_interpreter()
    try:
        client = NotebookClient(notebook, timeout=600, kernel_name="python3")
        # On this machine alone the kernel need not warn of its plain connection.
        client.extra_arguments = ["--IPKernelApp.log_level=40"]
        client.execute()
    except CellExecutionError as error:
        reason = str(error).strip().splitlines()[-1]
        raise ReportError(f"{path}: a cell of the notebook fails: {reason}") from None
    path.write_text(nbformat.writes(notebook), encoding="utf-8")
    return path


def _template() -> str:
    folder = resources.files("pennyweight.report") / "templates"
    return (folder / "notebook.txt").read_text(encoding="utf-8")


def _cell(text: str, told: Mapping[str, str]) -> Any:
    kind, _, source = text.partition("\n")
    for name, value in told.items():
        source = re.sub(rf"\b{name}\b", value.replace("\\", r"\\"), source)
    made: Any = v4
    new_cell = made.new_markdown_cell if kind == "markdown" else made.new_code_cell
    return new_cell(source.strip())


def _use_this_interpreter() -> None:
    """Let the kernel be the Python that runs this, wherever its kernels are installed."""
    from jupyter_client.kernelspec import KernelSpecManager

    if "python3" not in KernelSpecManager().find_kernel_specs():
        raise ReportError(f"the notebook needs a kernel: {sys.executable} -m pip install ipykernel")
