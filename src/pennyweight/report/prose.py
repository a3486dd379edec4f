"""The author's own text: a Markdown file whose headings name the paper's sections."""

from __future__ import annotations

from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

from pennyweight.errors import ReportError
from pennyweight.report.content import Text, plain

__all__ = ["load_prose"]

_MARKUP = {"strong_open": "**", "strong_close": "**", "em_open": "*", "em_close": "*"}
_UNSUPPORTED = frozenset({"fence", "code_block", "html_block", "blockquote_open", "hr"})
_SUPPORTED = "paragraphs, lists, *emphasis*, **strong** and `code` are supported"


def load_prose(path: Path | None) -> dict[str, tuple[Text, ...]]:
    """Return the paragraphs and list items of a Markdown file, by heading.

    Raises:
        ReportError: the file cannot be read, text comes before the first heading, or the file
            contains something that a paper cannot show, such as tables, images, quotes or code.
    """
    if path is None:
        return {}
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ReportError(f"--prose {path}: cannot be read: {error}") from None
    sections: dict[str, list[Text]] = {}
    title: str | None = None
    tokens = MarkdownIt().parse(text)
    depth = 0
    for number, token in enumerate(tokens):
        depth += (token.type == "list_item_open") - (token.type == "list_item_close")
        if token.type == "heading_open":
            title = _inline(tokens[number + 1], path)
            sections.setdefault(title, [])
        elif token.type == "inline" and tokens[number - 1].type == "paragraph_open":
            if title is None:
                raise ReportError(
                    f"--prose {path}: line {_line(token)}: text before the first heading; start "
                    'with a heading such as "# Overview"'
                )
            sections[title].append(Text(_inline(token, path), is_item=depth > 0))
        elif token.type in _UNSUPPORTED:
            name = token.type.removesuffix("_open")
            raise ReportError(
                f"--prose {path}: line {_line(token)}: {name} is not supported; {_SUPPORTED}"
            )
    return {heading: tuple(texts) for heading, texts in sections.items()}


def _line(token: Token) -> int:
    return token.map[0] + 1 if token.map else 0


def _inline(token: Token, path: Path) -> str:
    return "".join(_translate(child, path, _line(token)) for child in token.children or ())


def _translate(child: Token, path: Path, line: int) -> str:
    """Return a piece of a paragraph in the markup of `Text`."""
    match child.type:
        case "text":
            return plain(child.content)
        case "softbreak" | "hardbreak":
            return " "
        case "code_inline":
            return f"`{child.content}`"
        case "link_open" | "link_close":
            return ""
        case kind if kind in _MARKUP:
            return _MARKUP[kind]
    raise ReportError(f"--prose {path}: line {line}: {child.type} is not supported; {_SUPPORTED}")
