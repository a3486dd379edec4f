"""Open WordNet with NLTK's reader, wherever it is installed.

Princeton's data files come with Debian's `wordnet-base`, with NLTK's own download, or in any
directory. NLTK reads only from its own data path and needs a file `lexnames`, which Debian does not
include. The files are therefore copied into the cache, together with a `lexnames` written here.
Each directory has a copy of its own, and changed files are copied again.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pennyweight.environment import cache_directory
from pennyweight.errors import DataError
from pennyweight.files import replacing

__all__ = ["open_wordnet"]

_SYSTEM_FOLDERS = (
    "/usr/share/wordnet",
    "/usr/local/share/wordnet",
    "/opt/homebrew/share/wordnet/dict",
)
_PARTS_OF_SPEECH = {"noun": 1, "verb": 2, "adj": 3, "adv": 4}
_REQUIRED = [f"{kind}.{part}" for kind in ("index", "data") for part in _PARTS_OF_SPEECH]
_FILES = [*_REQUIRED, *(f"{part}.exc" for part in _PARTS_OF_SPEECH), "cntlist.rev"]
_FIX = (
    "install Debian's wordnet-base, run python -m nltk.downloader wordnet, or set the environment "
    "variable PENNYWEIGHT_WORDNET to a directory with index.noun and data.noun"
)
# The lexicographer files in the order of their numbers, from lexnames(5) of WordNet 3.0.
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


@cache
def open_wordnet(directory: str | None) -> Any:
    """Return NLTK's WordNet reader.

    Args:
        directory: the directory with WordNet's files; None to search the usual places.

    Raises:
        DataError: NLTK or WordNet is missing.
    """
    if find_spec("nltk") is None:
        raise DataError("WordNet needs NLTK; run pip install 'pennyweight[lab]'")
    import nltk
    from nltk.corpus.reader import WordNetCorpusReader

    home = cache_directory() / "nltk_data"
    corpus = _copy(_find_files(directory), home / "corpora")
    if str(home) not in nltk.data.path:
        nltk.data.path.append(str(home))

    class English(WordNetCorpusReader):
        """NLTK's reader without its support for other languages, which needs another file."""

        def map_wn(self, version: str = "wordnet") -> None:
            return None

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The multilingual functions are not available")
        return English(nltk.data.FileSystemPathPointer(str(corpus)), None)


def _copy(source: Path, corpora: Path) -> Path:
    """Return the directory with a copy of WordNet's files, which is made unless there is one."""
    files = [source / name for name in _FILES if (source / name).is_file()]
    facts = [(str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    key = hashlib.sha256(repr(facts).encode()).hexdigest()[:16]
    corpus = corpora / f"wordnet-{key}"
    corpus.mkdir(parents=True, exist_ok=True)
    for file in files:
        _write_once(corpus / file.name, file.read_bytes)
    _write_once(corpus / "lexnames", _lexnames)
    return corpus


def _write_once(path: Path, content: Callable[[], bytes]) -> None:
    if not path.exists():
        with replacing(path) as part:
            part.write_bytes(content())


def _lexnames() -> bytes:
    lines = [
        f"{number:02d}\t{name}\t{_PARTS_OF_SPEECH[name.split('.')[0]]}\n"
        for number, name in enumerate(_LEXNAMES)
    ]
    return "".join(lines).encode("ascii")


def _find_files(directory: str | None) -> Path:
    directory = directory or os.environ.get("PENNYWEIGHT_WORDNET")
    if directory:
        folder = Path(directory).expanduser()
        if _is_complete(folder):
            return folder
        raise DataError(f"{folder}: WordNet is not in this directory; {_FIX}")
    import nltk

    system = map(Path, _SYSTEM_FOLDERS)
    downloaded = (Path(path) / "corpora" / "wordnet" for path in nltk.data.path)
    for folder in (*system, *downloaded):
        if _is_complete(folder):
            return folder
    raise DataError(f"WordNet is not installed; {_FIX}")


def _is_complete(folder: Path) -> bool:
    return all((folder / name).is_file() for name in _REQUIRED)
