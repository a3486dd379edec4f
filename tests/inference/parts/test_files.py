"""Finding the files of a prediction."""

from __future__ import annotations

from pathlib import Path

import pytest

from pennyweight.inference.parts.files import find_files


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("*.csv", {"a.csv"}),
        ("**/*.csv", {"a.csv", "b/c.csv", "b/d.csv"}),
        ("_*.csv", {"_later.csv"}),
        ("[a_]*.csv", {"a.csv"}),
        ("_old/*.csv", {"e.csv"}),
        ("**/_old/*.csv", {"_old/e.csv"}),
        ("*/*.csv", {"b/c.csv", "b/d.csv"}),
    ],
)
def test_a_pattern_leaves_out_hidden_names_unless_it_gives_them(
    tmp_path: Path, pattern: str, names: set[str]
) -> None:
    for name in ("a.csv", "b/c.csv", "b/d.csv", "_later.csv", ".hidden.csv", "._a.csv"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("text\nnew\n")
    (tmp_path / "_old").mkdir()
    for name in ("_old/e.csv", "_old/_f.csv"):
        (tmp_path / name).write_text("text\nold\n")
    assert {file.name for file in find_files(f"{tmp_path}/{pattern}")} == names
