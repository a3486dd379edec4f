"""A paper as values: sections of paragraphs, tables and figures, independent of the typesetter.

`typeset` renders the same content as Typst and as LaTeX.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Block", "Content", "Figure", "FrontMatter", "Section", "Table", "Text", "plain"]


@dataclass(frozen=True, slots=True)
class Text:
    """A paragraph, or an item of a list.

    Its markup is `*emphasis*`, `**strong**`, `` `code` ``, and references to what the paper shows:
    `[fig:NAME]` and `[tab:NAME]`. `[cite:KEY,...]` cites papers of `references.REFERENCES`.
    """

    text: str
    is_item: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """A table; paragraphs refer to it as `[tab:NAME]`."""

    name: str
    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    @property
    def label(self) -> str:
        """The label that paragraphs refer to."""
        return f"tab:{self.name}"


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure, by its name in `figures.FIGURES`; paragraphs refer to it as `[fig:NAME]`."""

    name: str
    caption: str

    @property
    def label(self) -> str:
        """The label that paragraphs refer to."""
        return f"fig:{self.name}"


Block = Text | Table | Figure


@dataclass(frozen=True, slots=True)
class Section:
    """A section; the author's own prose comes before the generated blocks."""

    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True, slots=True)
class FrontMatter:
    """The title, authors and link, which appear above the abstract.

    Attributes:
        title: title of the paper.
        authors: names in order; empty for an anonymous paper.
        link: address of the repository, if any.
    """

    title: str
    authors: tuple[str, ...] = ()
    link: str | None = None


@dataclass(frozen=True, slots=True)
class Content:
    """A complete paper; `references` holds the entries of the list of references, in order."""

    front: FrontMatter
    abstract: str
    sections: tuple[Section, ...]
    references: tuple[str, ...] = ()

    @property
    def labels(self) -> frozenset[str]:
        """The labels of all tables and figures."""
        blocks = [block for section in self.sections for block in section.blocks]
        return frozenset(block.label for block in blocks if not isinstance(block, Text))


def plain(text: str) -> str:
    """Return text in which stars and backticks are not markup."""
    return text.replace("*", "\N{ASTERISK OPERATOR}").replace("`", "'")
