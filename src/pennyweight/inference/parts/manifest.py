"""The manifest of a prediction: what was asked for, and which parts are done."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from pennyweight.data.read import Position
from pennyweight.data.shown import listed
from pennyweight.documents import DocumentError, parse_json
from pennyweight.errors import RunError
from pennyweight.inference.parts.files import InputFile
from pennyweight.inference.parts.folder import OutputFolder

__all__ = ["MANIFEST", "DonePart", "Manifest", "ManifestWriter", "load_manifest", "require_same"]

# Programs that read folders of data leave out files that begin with "_".
MANIFEST = "_manifest.json"
# The share of the time that may go into writing the manifest, which grows with the parts.
_MOST_TIME = 0.02
_MOST_SHOWN = 3


class _Plain(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class DonePart(_Plain):
    """A part whose predictions are written.

    Attributes:
        file: name of the input file.
        number: of the part in its file, counted from 0.
        first_row: number of its first row in the file, counted from 1.
        rows: number of rows that were written.
        bad: number of rows that were set aside.
        abstained: number of rows without a label, because its probability is too low.
        path: of the predictions below the folder.
        bytes: size of that file.
        sha256: of that file.
        end: row, byte and line at which the part after it begins.
    """

    file: str
    number: int
    first_row: int
    rows: int
    bad: int
    abstained: int
    path: str
    bytes: int
    sha256: str
    end: tuple[int, int, int]

    @property
    def after(self) -> Position:
        """The row at which the next part begins."""
        return Position(*self.end)


class Manifest(_Plain):
    """The request of a prediction, and its parts that are done.

    Attributes:
        version: of this format.
        pennyweight: the version that began it.
        status: "complete" once all parts are done.
        run: the run's directory, as it was given.
        fingerprint: of the run: its weights, its base and its recipe.
        settings: everything else that the output depends on.
        files: the input files, in their order.
        parts: those that are done, in the order of files and rows.
    """

    version: Literal[1] = 1
    pennyweight: str
    status: Literal["running", "complete"] = "running"
    run: str
    fingerprint: str
    settings: dict[str, Any]
    files: tuple[InputFile, ...]
    parts: tuple[DonePart, ...] = ()


def load_manifest(folder: OutputFolder) -> Manifest | None:
    """Return the manifest in a folder; None if the folder is unused.

    Raises:
        RunError: the folder holds something else, or the manifest is damaged.
    """
    content = folder.read(MANIFEST)
    if content is None:
        if folder.is_unused():
            return None
        raise RunError(
            f"--out {folder.location}: not empty, and not an earlier prediction: {MANIFEST} is "
            "missing; name a new folder"
        )
    try:
        values = parse_json(content)
        return Manifest.model_validate_json(json.dumps(values))
    except (DocumentError, ValidationError) as error:
        problem = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
        raise RunError(
            f"{folder.shown(MANIFEST)}: damaged, or of another version of Pennyweight: {problem}; "
            "name a new folder"
        ) from None


def require_same(before: Manifest, now: Manifest, *, out: str) -> None:
    """Check that a prediction goes on with the run, the settings and the input that it began with.

    A file of which no part is done may have changed or gone, and new ones may have come. If no part
    is done at all, everything may be different.

    Raises:
        RunError: something is different; the message names it.
    """
    if not before.parts:
        return
    where = f"--out {out}: holds a prediction"
    if before.fingerprint != now.fingerprint:
        raise RunError(
            f"{where} of another run: the weights, the base or the recipe of {before.run} then and "
            f"of {now.run} now differ; name a new folder"
        )
    if changes := _changes_of_files(before, now.files):
        raise RunError(f"{where} of other files: {'; '.join(changes)}; or name a new folder")
    different = [
        f"{key} ({_shown(before.settings.get(key))} then, {_shown(value)} now)"
        for key, value in now.settings.items()
        if before.settings.get(key) != value
    ]
    if different:
        raise RunError(f"{where} with other settings: {'; '.join(different)}; name a new folder")


def _shown(value: object) -> str:
    return "none" if value is None else json.dumps(value)


def _changes_of_files(before: Manifest, files: Sequence[InputFile]) -> list[str]:
    old, new = ({file.name: file for file in each} for each in (before.files, files))
    done = {part.file for part in before.parts}
    changed = [
        name
        for name, file in old.items()
        if name in new
        and name in done
        and (file.size, file.version) != (new[name].size, new[name].version)
    ]
    missing = [name for name in old if name in done and name not in new]
    changes = (("changed (restore {}", changed), ("missing (put {} back", missing))
    return [_advice(names, change) for change, names in changes if names]


def _advice(names: Sequence[str], change: str) -> str:
    it, its = ("it", "its") if len(names) == 1 else ("them", "their")
    return f"{_some(names)} {change.format(it)}, or delete {its} predictions)"


def _some(names: Sequence[str]) -> str:
    more = len(names) - _MOST_SHOWN
    shown = listed(names[:_MOST_SHOWN])
    return f"{shown} and {more} more" if more > 0 else shown


class ManifestWriter:
    """Adds parts to a manifest, and writes it now and then.

    A part that is done but not in the manifest yet is done again after a crash, with the same
    bytes; so the manifest need not be written after every part.

    Args:
        folder: that holds the manifest.
        manifest: with the parts that are done already.
    """

    def __init__(self, folder: OutputFolder, manifest: Manifest) -> None:
        self._folder = folder
        self._manifest = manifest
        self._order = {file.name: place for place, file in enumerate(manifest.files)}
        self._parts: dict[tuple[str, int], DonePart] = {
            (part.file, part.number): part for part in manifest.parts
        }
        self._not_before = 0.0
        self.save()

    @property
    def parts(self) -> Mapping[tuple[str, int], DonePart]:
        """The parts that are done, by the name of their file and their number."""
        return self._parts

    @property
    def files(self) -> tuple[InputFile, ...]:
        """The input files, in their order."""
        return self._manifest.files

    def add(self, part: DonePart) -> None:
        """Add a part that is done."""
        self._parts[part.file, part.number] = part
        if time.monotonic() >= self._not_before:
            self.save()

    def save(self, *, is_complete: bool = False) -> Manifest:
        """Write the manifest, and return it.

        Raises:
            RunError: it cannot be written.
        """
        began = time.monotonic()
        parts = sorted(self._parts.values(), key=lambda part: (self._order[part.file], part.number))
        changes = {"parts": tuple(parts), "status": "complete" if is_complete else "running"}
        manifest = self._manifest.model_copy(update=changes)
        text = json.dumps(manifest.model_dump(mode="json"), indent=1, ensure_ascii=False) + "\n"
        with self._folder.replacing(MANIFEST) as path:
            path.write_text(text, encoding="utf-8", errors="backslashreplace")
        ended = time.monotonic()
        self._not_before = ended + (ended - began) / _MOST_TIME
        return manifest
