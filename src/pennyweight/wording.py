"""Durations and sizes in words, for logs and messages."""

from __future__ import annotations

__all__ = ["byte_size", "duration"]


def duration(seconds: float) -> str:
    """Return a duration: "45 s", "3 min 05 s" or "2 h 10 min"."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60:02} min"
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"


def byte_size(number: int) -> str:
    """Return a number of bytes: "6.40 MB" or "1.25 GB"."""
    return f"{number / 1e9:,.2f} GB" if number >= 1e8 else f"{number / 1e6:,.2f} MB"
