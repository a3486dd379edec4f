"""Word-level augmentation: synonyms, deletion, swaps, typos (Wei & Zou 2019, arXiv:1901.11196).

An augmentation is one entry in `AUGMENTATIONS`: a frozen class with the augmentation's options as
fields, which changes a list of words when it is called.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from types import MappingProxyType
from typing import Any

import numpy as np

from pennyweight.data.wordnet import open_wordnet
from pennyweight.errors import DataError

__all__ = ["AUGMENTATIONS", "Augmentation", "Deletion", "Swap", "Synonyms", "Typos", "augment"]

Words = list[str]
# Neighbouring keys on a QWERTY keyboard.
_KEYS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
_NEIGHBOURS = {
    key: [
        *row[max(0, column - 1) : column],
        *row[column + 1 : column + 2],
        *(other[min(column, len(other) - 1)] for other in _KEYS if other is not row),
    ]
    for row in _KEYS
    for column, key in enumerate(row)
}
# The first letter of a Penn Treebank tag, and WordNet's part of speech.
_TAGS = {"N": "n", "V": "v", "J": "a", "R": "r"}
# Of the uses of a word as a part of speech, the share from which a sense counts as frequent.
_FREQUENT_SHARE = 0.2
# Function words that scikit-learn's list of stop words lacks.
_MORE_STOP_WORDS = frozenset(
    {
        *("did", "does", "doing", "don", "having", "shall", "ought", "need", "dare"),
        *("unless", "whether", "till", "per", "versus", "via", "ours", "theirs", "whom"),
        *("no", "yes", "not", "just", "oh", "ok", "lot", "ll", "ve", "re", "isn", "wasn", "aren"),
    }
)


@dataclass(frozen=True, slots=True)
class Augmentation:
    """One augmentation: its name in recipes, what it does, and the class that holds its options."""

    name: str
    summary: str
    build: Callable[..., Callable[[Words, np.random.Generator], Words]]


def augment(
    texts: Sequence[str], *, method: str, copies: int, seed: int, options: Mapping[str, Any]
) -> tuple[list[str], np.ndarray]:
    """Return changed copies of texts, and the index of the text that each one comes from.

    Copies that equal their text or an earlier copy of it are left out. The same seed and options
    give the same copies.

    Args:
        texts: cleaned texts.
        method: a name in `AUGMENTATIONS`.
        copies: maximum number of copies of each text.
        seed: of positions and choices.
        options: the augmentation's own options.

    Returns:
        The copies, and the indices of their parents, int64 `[copies]`.

    Raises:
        DataError: WordNet or the part-of-speech tagger is missing.
    """
    changed, parents = [], []
    change = AUGMENTATIONS[method].build(**options)
    for parent, text in enumerate(texts):
        words = text.split()
        seen = {" ".join(words)}
        for copy in range(copies):
            generator = np.random.default_rng((seed, parent, copy))
            candidate = " ".join(change(list(words), generator))
            if candidate and candidate not in seen:
                seen.add(candidate)
                changed.append(candidate)
                parents.append(parent)
    return changed, np.array(parents, dtype=np.int64)


@dataclass(frozen=True, slots=True)
class Synonyms:
    """Replace content words by single-word WordNet synonyms of a frequent sense.

    Stop words, single letters, words that WordNet has only as a name or abbreviation, and rare
    senses are never used: "can" does not become "tin", nor "me" "Maine".

    Attributes:
        probability: of each word to be replaced, in 0..1.
        most: maximum number of words replaced in one text.
        part_of_speech: the senses that count: "most-frequent" takes the word's most frequent
            sense, "tagger" the frequent senses as the part of speech that NLTK's tagger assigns,
            "any" the frequent senses as any part of speech.
        spare_names: leave words alone that look like names.
        wordnet: directory of WordNet's files; None to search the usual places.
    """

    probability: float
    most: int
    part_of_speech: str
    spare_names: bool
    wordnet: str | None

    def __call__(self, words: Words, generator: np.random.Generator) -> Words:
        """Return the changed words; the list may be changed in place."""
        tags = _tags(tuple(words)) if self.part_of_speech == "tagger" else None
        for position in _positions(words, self.probability, self.most, generator):
            word = words[position]
            if not _is_content_word(word) or (self.spare_names and _is_name(words, position)):
                continue
            part = tags[position] if tags else self.part_of_speech
            synonyms = _synonyms_of(word.lower(), part, self.wordnet)
            if synonyms:
                synonym = synonyms[int(generator.integers(len(synonyms)))]
                words[position] = synonym.capitalize() if word[0].isupper() else synonym
        return words


@dataclass(frozen=True, slots=True)
class Deletion:
    """Delete each word with a probability; a text never loses all its words."""

    probability: float

    def __call__(self, words: Words, generator: np.random.Generator) -> Words:
        """Return the changed words; the list may be changed in place."""
        kept = [word for word in words if generator.random() >= self.probability]
        return kept or words


@dataclass(frozen=True, slots=True)
class Swap:
    """Exchange two words, `count` times."""

    count: int

    def __call__(self, words: Words, generator: np.random.Generator) -> Words:
        """Return the changed words; the list may be changed in place."""
        for _ in range(self.count):
            if len(words) > 1:
                i, j = generator.choice(len(words), size=2, replace=False)
                words[i], words[j] = words[j], words[i]
        return words


@dataclass(frozen=True, slots=True)
class Typos:
    """Put a typing error into each word of four or more letters with a probability.

    A letter is left out, replaced by a neighbour on the keyboard, or exchanged with the one before
    it; the last letter stays.
    """

    probability: float

    def __call__(self, words: Words, generator: np.random.Generator) -> Words:
        """Return the changed words; the list may be changed in place."""
        for position in _positions(words, self.probability, len(words), generator):
            letters = list(words[position])
            if len(letters) < 4:
                continue
            i = int(generator.integers(1, len(letters) - 1))
            kind = int(generator.integers(3))
            if kind == 0:
                del letters[i]
            elif kind == 1:
                keys = _NEIGHBOURS.get(letters[i].lower())
                letters[i] = keys[int(generator.integers(len(keys)))] if keys else letters[i]
            else:
                letters[i], letters[i - 1] = letters[i - 1], letters[i]
            words[position] = "".join(letters)
        return words


def _positions(
    words: Words, probability: float, most: int, generator: np.random.Generator
) -> list[int]:
    """Return at most so many positions, each drawn with the probability, in random order."""
    drawn = np.flatnonzero(generator.random(len(words)) < probability)
    return [int(position) for position in generator.permutation(drawn)[:most]]


def _is_name(words: Words, position: int) -> bool:
    """Return whether a word has a capital that the beginning of a sentence does not explain."""
    word = words[position]
    begins = position == 0 or words[position - 1].endswith((".", "!", "?", ":", "-"))
    return any(letter.isupper() for letter in word[1:]) or (word[0].isupper() and not begins)


def _is_content_word(word: str) -> bool:
    return word.isalpha() and len(word) > 1 and word.lower() not in _stop_words()


@cache
def _stop_words() -> frozenset[str]:
    """Return words that carry no content of their own: articles, pronouns, prepositions, ..."""
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    return frozenset(ENGLISH_STOP_WORDS) | _MORE_STOP_WORDS


@lru_cache(maxsize=200_000)
def _synonyms_of(word: str, part: str, wordnet: str | None) -> tuple[str, ...]:
    """Return single-word synonyms of a word's frequent senses, in WordNet's order.

    Args:
        word: in lower case.
        part: the part of speech in WordNet's notation, "most-frequent", "any", or "" for none.
        wordnet: directory of WordNet's files; None to search the usual places.
    """
    reader = open_wordnet(wordnet)
    parts = tuple(_TAGS.values()) if part in ("most-frequent", "any") else (part,) if part else ()
    senses = [sense for each in parts for sense in _frequent_senses(reader, word, each)]
    if part == "most-frequent" and senses:
        # The sense in which the word is used most, over all parts of speech.
        senses = [max(senses, key=lambda sense: sense.uses)]
    return tuple(dict.fromkeys(name for sense in senses for name in sense.synonyms))


@dataclass(frozen=True, slots=True)
class _Sense:
    """A sense of a word: how often WordNet's corpus uses the word in it, and its synonyms."""

    uses: int
    synonyms: tuple[str, ...]


def _frequent_senses(reader: Any, word: str, part: str) -> list[_Sense]:
    """Return a word's first sense as a part of speech, and others that are used often.

    WordNet sorts the senses by frequency. A name or an abbreviation, which WordNet writes with a
    capital, is no sense of the word in lower case.
    """
    base_form = reader.morphy(word, part)
    senses = []
    for synset in reader.synsets(word, pos=part) if base_form else ():
        names = [lemma.name() for lemma in synset.lemmas()]
        if base_form not in names:
            continue
        uses = next(lemma.count() for lemma in synset.lemmas() if lemma.name() == base_form)
        synonyms = (
            name
            for name in names
            if name.islower() and _is_content_word(name) and name not in (word, base_form)
        )
        senses.append(_Sense(uses, tuple(synonyms)))
    total = sum(sense.uses for sense in senses)
    return [
        sense
        for number, sense in enumerate(senses)
        if number == 0 or (sense.uses and sense.uses >= _FREQUENT_SHARE * total)
    ]


@lru_cache(maxsize=64)
def _tags(words: tuple[str, ...]) -> list[str]:
    """Return WordNet's part of speech of each word, or "" where it has none."""
    import nltk

    try:
        tagged = nltk.pos_tag(list(words))
    except LookupError:
        raise DataError(
            'part_of_speech: "tagger" needs NLTK\'s tagger; run python -m nltk.downloader '
            'averaged_perceptron_tagger_eng, or use "most-frequent"'
        ) from None
    return [_TAGS.get(tag[:1], "") for _, tag in tagged]


AUGMENTATIONS: Mapping[str, Augmentation] = MappingProxyType(
    {
        entry.name: entry
        for entry in (
            Augmentation("synonyms", "replaces content words with WordNet synonyms", Synonyms),
            Augmentation("deletion", "deletes words", Deletion),
            Augmentation("swap", "swaps pairs of words", Swap),
            Augmentation("typos", "adds typing errors", Typos),
        )
    }
)
