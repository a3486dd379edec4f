"""Sources of rows: a file, a data set on the hub, or the bundled sample."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pennyweight.data import hub
from pennyweight.data.read import READERS, detect, existing_path, open_file
from pennyweight.data.read.saved import open_dataset
from pennyweight.errors import DataError
from pennyweight.files import hash_file

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from pennyweight.data.read import OpenFile

__all__ = ["LocatedSource", "Source", "locate"]

# Larger files are identified by path, size and modification time alone: hashing takes too long.
_MAX_HASHED_BYTES = 64 * 2**20


@dataclass(frozen=True, slots=True)
class Source:
    """A source of rows, as a recipe or a command names it.

    Attributes:
        location: a path, PATH:SPLIT of a saved DatasetDict, "hub:NAME[:SPLIT]" or "sample:SPLIT".
        format: a name in `read.READERS`; None to detect it.
        text_columns: columns joined by spaces into the text; None for the usual names.
        label_column: column with the label; None for the usual names.
        revision: commit, tag or branch of a data set on the hub.
        pair_columns: the two columns with the texts of a pair; None for the usual names, or for
            single texts.
        label_columns: columns of 0 and 1, one for each class of a multi-label task, whose names
            are the names of the classes; None if one column holds the label.
    """

    location: str
    format: str | None = None
    text_columns: tuple[str, ...] | None = None
    label_column: str | None = None
    revision: str | None = None
    pair_columns: tuple[str, str] | None = None
    label_columns: tuple[str, ...] | None = None

    def with_columns_of(self, other: Source, available: Collection[str]) -> Source:
        """Return this source with the column names of another, where it has none itself.

        Args:
            other: another source, such as that of the training rows.
            available: the columns of this source's file; names that it lacks are not used.
        """

        def existing(names: Collection[str] | None) -> bool:
            return bool(names) and all(name in available for name in names or ())

        source = self
        if not self.text_columns and not self.pair_columns:
            source = replace(
                source,
                text_columns=other.text_columns if existing(other.text_columns) else None,
                pair_columns=other.pair_columns if existing(other.pair_columns) else None,
            )
        if not self.label_column and not self.label_columns:
            label = other.label_column
            source = replace(
                source,
                label_column=label if label is not None and label in available else None,
                label_columns=other.label_columns if existing(other.label_columns) else None,
            )
        return source


@dataclass(frozen=True, slots=True)
class LocatedSource:
    """A source that exists and whose format is known.

    Attributes:
        name: the source's name in messages.
        format: a name in `read.READERS`, or "hub".
        identity: returns JSON-able values that change whenever the rows do; small files are
            hashed for it. Raises DataError if a file cannot be read.
        open: opens the source.
        digest: returns a SHA-256 that depends on the content of the files, and for large ones on
            their size alone, but not on their place and time. Raises DataError if one cannot be
            read.
    """

    name: str
    format: str
    identity: Callable[[], tuple[object, ...]]
    open: Callable[[], OpenFile]
    digest: Callable[[], str]


def locate(source: Source) -> LocatedSource:
    """Find a source without reading its rows.

    Raises:
        DataError: the source does not exist, or its format cannot be detected.
    """
    kind, _, rest = source.location.partition(":")
    if kind == "hub":
        return _locate_on_hub(rest, source.revision)
    if source.revision is not None:
        raise DataError(
            f"{source.location}: revision {source.revision} was given, but only a data set from "
            'the hub has revisions; leave it out, or write the location as "hub:NAME"'
        )
    if kind == "sample":
        return _locate_file(_sample_path(rest), source, split=None)
    path, split = _path_and_split(source.location)
    return _locate_file(path, source, split=split)


def _locate_on_hub(location: str, revision: str | None) -> LocatedSource:
    name, _, split = location.partition(":")
    split = split or "train"
    if not name:
        raise DataError('"hub:" has no name; write hub:NAME or hub:NAME:SPLIT')
    dataset = hub.load(name, split=split, revision=revision)
    shown = f"hub:{name}:{split}"

    def facts() -> list[_FileFacts]:
        files = sorted({str(entry["filename"]) for entry in dataset.cache_files})
        return _file_facts(map(Path, files), shown)

    return LocatedSource(
        shown,
        "hub",
        lambda: (shown, len(dataset), *facts()),
        lambda: open_dataset(dataset, name=shown),
        lambda: _digest(facts(), split),
    )


def _sample_path(split: str) -> Path:
    folder = Path(str(resources.files("pennyweight.data"))) / "sample"
    splits = sorted(file.stem for file in folder.glob("*.jsonl"))
    if split not in splits:
        available = ", ".join(f"sample:{name}" for name in splits) or "none"
        raise DataError(f"sample:{split}: no such sample; available: {available}")
    return folder / f"{split}.jsonl"


def _path_and_split(location: str) -> tuple[Path, str | None]:
    path = Path(location).expanduser()
    folder, colon, split = location.rpartition(":")
    if not path.exists() and colon and Path(folder).expanduser().is_dir():
        return Path(folder).expanduser(), split
    return path, None


def _locate_file(path: Path, source: Source, *, split: str | None) -> LocatedSource:
    name = source.location
    existing_path(path)
    if source.format is not None and source.format not in READERS:
        raise DataError(
            f'{name}: unknown format "{source.format}"; available: {", ".join(READERS)}'
        )
    format_name = source.format or detect(path)

    def facts() -> list[_FileFacts]:
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        return _file_facts((file for file in files if file.is_file()), name)

    return LocatedSource(
        name,
        format_name,
        lambda: (*facts(), split),
        lambda: open_file(path, format=format_name, split=split),
        lambda: _digest(facts(), split),
    )


class _FileFacts(NamedTuple):
    """Facts about a file; `sha256` is "" for a large one."""

    path: str
    bytes: int
    modified_ns: int
    sha256: str


def _digest(facts: Iterable[_FileFacts], split: str | None) -> str:
    """Return a SHA-256 of the content of files, and for large ones of their size."""
    contents = [(each.bytes, each.sha256) for each in facts]
    return hashlib.sha256(json.dumps([contents, split]).encode()).hexdigest()


def _file_facts(files: Iterable[Path], name: str) -> list[_FileFacts]:
    """Return facts about each file, by which changes are noticed."""
    facts = []
    try:
        for file in files:
            path = file.resolve()
            status = path.stat()
            digest = hash_file(path) if status.st_size < _MAX_HASHED_BYTES else ""
            facts.append(_FileFacts(str(path), status.st_size, status.st_mtime_ns, digest))
    except OSError as error:
        raise DataError(f"{name}: {error.strerror}") from error
    return facts
