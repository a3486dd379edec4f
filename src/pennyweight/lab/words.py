"""Word-level augmentation: synonyms, deletion, swaps, typos (Wei & Zou 2019, arXiv:1901.11196).

An augmentation is one entry in `AUGMENTATIONS`: a function that changes a list of words.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Any

import numpy as np

from pennyweight.data.wordnet import open_wordnet
from pennyweight.errors import DataError

__all__ = ["AUGMENTATIONS", "Augmentation", "augment"]

Words = list[str]
# Neighbours on a QWERTY keyboard.
_KEYS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
_NEIGHBOURS = {
    key: [
        *row[max(0, at - 1) : at],
        *row[at + 1 : at + 2],
        *(other[min(at, len(other) - 1)] for other in _KEYS if other is not row),
    ]
    for row in _KEYS
    for at, key in enumerate(row)
}
# The tags of the Penn Treebank by their first letter, and WordNet's parts of speech.
_TAGS = {"N": "n", "V": "v", "J": "a", "R": "r"}


@dataclass(frozen=True, slots=True)
class Augmentation:
    """One augmentation: its name in recipes, what it does, and the function."""

    name: str
    summary: str
    change: Callable[..., Words]


def augment(
    texts: Sequence[str], *, method: str, copies: int, seed: int, options: Mapping[str, Any]
) -> tuple[list[str], np.ndarray]:
    """Changed copies of texts, and the index of the text that each comes from.

    A copy that came out unchanged is left out. The same for the same seed and options.

    Args:
        texts: cleaned.
        method: a name in `AUGMENTATIONS`.
        copies: of each text, at most.
        seed: of positions and choices.
        options: the augmentation's own.

    Raises:
        DataError: WordNet or a tagger is missing.
    """
    made, parents = [], []
    change = AUGMENTATIONS[method].change
    for parent, text in enumerate(texts):
        words = text.split()
        seen = {" ".join(words)}
        for copy in range(copies):
            draw = np.random.default_rng((seed, parent, copy))
            changed = " ".join(change(list(words), draw, **options))
            if changed and changed not in seen:
                seen.add(changed)
                made.append(changed)
                parents.append(parent)
    return made, np.array(parents, dtype=np.int64)


def _positions(words: Words, probability: float, most: int, draw: np.random.Generator) -> list[int]:
    drawn = np.flatnonzero(draw.random(len(words)) < probability)
    return [int(at) for at in draw.permutation(drawn)[:most]]


def _synonyms(
    words: Words,
    draw: np.random.Generator,
    *,
    probability: float,
    most: int,
    part_of_speech: str,
    spare_names: bool,
    wordnet: str | None,
) -> Words:
    tags = _tags(tuple(words)) if part_of_speech == "tagger" else None
    for at in _positions(words, probability, most, draw):
        word = words[at]
        if spare_names and _is_name(words, at):
            continue
        part = tags[at] if tags else part_of_speech
        choices = _choices(word.lower(), part, wordnet) if word.isalpha() else ()
        if choices:
            chosen = choices[int(draw.integers(len(choices)))]
            words[at] = chosen.capitalize() if word[0].isupper() else chosen
    return words


def _is_name(words: Words, at: int) -> bool:
    """A capital letter that no beginning of a sentence explains, or more than one."""
    word = words[at]
    begins = at == 0 or words[at - 1].endswith((".", "!", "?", ":", "-"))
    return any(letter.isupper() for letter in word[1:]) or (word[0].isupper() and not begins)


@lru_cache(maxsize=200_000)
def _choices(word: str, part: str, wordnet: str | None) -> tuple[str, ...]:
    """Single-word synonyms, in WordNet's order of frequency."""
    reader = open_wordnet(wordnet)
    senses = reader.synsets(word, pos=part if part in _TAGS.values() else None)
    if part == "most-frequent" and senses:
        # The part of speech, and within it the sense, in which the word is used most.
        count = [sum(lm.count() for lm in s.lemmas() if lm.name().lower() == word) for s in senses]
        senses = [senses[int(np.argmax(count))]]
    names = (lemma.name() for sense in senses for lemma in sense.lemmas())
    found = dict.fromkeys(name for name in names if name.isalpha() and name.lower() != word)
    return tuple(found)


@lru_cache(maxsize=64)
def _tags(words: tuple[str, ...]) -> list[str]:
    import nltk

    try:
        tagged = nltk.pos_tag(list(words))
    except LookupError:
        raise DataError(
            'part_of_speech: "tagger" needs NLTK\'s tagger; run python -m nltk.downloader '
            'averaged_perceptron_tagger_eng, or use "most-frequent"'
        ) from None
    return [_TAGS.get(tag[:1], "") for _, tag in tagged]


def _deletion(words: Words, draw: np.random.Generator, *, probability: float) -> Words:
    kept = [word for word in words if draw.random() >= probability]
    return kept or words


def _swap(words: Words, draw: np.random.Generator, *, count: int) -> Words:
    for _ in range(count):
        if len(words) > 1:
            one, other = draw.choice(len(words), size=2, replace=False)
            words[one], words[other] = words[other], words[one]
    return words


def _typos(words: Words, draw: np.random.Generator, *, probability: float) -> Words:
    """A key missed, a neighbouring key, or two letters in the wrong order."""
    for at in _positions(words, probability, len(words), draw):
        letters = list(words[at])
        if len(letters) < 4:
            continue
        spot = int(draw.integers(1, len(letters) - 1))
        kind = int(draw.integers(3))
        if kind == 0:
            del letters[spot]
        elif kind == 1:
            near = _NEIGHBOURS.get(letters[spot].lower())
            letters[spot] = near[int(draw.integers(len(near)))] if near else letters[spot]
        else:
            letters[spot], letters[spot - 1] = letters[spot - 1], letters[spot]
        words[at] = "".join(letters)
    return words


AUGMENTATIONS: Mapping[str, Augmentation] = MappingProxyType(
    {
        entry.name: entry
        for entry in (
            Augmentation("synonyms", "some words become WordNet synonyms", _synonyms),
            Augmentation("deletion", "some words are left out", _deletion),
            Augmentation("swap", "two words change places", _swap),
            Augmentation("typos", "some words get a typing error", _typos),
        )
    }
)
