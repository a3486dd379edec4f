"""The shape of the source: small files, small functions, complete `__all__`, one direction."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import pennyweight

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "pennyweight"
FILES = sorted(SOURCE.rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))


def names(file: Path) -> str:
    return str(file.relative_to(ROOT))


@pytest.mark.parametrize("file", [*FILES, *TESTS], ids=names)
def test_no_file_is_over_400_lines(file: Path) -> None:
    assert len(file.read_text(encoding="utf-8").splitlines()) <= 400


@pytest.mark.parametrize("file", FILES, ids=names)
def test_no_function_is_over_60_lines_or_6_parameters(file: Path) -> None:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno is not None
            assert node.end_lineno - node.lineno < 60, node.name
            assert len(parameters_of(node)) <= 6, node.name


def parameters_of(function: ast.FunctionDef) -> list[str]:
    """The parameters that a caller passes; `ctx` is an autograd function's own `self`."""
    arguments = function.args
    every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    names = [argument.arg for argument in every]
    return names[1:] if names[:1] in (["self"], ["cls"], ["ctx"]) else names


@pytest.mark.parametrize("file", FILES, ids=names)
def test_all_lists_every_public_name_that_the_file_defines(file: Path) -> None:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    listed: list[str] = []
    defined: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            defined.add(node.name)
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            listed = ast.literal_eval(node.value)
    public = {name for name in defined if not name.startswith("_")}
    assert public <= set(listed)


def test_the_public_names_are_sorted_and_all_there() -> None:
    assert pennyweight.__all__ == sorted(pennyweight.__all__)
    for name in pennyweight.__all__:
        assert getattr(pennyweight, name) is not None
    importlib.import_module("pennyweight.evaluation")
    assert callable(pennyweight.evaluate)


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = "import sys, pennyweight; sys.exit('torch' in sys.modules or 'pydantic' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_imports_go_one_way() -> None:
    tool = Path(sys.executable).with_name("lint-imports")
    if not tool.exists():
        pytest.skip("import-linter is not installed")
    done = subprocess.run([tool], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
