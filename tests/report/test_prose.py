"""The author's Markdown becomes paragraphs by section; anything else is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from pennyweight.errors import ReportError
from pennyweight.report.content import Text
from pennyweight.report.prose import load_prose


def test_paragraphs_and_items_are_sorted_by_heading(tmp_path: Path) -> None:
    file = tmp_path / "prose.md"
    file.write_text("# A\n\nOne\ntwo *em* `x`.\n\n- item\n\n# B\n\n[a link](https://x.org) 2 * 3\n")
    assert load_prose(file) == {
        "A": (Text("One two *em* `x`."), Text("item", is_item=True)),
        "B": (Text("a link 2 \N{ASTERISK OPERATOR} 3"),),
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("no heading", "line 1: text before the first heading"),
        ("# A\n\n```\ncode\n```\n", "line 3: fence is not supported"),
        ("# A\n\n![x](y.png)\n", "line 3: image is not supported"),
    ],
)
def test_prose_that_a_paper_cannot_show_is_refused(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "prose.md"
    file.write_text(text)
    with pytest.raises(ReportError, match=message):
        load_prose(file)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ReportError, match=r"none\.md: cannot be read"):
        load_prose(tmp_path / "none.md")
