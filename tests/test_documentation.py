"""The documentation site builds without warnings and without a network, and is complete."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import pennyweight

ROOT = Path(__file__).parents[1]
API = ROOT / "docs" / "reference" / "api.md"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(out)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return out


def test_the_site_builds_strictly_with_a_search_index(site: Path) -> None:
    assert (site / "index.html").is_file()
    assert (site / "search" / "search_index.json").is_file()


def test_no_page_loads_anything_from_another_server(site: Path) -> None:
    for page in site.rglob("*.html"):
        html = page.read_text(encoding="utf-8")
        loaded = re.findall(r"<(?:script|img|iframe|source)\b[^>]*\bsrc=\"?([^\s\">]+)", html)
        loaded += re.findall(r"<link\b[^>]*\brel=\"?stylesheet[^>]*\bhref=\"?([^\s\">]+)", html)
        loaded += re.findall(r"<link\b[^>]*\bhref=\"?([^\s\">]+)[^>]*\brel=\"?stylesheet", html)
        assert not [url for url in loaded if re.match(r"(?:\w+:)?//", url)], page


def test_links_to_repository_files_lead_to_copies_on_the_site(site: Path) -> None:
    html = (site / "results.html").read_text(encoding="utf-8")
    assert 'href="repository/benchmarks/results/speed.json"' in html
    copy = site / "repository" / "benchmarks" / "results" / "speed.json"
    assert copy.read_bytes() == (ROOT / "benchmarks" / "results" / "speed.json").read_bytes()
    assert (site / "repository/src/pennyweight/data/sample/index.html").is_file()


def test_a_copy_of_a_repository_file_links_back_to_the_pages(site: Path) -> None:
    html = (site / "repository" / "CONTRIBUTING.html").read_text(encoding="utf-8")
    assert 'href="../architecture.html"' in html


def test_every_public_name_is_on_the_api_page_under_its_own_module() -> None:
    documented = re.findall(r"^::: ([\w.]+)$", API.read_text(encoding="utf-8"), re.MULTILINE)
    names = {path.rpartition(".")[2]: path for path in documented}
    assert set(pennyweight.__all__) - {"PennyweightError"} == set(names) - {"errors"}
    for name in set(names) - {"errors"}:
        module = importlib.import_module(names[name].rpartition(".")[0])
        assert getattr(module, name) is getattr(pennyweight, name)
        assert getattr(module, name).__module__ == module.__name__


def test_every_page_is_in_the_navigation() -> None:
    loader = type("Loader", (yaml.SafeLoader,), {})
    config = yaml.load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"), loader)
    pages = {
        page
        for entry in config["nav"]
        for page in re.findall(r"'([\w./-]+\.md)'", repr(entry))
        if not page.startswith("repository/")
    }
    docs = ROOT / "docs"
    assert pages == {path.relative_to(docs).as_posix() for path in docs.rglob("*.md")}
