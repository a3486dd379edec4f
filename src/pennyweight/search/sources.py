"""Digests of the files of a study or search, so that it goes on with no other rows."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from pennyweight.data.source import Source, locate
from pennyweight.documents import DocumentError, read_json_table
from pennyweight.errors import DataError, RunError
from pennyweight.recipe import Recipe
from pennyweight.runs.record import write_text

__all__ = ["check_sources", "keep_sources", "source_digests"]

_FILE = "sources.json"


def source_digests(recipes: Iterable[Recipe]) -> dict[str, str]:
    """Return the digest of every source of rows that recipes name, by location.

    Sources that cannot be read are left out: whoever reads their rows reports it.
    """
    digests: dict[str, str] = {}
    for recipe in recipes:
        data, evaluate = recipe.data, recipe.evaluate
        tables = [data.train, data.validation, data.target, evaluate.test, *evaluate.also.values()]
        for source in (Source(**dict(table)) for table in tables if table is not None):
            if source.location in digests:
                continue
            try:
                digests[source.location] = locate(source).digest()
            except DataError:
                continue
    return digests


def check_sources(before: Mapping[str, str], now: Mapping[str, str], *, name: str) -> None:
    """Refuse to go on with sources whose rows have changed.

    Args:
        before: digests by location, of the sources when the study or search began.
        now: those of the present.
        name: of the study or search, in the message.

    Raises:
        RunError: a source has another digest than before.
    """
    changed = [location for location in now if before.get(location, now[location]) != now[location]]
    if changed:
        raise RunError(
            f"{name}: {', '.join(changed)} changed since it began, so its results could not be "
            "compared with new ones; restore the rows, or name a new --out"
        )


def keep_sources(folder: Path, now: Mapping[str, str]) -> None:
    """Check the digests in a study's directory, and add those of new sources.

    Raises:
        RunError: a source has changed, or the file with the digests cannot be read or written.
    """
    path = folder / _FILE
    before: Mapping[str, str] = {}
    if path.is_file():
        try:
            before = read_json_table(path)
        except (OSError, DocumentError) as error:
            raise RunError(f"{path}: cannot be read: {error}; delete it to go on") from None
    check_sources(before, now, name=str(folder))
    if merged := {**now, **before}:
        write_text(path, json.dumps(merged, indent=1, ensure_ascii=False) + "\n")
