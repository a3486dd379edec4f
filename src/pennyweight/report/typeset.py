"""Content as Typst and as LaTeX, in the geometry of AAAI-2024 papers, and as a PDF without TeX.

Both come from templates in `templates/`; text is escaped for each. Geometry (AAAI Press formatting
instructions, 2024): letter paper, text of 7 by 9 inches, 0.75 inches from the left, right and top;
two columns, 0.375 inches apart; 10 point type on 12.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from pennyweight.errors import ReportError
from pennyweight.report.content import Content, Figure, Table, Text

__all__ = ["PAGES", "latex", "pages_of", "typst_source", "write_pdf"]

# The competition's limit.
PAGES = 4
_MARKS = re.compile(r"(\*\*[^*]+\*\*|\*[^*]+\*|`[^`]+`)")
_TYPST = re.compile(r"([\\#$*_`<>@\[\]~/=+\-\"'])")
_TEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
}


def typst_source(content: Content, figures: Mapping[str, str]) -> str:
    """Typst's source.

    Args:
        content: the paper.
        figures: path of each figure's picture, from the source's directory.
    """
    return _render("paper.typ.j2", content, figures, _typst_escape, _typst_marked)


def latex(content: Content, figures: Mapping[str, str], *, style: str | None) -> str:
    """LaTeX's source.

    Args:
        content: the paper.
        figures: path of each figure's picture, without its ending.
        style: name of AAAI's own style file without ".sty", where the author has it; None for the
            bundled preamble of the same geometry.
    """
    return _render("paper.tex.j2", content, figures, _tex_escape, _tex_marked, style=style)


def write_pdf(source: str, path: Path) -> int:
    """Typeset Typst's source that stands for `path`'s directory; the number of pages.

    Raises:
        ReportError: the typst package is missing, or there are more than four pages.
    """
    if find_spec("typst") is None:
        raise ReportError("the PDF needs typst; pip install 'pennyweight[report]'")
    import typst

    file = path.with_suffix(".typ")
    file.write_text(source, encoding="utf-8")
    pages = pages_of(file)
    if pages > PAGES:
        raise ReportError(
            f"{file}: {pages} pages, and {PAGES} are allowed; cut the author's prose, or leave out "
            "figures with --without NAME (the largest: confusion, reliability, comparison)"
        )
    path.write_bytes(typst.compile(str(file), format="pdf"))
    return pages


def pages_of(file: Path) -> int:
    """Pages that a Typst source makes."""
    import typst

    rendered: Any = typst.compile(str(file), format="png", ppi=20.0)
    return len(rendered) if isinstance(rendered, list) else 1


def _render(
    template: str,
    content: Content,
    figures: Mapping[str, str],
    escape: Callable[[str], str],
    marked: Callable[[str], str],
    **more: object,
) -> str:
    # Brackets of its own, because braces are LaTeX's and hashes Typst's.
    environment = Environment(
        undefined=StrictUndefined,
        block_start_string="<%",
        block_end_string="%>",
        variable_start_string="<<",
        variable_end_string=">>",
        comment_start_string="<#",
        comment_end_string="#>",
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,  # noqa: S701
    )
    environment.filters |= {"esc": escape, "marked": marked}
    kinds = {Text: "text", Table: "table", Figure: "figure"}
    environment.tests["kind"] = lambda block, name: kinds[type(block)] == name
    text = (resources.files("pennyweight.report") / "templates" / template).read_text("utf-8")
    return environment.from_string(text).render(paper=content, figures=figures, **more) + "\n"


def _typst_escape(text: str) -> str:
    return _TYPST.sub(r"\\\1", text)


def _tex_escape(text: str) -> str:
    return "".join(_TEX.get(letter, letter) for letter in text)


def _typst_marked(text: str) -> str:
    forms = {"**": "#strong[{}]", "*": "#emph[{}]"}
    return _marked(text, _typst_escape, forms, code=lambda part: f"#raw({_quoted(part)})")


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _tex_marked(text: str) -> str:
    forms = {"**": r"\textbf{{{}}}", "*": r"\emph{{{}}}"}
    return _marked(text, _tex_escape, forms, code=lambda part: rf"\texttt{{{_tex_escape(part)}}}")


def _marked(
    text: str,
    escape: Callable[[str], str],
    forms: Mapping[str, str],
    *,
    code: Callable[[str], str],
) -> str:
    """Text with its Markdown marks written in another language's forms."""

    def mark(part: str) -> str:
        sign = part[: len(part) - len(part.lstrip("*"))]
        if not sign:
            return code(part[1:-1])
        return forms[sign].format(escape(part[len(sign) : -len(sign)]))

    parts = _MARKS.split(text)
    return "".join(mark(part) if at % 2 else escape(part) for at, part in enumerate(parts))
