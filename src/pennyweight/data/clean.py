"""Cleaning steps: named functions from text to text, applied in the recipe's order.

The same steps run on training, validation, test and unlabelled rows, from the run's recipe.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.util import find_spec
from types import MappingProxyType

from pennyweight.data.wordnet import open_wordnet
from pennyweight.errors import DataError

__all__ = ["STEPS", "Step", "cleaner", "lemmatizer"]

# AG News lost the ampersand of its entities: "#39;" for an apostrophe, "quot;" for a quote.
_BROKEN_NUMBER = re.compile(r"(?<!&)#(\d{1,5});")
_BROKEN_NAME = re.compile(r"(?<![&\w])(quot|amp|lt|gt|nbsp|apos);")
_TAG = re.compile(r"</?[a-zA-Z][^<>]{0,200}>")
# AG News writes a line break as a backslash, which may stand directly before a word.
_BACKSLASH_DOLLAR = re.compile(r"\\+(?=\$)")
_BACKSLASH = re.compile(r"\\+")
_SPACE = re.compile(r"\s+")
_URL = re.compile(
    r"\b(?:https?://|www\.)[^\s<>\"]+|<?\b[A-Za-z0-9.-]+\.(?:com|org|net|edu)/[^\s<>\"]*>?"
)
_AGENCIES = r"Reuters|AP|AFP|UPI|Ziff Davis|SPACE\.com|CNN|Canadian Press|Forbes\.com|USATODAY\.com"
# "(Reuters) Reuters - ", "LONDON (Reuters) - ", "AP - ", "NEW YORK, Aug. 3 (AP) -- ".
_PLACE = r"[A-Z][A-Z.,'/ ]{1,40}(?:,? ?[A-Z][a-z]{2,8}\.? \d{1,2})? "
_AGENCY = re.compile(
    rf"^(?:{_PLACE})?\((?:{_AGENCIES})\)\s*(?:(?:{_AGENCIES})\s*)?(?:--?|\u2014)\s+"
    rf"|^(?:{_AGENCIES})\s+(?:--?|\u2014)\s+"
)
# The same in the middle, behind a title: "Oil falls (Reuters) Reuters - Prices fell".
_AGENCY_INSIDE = re.compile(rf" \((?:{_AGENCIES})\) (?:{_AGENCIES}) (?:--?|\u2014) ")
_PUNCTUATION = re.compile(r"[^\w\s]|_")
_WORD = re.compile(r"[A-Za-z]+")


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


def _urls(text: str) -> str:
    return _URL.sub(" ", text)


def _agency_prefix(text: str) -> str:
    return _AGENCY_INSIDE.sub(" ", _AGENCY.sub("", text))


def _punctuation(text: str) -> str:
    return _PUNCTUATION.sub(" ", text)


def _stop_words(text: str) -> str:
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    words = text.split(" ")
    return " ".join(word for word in words if word.lower() not in ENGLISH_STOP_WORDS)


def _stemming(text: str) -> str:
    stem = _stemmer()
    return _WORD.sub(lambda found: stem(found[0]), text)


def _lemmatization(text: str) -> str:
    lemma = lemmatizer()
    return _WORD.sub(lambda found: lemma(found[0]), text)


@cache
def _stemmer() -> Callable[[str], str]:
    _require_nltk("stemming")
    from nltk.stem import PorterStemmer

    stem = PorterStemmer().stem
    return lru_cache(maxsize=100_000)(lambda word: str(stem(word, to_lowercase=False)))


@cache
def lemmatizer() -> Callable[[str], str]:
    """From a word to its base form in WordNet: as a noun, or else as a verb."""
    wordnet = open_wordnet(None)

    @lru_cache(maxsize=100_000)
    def lemma(word: str) -> str:
        lower = word.lower()
        for part in ("n", "v"):
            found = wordnet.morphy(lower, part)
            if found:
                return word if found == lower else str(found)
        return word

    return lemma


def _require_nltk(step: str) -> None:
    if find_spec("nltk") is None:
        raise DataError(f"data.clean: \"{step}\" needs NLTK; pip install 'pennyweight[lab]'")


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
            Step("urls", "addresses of web pages", _urls),
            Step("agency-prefix", 'agencies in front: "LONDON (Reuters) - "', _agency_prefix),
            Step("stop-words", "words such as the, of, is; hurts", _stop_words),
            Step(
                "punctuation", "everything that is no letter, digit or space; hurts", _punctuation
            ),
            Step("stemming", "Porter's stems instead of words; hurts", _stemming),
            Step("lemmatization", "WordNet's base forms instead of words; hurts", _lemmatization),
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
