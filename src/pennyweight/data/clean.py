"""Cleaning steps: named functions from text to text, applied in the order of the recipe.

A run applies the same steps to its training, validation, test and unlabelled rows.
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

__all__ = ["STEPS", "Step", "cleaner"]

# In AG News, entities have lost their ampersand: "#39;" is an apostrophe and "quot;" a quote.
_BROKEN_NUMBER = re.compile(r"(?<!&)#(\d{1,5});")
_BROKEN_NAME = re.compile(r"(?<![&\w])(quot|amp|lt|gt|nbsp|apos);")
# Elements of HTML that occur in texts. Other words in angle brackets are content: List<String>.
_ELEMENTS = (
    "a abbr acronym address article aside b big blockquote body br button center cite code dd "
    "del div dl dt em figcaption figure font footer form h1 h2 h3 h4 h5 h6 head header hr html "
    "i iframe img input ins kbd label li link main mark meta nav nobr object ol option p param "
    "pre q s samp script section select small span strike strong style sub sup table tbody td "
    "textarea tfoot th thead title tr tt u ul var video wbr"
)
_TAG = re.compile(
    rf"</?(?:{'|'.join(_ELEMENTS.split())})(?:\s[^<>]{{0,200}})?\s*/?>", re.IGNORECASE
)
# In AG News, a line break is a backslash, which can come directly before a word.
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
# The same after a title: "Oil falls (Reuters) Reuters - Prices fell".
_AGENCY_INSIDE = re.compile(rf" \((?:{_AGENCIES})\) (?:{_AGENCIES}) (?:--?|\u2014) ")
_PUNCTUATION = re.compile(r"[^\w\s]|_")
_WORD = re.compile(r"[A-Za-z]+")


def _html_entities(text: str) -> str:
    text = _BROKEN_NAME.sub(r"&\1;", _BROKEN_NUMBER.sub(r"&#\1;", text))
    # Unescape twice, because some entities were escaped twice: "&amp;lt;".
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
    return _WORD.sub(lambda match: stem(match[0]), text)


def _lemmatization(text: str) -> str:
    lemma = _lemmatizer()
    return _WORD.sub(lambda match: lemma(match[0]), text)


@cache
def _stemmer() -> Callable[[str], str]:
    _require_nltk("stemming")
    from nltk.stem import PorterStemmer

    stem = PorterStemmer().stem
    return lru_cache(maxsize=100_000)(lambda word: str(stem(word, to_lowercase=False)))


@cache
def _lemmatizer() -> Callable[[str], str]:
    """Return a function that maps a word to its base form in WordNet, as a noun or else a verb."""
    wordnet = open_wordnet(None)

    @lru_cache(maxsize=100_000)
    def lemma(word: str) -> str:
        lower = word.lower()
        for part_of_speech in ("n", "v"):
            base_form = wordnet.morphy(lower, part_of_speech)
            if base_form:
                return word if base_form == lower else str(base_form)
        return word

    return lemma


def _require_nltk(step: str) -> None:
    if find_spec("nltk") is None:
        raise DataError(f"data.clean: \"{step}\" needs NLTK; run pip install 'pennyweight[lab]'")


@dataclass(frozen=True, slots=True)
class Step:
    """A cleaning step.

    Attributes:
        name: its name in recipes.
        summary: one line of documentation: what is removed or replaced, and whether it is known to
            reduce accuracy.
        apply: the function.
    """

    name: str
    summary: str
    apply: Callable[[str], str]


STEPS = MappingProxyType(
    {
        step.name: step
        for step in (
            Step(
                "html-entities",
                "decodes HTML entities, including the broken ones in AG News (#39; quot;)",
                _html_entities,
            ),
            Step("html-tags", "removes the tags of HTML elements, such as <b>", _html_tags),
            Step(
                "backslashes",
                "replaces backslashes, which are line breaks in AG News, with spaces",
                _backslashes,
            ),
            Step("unicode", "normalizes Unicode (NFKC)", _unicode),
            Step("whitespace", "collapses whitespace to single spaces", _whitespace),
            Step("urls", "removes web addresses", _urls),
            Step(
                "agency-prefix",
                'removes news agencies at the beginning: "LONDON (Reuters) - "',
                _agency_prefix,
            ),
            Step("stop-words", "removes words such as the, of, is; reduces accuracy", _stop_words),
            Step(
                "punctuation",
                "removes all but letters, digits and spaces; reduces accuracy",
                _punctuation,
            ),
            Step("stemming", "replaces words with their Porter stems; reduces accuracy", _stemming),
            Step(
                "lemmatization",
                "replaces words with their base forms in WordNet; reduces accuracy",
                _lemmatization,
            ),
        )
    }
)


def cleaner(names: Sequence[str]) -> Callable[[str], str]:
    """Return one function that applies the named steps in order.

    Raises:
        KeyError: a name is not in `STEPS`.
    """
    functions = tuple(STEPS[name].apply for name in names)

    def clean(text: str) -> str:
        for function in functions:
            text = function(text)
        return text

    return clean
