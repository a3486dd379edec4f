"""Choose validation rows by a hash of their text, so that each row decides for itself.

The set of a row depends on its text, the seed and the fraction alone: not on other rows, on their
order or on their labels. Rows with the same text are in the same set, and a row keeps its set when
others are added. With a larger fraction, the validation rows of a smaller one stay among them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np

__all__ = ["is_held_out"]

_BYTES = 8


def is_held_out(texts: Iterable[str], fraction: float, *, seed: int) -> np.ndarray:
    """Return which texts are for validation, bool `[texts]`.

    Args:
        texts: in the form in which texts are compared; see `overlap.folded_texts`.
        fraction: the expected share of different texts that are for validation, below 1.
        seed: of the hash.
    """
    limit, key = int(fraction * 256**_BYTES), str(seed).encode()
    held_out = bytearray()
    for text in texts:
        digest = hashlib.blake2b(text.encode(), digest_size=_BYTES, key=key).digest()
        held_out.append(int.from_bytes(digest, "big") < limit)
    return np.frombuffer(held_out, dtype=bool)
