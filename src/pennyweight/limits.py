"""The limits on what foreign files may cost, which environment variables can raise."""

from __future__ import annotations

import os

from pennyweight.errors import PennyweightError

__all__ = ["LIMITS", "MOST_EXPANSION", "limit"]

# Text compresses to a tenth or so, and columns with few values to less.
MOST_EXPANSION = 200

# By variable: the default, in MiB, and what is limited.
LIMITS = {
    "PENNYWEIGHT_MAX_DOCUMENT_MIB": (64, "a recipe, record, config or other JSON or TOML file"),
    "PENNYWEIGHT_MAX_ROW_MIB": (16, "a row of Parquet, or of a saved or pickled data set"),
    "PENNYWEIGHT_MAX_EXPANDED_MIB": (
        256,
        "what the rows of a compressed file may hold, if that is over 200 times its size",
    ),
}


def limit(variable: str) -> int:
    """Return a limit in bytes.

    Args:
        variable: a key of `LIMITS`; the environment variable of this name holds another limit, as
            a whole number of MiB.

    Raises:
        PennyweightError: the variable is set to something else.
    """
    default, what = LIMITS[variable]
    text = os.environ.get(variable, "").strip() or str(default)
    if not text.isdecimal() or not 0 < int(text[:10]) < 2**23:
        raise PennyweightError(
            f"{variable}: given {text[:40]!r}; allowed: a whole number of MiB from 1, the limit on "
            f"{what}"
        )
    return int(text) * 2**20
