"""Where rows come from: a file, the hub, or the shipped sample."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from pennyweight.data import hub
from pennyweight.data.read import READERS, detect, existing, open_file
from pennyweight.data.read.saved import opened_dataset
from pennyweight.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable

    from pennyweight.data.read import Opened

__all__ = ["Located", "Source", "locate"]

# Larger files are known by path, size and time of change alone; reading them twice takes too long.
_HASHED_BYTES = 64 * 2**20


@dataclass(frozen=True, slots=True)
class Source:
    """What a recipe or a command says about rows to read.

    Attributes:
        location: a path, PATH:SPLIT of a saved DatasetDict, "hub:NAME[:SPLIT]" or "sample:SPLIT".
        format: a name in `read.READERS`; None to detect it.
        text_columns: the columns that make the text, joined by a space; None for the usual names.
        label_column: the column with the label; None for the usual names.
        revision: commit, tag or branch of a data set on the hub.
    """

    location: str
    format: str | None = None
    text_columns: tuple[str, ...] | None = None
    label_column: str | None = None
    revision: str | None = None


@dataclass(frozen=True, slots=True)
class Located:
    """A source that was found.

    Attributes:
        name: what messages call it.
        format: a name in `read.READERS`, or "hub".
        identity: plain facts that change when the rows do.
        open: opens it.
    """

    name: str
    format: str
    identity: tuple[object, ...]
    open: Callable[[], Opened]


def locate(source: Source) -> Located:
    """Finds a source, without reading its rows.

    Raises:
        DataError: there is nothing there, or its format cannot be told.
    """
    kind, _, rest = source.location.partition(":")
    if kind == "hub":
        return _on_hub(rest, source.revision)
    if source.revision is not None:
        raise DataError(
            f"revision {source.revision}: only a data set from the hub has revisions; "
            f"{source.location} is local"
        )
    if kind == "sample":
        return _file(_sample(rest), source.format, None, name=source.location)
    path, split = _path_and_split(source.location)
    return _file(path, source.format, split, name=source.location)


def _on_hub(location: str, revision: str | None) -> Located:
    name, _, split = location.partition(":")
    split = split or "train"
    if not name:
        raise DataError('"hub:" without a name; write hub:NAME or hub:NAME:SPLIT')
    dataset = hub.load(name, split=split, revision=revision)
    files = sorted({str(entry["filename"]) for entry in dataset.cache_files})
    shown = f"hub:{name}:{split}"
    return Located(
        shown,
        "hub",
        (shown, len(dataset), *(fact for file in files for fact in _facts(Path(file)))),
        lambda: opened_dataset(dataset, name=shown),
    )


def _sample(split: str) -> Path:
    folder = Path(str(resources.files("pennyweight.data"))) / "sample"
    path = folder / f"{split}.jsonl"
    splits = ", ".join(sorted(file.stem for file in folder.glob("*.jsonl")))
    if split not in splits.split(", ") or not path.is_file():
        raise DataError(f"sample:{split}: no such sample; there are {splits or 'none'}")
    return path


def _path_and_split(location: str) -> tuple[Path, str | None]:
    path = Path(location).expanduser()
    folder, colon, split = location.rpartition(":")
    if not path.exists() and colon and Path(folder).expanduser().is_dir():
        return Path(folder).expanduser(), split
    return path, None


def _file(path: Path, format_name: str | None, split: str | None, *, name: str) -> Located:
    existing(path)
    if format_name is not None and format_name not in READERS:
        raise DataError(f'{name}: no format "{format_name}"; there are {", ".join(READERS)}')
    format_name = format_name or detect(path)
    try:
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        facts = tuple(fact for file in files if file.is_file() for fact in _facts(file))
    except OSError as error:
        raise DataError(f"{name}: {error.strerror}") from error
    return Located(
        name,
        format_name,
        (*facts, split),
        lambda: open_file(path, format=format_name, split=split),
    )


def _facts(path: Path) -> tuple[str, int, int, str]:
    """Path, bytes, time of change, and the content's hash where that is quick."""
    path = path.resolve()
    found = path.stat()
    digest = ""
    if found.st_size < _HASHED_BYTES:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    return str(path), found.st_size, found.st_mtime_ns, digest
