"""A report's files: figures, the paper as PDF and LaTeX, the notebook, and exports."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from pennyweight.errors import ReportError
from pennyweight.report.content import make_content
from pennyweight.report.facts import Facts, load_facts
from pennyweight.report.figures import FIGURES, write_figures
from pennyweight.report.notebook import write_notebook
from pennyweight.report.prose import load_prose
from pennyweight.report.typeset import latex, typst_source, write_pdf

__all__ = ["PARTS", "Paper", "write_report"]

PARTS = ("figures", "paper", "notebook")


@dataclass(frozen=True, slots=True)
class Paper:
    """What the author gives.

    Attributes:
        title: None for one made of the run's name.
        authors: in order.
        link: to the repository.
        prose: a Markdown file.
        style: AAAI's own style file (aaai24.sty), which may not be passed on with this software.
        without: names of figures to leave out.
    """

    title: str | None = None
    authors: tuple[str, ...] = ()
    link: str | None = None
    prose: Path | None = None
    style: Path | None = None
    without: tuple[str, ...] = ()


def write_report(
    runs: Sequence[str | Path],
    *,
    out: str | Path,
    paper: Paper | None = None,
    parts: Sequence[str] = PARTS,
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, Path]:
    """Write a report of complete runs, from their records alone.

    Args:
        runs: directories of runs or of a study; the first run is the report's subject.
        out: where the files go; files of an earlier report there are replaced.
        paper: what the author gives.
        parts: of `PARTS`.
        say: gets what is being done.

    Returns:
        What was written, by what it is.

    Raises:
        RunError: there is no complete run.
        ReportError: a library is missing, the paper is too long, or the author's files are not
            usable.
    """
    paper, out = paper or Paper(), Path(out)
    _require("matplotlib")
    facts = load_facts(runs)
    _check(paper)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ReportError(f"--out {out}: cannot be made: {error.strerror}") from None
    written: dict[str, Path] = {}
    drawn = write_figures(facts, out / "figures")
    say(f"{len(drawn)} figures in {out / 'figures'}")
    written["figures"] = out / "figures"
    if "paper" in parts:
        pages = _write_paper(facts, paper, drawn, out)
        say(f"paper of {pages} pages in {out / 'paper.pdf'}")
        written |= {"paper": out / "paper.pdf", "latex": out / "paper.tex"}
    if "notebook" in parts:
        _require("nbclient")
        written["notebook"] = write_notebook(facts.main.path, out / "notebook.ipynb")
        say(f"notebook in {written['notebook']}")
    return written


def _check(paper: Paper) -> None:
    for name in paper.without:
        if name not in FIGURES:
            raise ReportError(f"--without {name}: no such figure; there are {', '.join(FIGURES)}")
    if paper.style is not None and not paper.style.is_file():
        raise ReportError(f"--aaai-style {paper.style}: no such file; name your aaai24.sty")
    load_prose(paper.prose)


def _write_paper(facts: Facts, paper: Paper, drawn: Mapping[str, Path], out: Path) -> int:
    """LaTeX's source, Typst's source and the PDF; its pages."""
    shown = [name for name in drawn if name not in paper.without]
    content = make_content(
        facts,
        title=paper.title or f"{facts.main.name}: text classification under a budget",
        authors=paper.authors,
        link=paper.link,
        prose=load_prose(paper.prose),
        drawn=frozenset(shown),
    )
    if paper.style is not None:
        shutil.copy(paper.style, out)
    pictures = {name: f"figures/{name}" for name in shown}
    tex = latex(content, pictures, style=paper.style.stem if paper.style else None)
    (out / "paper.tex").write_text(tex, encoding="utf-8")
    source = typst_source(content, {name: f"{path}.png" for name, path in pictures.items()})
    return write_pdf(source, out / "paper.pdf")


def _require(module: str) -> None:
    if find_spec(module) is None:
        raise ReportError(f"a report needs {module}; pip install 'pennyweight[report]'")
