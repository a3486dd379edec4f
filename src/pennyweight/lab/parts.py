"""Long generations in parts on disk, so that an interrupted one continues where it stopped."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pennyweight.files import replacing
from pennyweight.lab.progress import Pace
from pennyweight.wording import duration

__all__ = ["write_parts"]


def write_parts(
    folder: Path,
    batches: Sequence[np.ndarray],
    write: Callable[[int, np.ndarray], Sequence[Mapping[str, Any]]],
    *,
    log: Callable[[str], None],
) -> list[dict[str, Any]]:
    """Return the rows of all batches in order; only those that are not on disk are written.

    Args:
        folder: directory of the finished parts.
        batches: indices of the texts of each batch.
        write: returns the rows of a batch, given its number and its indices.
        log: receives a progress line for each batch.
    """
    folder.mkdir(parents=True, exist_ok=True)
    total = sum(map(len, batches))
    files = [folder / f"{number:05d}.jsonl" for number in range(len(batches))]
    done = sum(len(batch) for batch, file in zip(batches, files, strict=True) if file.is_file())
    if 0 < done < total:
        log(f"generation: continuing after {done:,} of {total:,} texts")
    pace = Pace(total, done=done)
    rows: list[dict[str, Any]] = []
    for number, (batch, file) in enumerate(zip(batches, files, strict=True)):
        if not file.is_file():
            _write(file, write(number, batch))
            done += len(batch)
            left = f", {duration(pace.seconds_left(done))} left" if done < total else ""
            log(f"generated {done:,} of {total:,} texts, {pace.rate(done):.1f} texts/s{left}")
        with file.open(encoding="utf-8") as stream:
            rows += map(json.loads, stream)
    return rows


def _write(file: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    with replacing(file) as new:
        new.write_text(text, encoding="utf-8", newline="\n")
