"""The committed reference is what the code says today, and it covers every key and command."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel

from pennyweight.recipe import Recipe
from pennyweight.recipe.fields import models_in
from pennyweight.recipe.study import StudyTable

DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture(scope="module")
def pages() -> Iterator[dict[str, str]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(DOCS))
        from reference_pages import pages as generate

        yield generate()
    for name in [name for name in sys.modules if name.partition(".")[0] == "reference_pages"]:
        del sys.modules[name]


@pytest.mark.parametrize("name", ["recipe.md", "command-line.md", "methods.md"])
def test_the_committed_page_is_up_to_date(name: str, pages: dict[str, str]) -> None:
    committed = (DOCS / "reference" / name).read_text(encoding="utf-8")
    assert committed == pages[name], "run: python docs/generate_reference.py"


def test_every_page_is_compared(pages: dict[str, str]) -> None:
    assert set(pages) == {"recipe.md", "command-line.md", "methods.md"}


def test_every_key_of_a_recipe_is_documented_with_a_description(pages: dict[str, str]) -> None:
    def keys(model: type[BaseModel]) -> Iterator[str]:
        for name, field in model.model_fields.items():
            yield name
            for member in models_in(field.annotation):
                yield from keys(member)

    page = pages["recipe.md"]
    for key in {*keys(Recipe), *keys(StudyTable)}:
        if key == "method":
            continue
        rows = [line for line in page.splitlines() if line.startswith(f"| `{key}` |")]
        assert rows, key
        for row in rows:
            assert len(row.rstrip(" |").rpartition("|")[2].strip()) > 10, row


def test_links_inside_the_pages_have_a_heading(pages: dict[str, str]) -> None:
    def anchors(page: str) -> set[str]:
        titles = re.findall(r"^#+ (.+)$", page, re.MULTILINE)
        return {re.sub(r"[^\w\s-]", "", title).lower().replace(" ", "-") for title in titles}

    for name, page in pages.items():
        for target, anchor in re.findall(r"\]\(([\w.-]*)#([\w-]+)\)", page):
            assert anchor in anchors(pages[target or name]), f"{name}: {target}#{anchor}"
