"""MkDocs hooks: publish the repository files outside `docs/` that pages link to.

On GitHub such a link is relative to the page, as in `../benchmarks/results/speed.json`. The site
holds a copy of the file under `repository/`, and the links are rewritten to it.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import TYPE_CHECKING

from mkdocs.structure.files import File

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
_FOLDER = "repository"
PUBLISHED = (
    "CONTRIBUTING.md",
    "LICENSE",
    "SECURITY.md",
    "benchmarks/results/export.json",
    "benchmarks/results/latency.json",
    "benchmarks/results/growth.json",
    "benchmarks/results/growth-ten-million.json",
    "benchmarks/results/bank-amd-epyc.json",
    "benchmarks/results/full-fine-tuning.json",
    "benchmarks/results/out-of-the-box.json",
    "benchmarks/results/predict-five-million.json",
    "benchmarks/results/predict-growth.json",
    "benchmarks/results/predict-ray-one-million.json",
    "benchmarks/results/wrong-shares.json",
    "benchmarks/results/int8-products.json",
    "benchmarks/results/serve-amd-epyc.json",
    "benchmarks/results/speed-avx2.json",
    "benchmarks/results/start.json",
    "benchmarks/results/speed.json",
    "benchmarks/results/speed.svg",
    "benchmarks/results/top-layers.json",
    "deploy/kubernetes-job.yaml",
    "deploy/ray-job.yaml",
    "deploy/slurm.sh",
    "src/pennyweight/data/sample/README.md",
    "src/pennyweight/recipe/studies/leaderboard.toml",
)
_LINK = re.compile(r"(?<=\]\()(?!\w+:|#|/)([^)#\s]+)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a copy of every published file."""
    for name in PUBLISHED:
        file = File.generated(config, f"{_FOLDER}/{name}", abs_src_path=str(ROOT / name))
        files.append(file)
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Rewrite the links between pages and published files, in both directions."""
    uri = page.file.src_uri
    is_copy = uri.startswith(f"{_FOLDER}/")
    source = ROOT / uri.removeprefix(f"{_FOLDER}/") if is_copy else Path(config.docs_dir, uri)

    def rewrite(link: re.Match[str]) -> str:
        target = _uri_on_site((source.parent / link[1]).resolve(), Path(config.docs_dir))
        return posixpath.relpath(target, posixpath.dirname(uri)) if target else link[1]

    return _LINK.sub(rewrite, markdown)


def _uri_on_site(target: Path, docs: Path) -> str | None:
    """Return where the site has a file of the repository, or None if it has not."""
    if target.is_relative_to(docs):
        return target.relative_to(docs).as_posix()
    if target.is_relative_to(ROOT) and target.relative_to(ROOT).as_posix() in PUBLISHED:
        return f"{_FOLDER}/{target.relative_to(ROOT).as_posix()}"
    return None
