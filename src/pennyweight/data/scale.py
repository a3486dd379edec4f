"""The number of rows above which they are handled in blocks, so that memory stays bounded."""

from __future__ import annotations

__all__ = ["MANY_ROWS"]

# Up to here, rows are handled at once. Above, the split off validation rows is drawn by hash, the
# rows are shuffled in windows, and tokens and sketches are stored in files of this many rows.
MANY_ROWS = 2**20
