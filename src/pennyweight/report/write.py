"""A report's files: figures, the paper as PDF and LaTeX, and the notebook."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from pennyweight.errors import ReportError
from pennyweight.report.content import FrontMatter
from pennyweight.report.drawing import write_figures
from pennyweight.report.facts import Facts, load_facts
from pennyweight.report.figures import FIGURES
from pennyweight.report.leaderboard import write_study_markdown
from pennyweight.report.notebook import write_notebook
from pennyweight.report.paper import make_content
from pennyweight.report.prose import load_prose
from pennyweight.report.study_figures import STUDY_FIGURES
from pennyweight.report.typeset import latex_source, typst_source, write_pdf

__all__ = ["PARTS", "PaperOptions", "write_report"]

PARTS = ("figures", "paper", "notebook")


@dataclass(frozen=True, slots=True)
class PaperOptions:
    """The author's choices for the paper.

    Attributes:
        title: title of the paper; None to derive one from the run's name.
        authors: names in order.
        link: address of the repository.
        prose: a Markdown file with the author's own text, by section.
        style: the author's copy of AAAI's style file, which may not be redistributed.
        without: names of figures to leave out of the paper.
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
    paper: PaperOptions | None = None,
    parts: Sequence[str] = PARTS,
    log: Callable[[str], None] = lambda _: None,
) -> dict[str, Path]:
    """Write a report about complete runs; every number in it comes from their records.

    Args:
        runs: directories of runs or of a study; the first run is the report's subject.
        out: the report's directory; files of an earlier report are replaced.
        paper: the author's choices for the paper.
        parts: which of `PARTS` to write. The paper always comes with its figures.
        log: receives progress messages.

    Returns:
        The path of each part, by name.

    Raises:
        RunError: no run is complete.
        ReportError: a library is missing, the paper is too long, or one of the author's files
            cannot be used.
    """
    paper, out = paper or PaperOptions(), Path(out)
    _require("matplotlib")
    facts = load_facts(runs)
    _check(paper)
    others = [] if facts.has_datasets else facts.groups[1:]
    for run in (run for group in others for run in group):
        log(
            f"{run.path}: evaluated on other {facts.main.sets[0]} rows than {facts.main.path}; "
            "not compared with it"
        )
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ReportError(f"--out {out}: cannot be created: {error.strerror}") from None
    written: dict[str, Path] = {}
    if "figures" in parts or "paper" in parts:
        figures = write_figures(FIGURES, facts, out / "figures")
        if facts.study is not None:
            figures += (drawn := write_figures(STUDY_FIGURES, facts.study, out / "figures"))
            if facts.has_datasets:
                written["study"] = write_study_markdown(facts.study, out, figures=drawn)
                log(f"ranks and results of the study in {written['study']}")
        written["figures"] = out / "figures"
        log(f"{len(figures)} figures in {out / 'figures'}")
    if "paper" in parts:
        shown = [name for name in figures if name not in paper.without]
        pages = _write_paper(facts, paper, shown, out)
        written |= {"paper": out / "paper.pdf", "latex": out / "paper.tex"}
        log(f"paper of {pages} {'page' if pages == 1 else 'pages'} in {out / 'paper.pdf'}")
    if "notebook" in parts:
        _require("nbclient")
        written["notebook"] = write_notebook(facts.main.path, out / "notebook.ipynb")
        log(f"notebook in {written['notebook']}")
    return written


def _check(paper: PaperOptions) -> None:
    """Refuse unusable options before anything is written."""
    for name in paper.without:
        if name not in (known := (*FIGURES, *STUDY_FIGURES)):
            raise ReportError(f"--without {name}: no such figure; choose from {', '.join(known)}")
    if paper.style is not None and not paper.style.is_file():
        raise ReportError(
            f"--aaai-style {paper.style}: no such file; give the path of your aaai24.sty"
        )
    load_prose(paper.prose)


def _write_paper(facts: Facts, paper: PaperOptions, shown: Sequence[str], out: Path) -> int:
    """Write the paper as LaTeX, Typst and PDF, and return its number of pages."""
    budget = facts.main.record.plan.budget
    content = make_content(
        facts,
        FrontMatter(
            title=paper.title
            or f"Text Classification with at Most {budget:,} Trainable Parameters",
            authors=paper.authors,
            link=paper.link,
        ),
        load_prose(paper.prose),
        frozenset(shown),
    )
    if paper.style is not None:
        shutil.copy(paper.style, out)
    style = paper.style.stem if paper.style else None
    tex = latex_source(content, {name: f"figures/{name}.pdf" for name in shown}, style=style)
    (out / "paper.tex").write_text(tex, encoding="utf-8")
    source = typst_source(content, {name: f"figures/{name}.svg" for name in shown})
    return write_pdf(source, out / "paper.pdf")


def _require(module: str) -> None:
    if find_spec(module) is None:
        raise ReportError(f"a report needs {module}; run: pip install 'pennyweight[report]'")
