"""Papers as Typst, LaTeX and PDF in the geometry of AAAI-2024, without TeX.

The templates are in `templates/`; text is escaped for each language. Geometry (AAAI Press
formatting instructions, 2024): letter paper, text of 7 by 9 inches, 0.75 inches from the left,
right and top; two columns, 0.375 inches apart; 10 point Times on 12.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib import resources
from importlib.util import find_spec
from pathlib import Path

import matplotlib as mpl
from jinja2 import Environment, StrictUndefined

from pennyweight.errors import ReportError
from pennyweight.report.content import Content, Figure, Table, Text
from pennyweight.report.drawing import FONT
from pennyweight.report.latex import escape_latex

__all__ = ["PAGES", "font_directory", "latex_source", "typst_source", "write_pdf"]

# The page limit of the shared task that the papers are written for.
PAGES = 4
_MARKUP = re.compile(r"(\*\*[^*]+\*\*|\*[^*]+\*|`[^`]+`|\[(?:fig|tab):[\w-]+\])")
_TYPST_SPECIAL = re.compile(r"([\\#$*_`<>@\[\]~/=+\-])")
_TYPST_NUMBER = re.compile(r"^(\d+)\.(?=\s)")


@dataclass(frozen=True, slots=True)
class _Language:
    """How a typesetter's language writes text and its markup; `{}` stands for the text."""

    template: str
    escape: Callable[[str], str]
    strong: str
    emphasis: str
    code: Callable[[str], str]
    reference: Callable[[str], str]


def typst_source(content: Content, figures: Mapping[str, str]) -> str:
    """Return the paper as Typst.

    Args:
        content: the paper.
        figures: the path of each figure's picture, relative to the source.

    Raises:
        ReportError: a paragraph refers to a figure or table that the paper does not have.
    """
    return _render(_TYPST, content, figures, font=FONT)


def latex_source(content: Content, figures: Mapping[str, str], *, style: str | None) -> str:
    """Return the paper as LaTeX.

    Args:
        content: the paper.
        figures: the path of each figure's picture, relative to the source.
        style: name of AAAI's style file, without ".sty", if the author has it; None for a preamble
            with the same geometry.

    Raises:
        ReportError: a paragraph refers to a figure or table that the paper does not have.
    """
    return _render(_LATEX, content, figures, style=style)


def font_directory() -> Path:
    """Return the directory with the typeface of the paper, which matplotlib installs."""
    return Path(mpl.get_data_path()) / "fonts" / "ttf"


def write_pdf(source: str, path: Path) -> int:
    """Typeset Typst source whose paths are relative to `path`'s directory.

    Returns:
        The number of pages.

    Raises:
        ReportError: the typst package is missing, or there are more than four pages.
    """
    if find_spec("typst") is None:
        raise ReportError("the PDF needs typst; run: pip install 'pennyweight[report]'")
    import typst

    file = path.with_suffix(".typ")
    file.write_text(source, encoding="utf-8")
    compiler = typst.Compiler(str(file), font_paths=[str(font_directory())])
    pages = int(json.loads(compiler.query("<pages>", field="value", one=True)))
    if pages > PAGES:
        raise ReportError(
            f"{file}: {pages} pages, but at most {PAGES} are allowed; shorten the prose, or leave "
            "out figures with --without NAME (the tallest are reliability and confusion)"
        )
    compiler.compile(output=str(path), format="pdf")
    return pages


def _render(
    language: _Language, content: Content, figures: Mapping[str, str], **more: object
) -> str:
    # Delimiters of our own, because LaTeX uses braces and Typst uses hashes.
    environment = Environment(
        undefined=StrictUndefined,
        block_start_string="<%",
        block_end_string="%>",
        variable_start_string="<<",
        variable_end_string=">>",
        comment_start_string="<##",
        comment_end_string="##>",
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,  # noqa: S701
    )
    environment.filters |= {
        "esc": language.escape,
        "marked": partial(_marked, language=language, labels=content.labels),
        "quoted": _quoted,
    }
    kinds = {Text: "text", Table: "table", Figure: "figure"}
    environment.tests["kind"] = lambda block, name: kinds[type(block)] == name
    folder = resources.files("pennyweight.report") / "templates"
    template = environment.from_string((folder / language.template).read_text("utf-8"))
    authors = ", ".join(content.front.authors) or "Anonymous Submission"
    return template.render(paper=content, authors=authors, figures=figures, **more) + "\n"


def _marked(text: str, *, language: _Language, labels: frozenset[str]) -> str:
    """Return text in another language, with its markup translated."""

    def translate(mark: str) -> str:
        if mark.startswith("["):
            return _reference(mark[1:-1], language, labels)
        if mark.startswith("`"):
            return language.code(mark[1:-1])
        if mark.startswith("**"):
            return language.strong.format(language.escape(mark[2:-2]))
        return language.emphasis.format(language.escape(mark[1:-1]))

    parts = _MARKUP.split(text)
    return "".join(
        translate(part) if number % 2 else language.escape(part)
        for number, part in enumerate(parts)
    )


def _reference(label: str, language: _Language, labels: frozenset[str]) -> str:
    if label not in labels:
        raise ReportError(
            f"[{label}]: the paper has no such figure or table; it has {', '.join(sorted(labels))}"
        )
    return language.reference(label)


def _escape_typst(text: str) -> str:
    return _TYPST_NUMBER.sub(r"\1\\.", _TYPST_SPECIAL.sub(r"\\\1", text))


def _quoted(text: str) -> str:
    """Return the inside of a Typst string literal."""
    return text.replace("\\", "\\\\").replace('"', '\\"')


def _tex_reference(label: str) -> str:
    return rf"{'Figure' if label.startswith('fig:') else 'Table'}~\ref{{{label}}}"


_TYPST = _Language(
    template="paper.typ.j2",
    escape=_escape_typst,
    strong="#strong[{}]",
    emphasis="#emph[{}]",
    code=lambda text: f'#raw("{_quoted(text)}")',
    reference=lambda label: f"#ref(<{label}>)",
)
_LATEX = _Language(
    template="paper.tex.j2",
    escape=escape_latex,
    strong=r"\textbf{{{}}}",
    emphasis=r"\emph{{{}}}",
    code=lambda text: rf"\texttt{{{escape_latex(text)}}}",
    reference=_tex_reference,
)
