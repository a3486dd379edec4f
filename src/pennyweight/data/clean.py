"""Cleaning steps: named functions from text to text, applied in the recipe's order.

The same steps run on training, validation, test and unlabelled rows, from the run's recipe.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import MappingProxyType

__all__ = ["STEPS", "Step", "cleaner"]

# AG News lost the ampersand of its entities: "#39;" for an apostrophe, "quot;" for a quote.
_BROKEN_NUMBER = re.compile(r"(?<!&)#(\d{1,5});")
_BROKEN_NAME = re.compile(r"(?<![&\w])(quot|amp|lt|gt|nbsp|apos);")
_TAG = re.compile(r"</?[a-zA-Z][^<>]{0,200}>")
# AG News writes a line break as a backslash, which may stand directly before a word.
_BACKSLASH_DOLLAR = re.compile(r"\\+(?=\$)")
_BACKSLASH = re.compile(r"\\+")
_SPACE = re.compile(r"\s+")


def _html_entities(text: str) -> str:
    text = _BROKEN_NAME.sub(r"&\1;", _BROKEN_NUMBER.sub(r"&#\1;", text))
    # Twice: "&amp;lt;" is an entity that was escaped once more on its way.
    return html.unescape(html.unescape(text))


def _html_tags(text: str) -> str:
    return _TAG.sub(" ", text)


def _backslashes(text: str) -> str:
    return _BACKSLASH.sub(" ", _BACKSLASH_DOLLAR.sub("", text))


def _unicode(text: str) -> str:
    return unicodedata.normalize("NFKC", text)


def _whitespace(text: str) -> str:
    return _SPACE.sub(" ", text).strip()


@dataclass(frozen=True, slots=True)
class Step:
    """One cleaning step: its name in recipes, what it does, and the function."""

    name: str
    summary: str
    apply: Callable[[str], str]


STEPS = MappingProxyType(
    {
        step.name: step
        for step in (
            Step(
                "html-entities", "entities, also AG News' broken ones (#39; quot;)", _html_entities
            ),
            Step("html-tags", "tags such as <b>", _html_tags),
            Step("backslashes", "backslashes that stand for line breaks", _backslashes),
            Step("unicode", "compatibility normalization (NFKC)", _unicode),
            Step("whitespace", "runs of white space become one space", _whitespace),
        )
    }
)


def cleaner(names: Sequence[str]) -> Callable[[str], str]:
    """The steps called `names`, in that order, as one function.

    Raises:
        KeyError: a name is not in `STEPS`.
    """
    functions = tuple(STEPS[name].apply for name in names)

    def clean(text: str) -> str:
        for function in functions:
            text = function(text)
        return text

    return clean
