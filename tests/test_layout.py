"""The shape of the source: small files, small functions, complete `__all__`, one direction."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
import tomllib
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


@pytest.mark.parametrize("file", FILES, ids=names)
def test_docstrings_begin_with_what_a_thing_is_or_does(file: Path) -> None:
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef)
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, kinds) and (docstring := ast.get_docstring(node)):
            assert docstring.split()[0] not in ("What", "Where"), docstring


def test_the_public_names_are_sorted_and_all_there() -> None:
    assert pennyweight.__all__ == sorted(pennyweight.__all__)
    for name in pennyweight.__all__:
        assert getattr(pennyweight, name) is not None
    importlib.import_module("pennyweight.evaluation")
    assert callable(pennyweight.evaluate)


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = "import sys, pennyweight; sys.exit('torch' in sys.modules or 'pydantic' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_documented_order_of_imports_is_the_one_that_is_checked() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    sentence = text.partition("only from those before it in this list:")[2].partition(". ")[0]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    layers = project["tool"]["importlinter"]["contracts"][0]["layers"]
    documented = re.findall(r"`(\w+)`", sentence)
    assert documented == [layer.removeprefix("pennyweight.") for layer in reversed(layers)]


def test_imports_go_one_way() -> None:
    tool = Path(sys.executable).with_name("lint-imports")
    if not tool.exists():
        pytest.skip("import-linter is not installed")
    done = subprocess.run([tool], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
