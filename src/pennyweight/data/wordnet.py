"""WordNet through NLTK's reader, from wherever it is installed.

Princeton's data files come as Debian's `wordnet-base`, as NLTK's own download, or in any directory.
NLTK reads only below its own data path and wants a file `lexnames`, which Debian leaves out; so
the files are linked into the cache, beside a `lexnames` written here.
"""

from __future__ import annotations

import os
import warnings
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pennyweight.environment import cache_directory
from pennyweight.errors import DataError

__all__ = ["open_wordnet"]

_PLACES = ("/usr/share/wordnet", "/usr/local/share/wordnet", "/opt/homebrew/share/wordnet/dict")
_PARTS = ("noun", "verb", "adj", "adv")
_NEEDED = [f"{kind}.{part}" for kind in ("index", "data") for part in _PARTS]
_USED = [*_NEEDED, *(f"{part}.exc" for part in _PARTS), "cntlist.rev"]
_HOW = (
    "install Debian's wordnet-base, run python -m nltk.downloader wordnet, or name a directory "
    "with index.noun and data.noun in the variable PENNYWEIGHT_WORDNET"
)
# The lexicographers' files in the order of their numbers, as WordNet 3.0's lexnames(5) lists them,
# by part of speech: 1 noun, 2 verb, 3 adjective, 4 adverb.
_LEXNAMES = [
    "adj.all",
    "adj.pert",
    "adv.all",
    "noun.Tops",
    "noun.act",
    "noun.animal",
    "noun.artifact",
    "noun.attribute",
    "noun.body",
    "noun.cognition",
    "noun.communication",
    "noun.event",
    "noun.feeling",
    "noun.food",
    "noun.group",
    "noun.location",
    "noun.motive",
    "noun.object",
    "noun.person",
    "noun.phenomenon",
    "noun.plant",
    "noun.possession",
    "noun.process",
    "noun.quantity",
    "noun.relation",
    "noun.shape",
    "noun.state",
    "noun.substance",
    "noun.time",
    "verb.body",
    "verb.change",
    "verb.cognition",
    "verb.communication",
    "verb.competition",
    "verb.consumption",
    "verb.contact",
    "verb.creation",
    "verb.emotion",
    "verb.motion",
    "verb.perception",
    "verb.possession",
    "verb.social",
    "verb.stative",
    "verb.weather",
    "adj.ppl",
]
_NUMBER = {"noun": 1, "verb": 2, "adj": 3, "adv": 4}


@cache
def open_wordnet(directory: str | None) -> Any:
    """NLTK's WordNet reader.

    Args:
        directory: with WordNet's files; None to look in the usual places.

    Raises:
        DataError: NLTK or WordNet is missing; the text says how to get it.
    """
    if find_spec("nltk") is None:
        raise DataError("WordNet needs NLTK; pip install 'pennyweight[lab]'")
    import nltk
    from nltk.corpus.reader import WordNetCorpusReader

    source = _find(directory)
    home = cache_directory() / "nltk_data"
    corpus = home / "corpora" / "wordnet"
    corpus.mkdir(parents=True, exist_ok=True)
    for name in _USED:
        target = corpus / name
        if (source / name).is_file() and not target.exists():
            target.write_bytes((source / name).read_bytes())
    lines = [
        f"{at:02d}\t{name}\t{_NUMBER[name.split('.')[0]]}" for at, name in enumerate(_LEXNAMES)
    ]
    (corpus / "lexnames").write_text("\n".join(lines) + "\n", encoding="ascii")
    if str(home) not in nltk.data.path:
        nltk.data.path.append(str(home))

    class English(WordNetCorpusReader):
        """The reader without what it does for other languages, which needs a further file."""

        def map_wn(self, version: str = "wordnet") -> None:
            return None

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The multilingual functions are not available")
        return English(nltk.data.FileSystemPathPointer(str(corpus)), None)


def _find(directory: str | None) -> Path:
    if directory is not None:
        places = [Path(directory).expanduser()]
    else:
        import nltk

        named = os.environ.get("PENNYWEIGHT_WORDNET")
        places = [Path(named)] if named else [Path(place) for place in _PLACES]
        if not named:
            places += [Path(place) / "corpora" / "wordnet" for place in nltk.data.path]
    for place in places:
        if all((place / name).is_file() for name in _NEEDED):
            return place
    where = f"{places[0]}: no WordNet there" if len(places) == 1 else "WordNet was not found"
    raise DataError(f"{where}; {_HOW}")
