"""Which words mattered: how a probability changes when each word is left out.

Occlusion (Zeiler and Fergus, "Visualizing and Understanding Convolutional Networks", 2014), with
words as patches. All variants of a text are classified in one request, so it works for every
classifier, whatever its method, and needs no gradients.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from pennyweight.inference.texts import Text

__all__ = ["Occlusion", "occlusions"]


@dataclass(frozen=True, slots=True)
class Occlusion:
    """A text with a word, or some consecutive words, left out.

    Attributes:
        part: 0, or for a pair of texts the index of the text that the words are in.
        start: the index of their first character.
        stop: the index behind their last character.
        words: the words.
        text: what remains.
    """

    part: int
    start: int
    stop: int
    words: str
    text: Text


def occlusions(text: Text, *, limit: int) -> list[Occlusion]:
    """Return a variant of a text for each of its words, without this word.

    Where there are more than `limit` words, consecutive ones are left out together. A text of a
    single word has the empty text as its variant.
    """
    parts: Sequence[str] = [text] if isinstance(text, str) else text
    words = [
        (part, match.start(), match.end())
        for part, content in enumerate(parts)
        for match in re.finditer(r"\S+", content)
    ]
    # Groups do not reach from one text of a pair into the other.
    size = max(1, math.ceil(len(words) / max(1, limit - len(parts) + 1)))
    found = []
    for part, content in enumerate(parts):
        own = [(start, stop) for index, start, stop in words if index == part]
        for first in range(0, len(own), size):
            start, stop = own[first][0], own[min(first + size, len(own)) - 1][1]
            # The space behind the words goes with them, since spaces can be tokens.
            rest = content[:start] + content[stop:].lstrip()
            remaining = [*parts[:part], rest.rstrip(), *parts[part + 1 :]]
            variant = remaining[0] if isinstance(text, str) else (remaining[0], remaining[1])
            found.append(Occlusion(part, start, stop, content[start:stop], variant))
    return found
