"""The author's own prose: a Markdown file whose headings name the paper's sections."""

from __future__ import annotations

from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

from pennyweight.errors import ReportError
from pennyweight.report.content import Text

__all__ = ["load_prose"]

_MARKS = {"strong_open": "**", "strong_close": "**", "em_open": "*", "em_close": "*"}


def load_prose(path: Path | None) -> dict[str, tuple[Text, ...]]:
    """Paragraphs and list items by heading; headings that the paper has are merged into it.

    Raises:
        ReportError: the file cannot be read, text stands before the first heading, or something is
            in it that a paper of this kind cannot take (tables, pictures, quotes, code blocks).
    """
    if path is None:
        return {}
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ReportError(f"--prose {path}: cannot be read: {error}") from None
    found: dict[str, list[Text]] = {}
    section: str | None = None
    tokens = MarkdownIt().parse(text)
    depth = 0
    for at, token in enumerate(tokens):
        depth += (token.type == "list_item_open") - (token.type == "list_item_close")
        if token.type == "heading_open":
            section = _inline(tokens[at + 1], path)
            found.setdefault(section, [])
        elif token.type == "inline" and tokens[at - 1].type == "paragraph_open":
            if section is None:
                raise ReportError(
                    f"--prose {path}: line {_line(token)}: text before the first heading; begin "
                    'with a heading such as "# Overview"'
                )
            found[section].append(Text(_inline(token, path), is_item=depth > 0))
        elif token.type in ("fence", "code_block", "html_block", "blockquote_open", "hr"):
            raise ReportError(
                f"--prose {path}: line {_line(token)}: {token.type.removesuffix('_open')} is not "
                "taken; write paragraphs, lists, *emphasis*, **strong** and `code`"
            )
    return {name: tuple(texts) for name, texts in found.items()}


def _line(token: Token) -> int:
    return token.map[0] + 1 if token.map else 0


def _inline(token: Token, path: Path) -> str:
    return "".join(_piece(child, path, token) for child in token.children or ())


def _piece(child: Token, path: Path, parent: Token) -> str:
    match child.type:
        case "text":
            # What the author wrote as stars and backticks is not to be read as marks.
            return child.content.replace("*", "\N{ASTERISK OPERATOR}").replace("`", "'")
        case "softbreak" | "hardbreak":
            return " "
        case "code_inline":
            return f"`{child.content}`"
        case "link_open" | "link_close":
            return ""
        case kind if kind in _MARKS:
            return _MARKS[kind]
    raise ReportError(f"--prose {path}: line {_line(parent)}: {child.type} is not taken")
