"""Find the files of a folder, of a pattern or behind a URL, and say whether they have changed."""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any

from fsspec import AbstractFileSystem
from pydantic import BaseModel, ConfigDict

from pennyweight.data.read import READERS, AnyFile, PeekedFile, RemoteFile, detect
from pennyweight.data.read.saved import is_saved
from pennyweight.data.read.storage import ending_of, file_system, is_url, storage_errors
from pennyweight.data.shown import listed
from pennyweight.errors import DataError

__all__ = ["InputFile", "common_format", "find_files", "names_several"]

_HIDDEN = (".", "_")
_MAGIC = re.compile(r"[*?\[]")
# What the file systems of fsspec call a value that changes with a file's content, the best first.
_VERSIONS = (
    *("ETag", "etag", "e_tag", "md5", "md5Hash", "contentMD5", "checksum", "sha256", "blob_id"),
    *("mtime", "LastModified", "last_modified", "updated", "modified", "created"),
)


class InputFile(BaseModel):
    """A file of rows.

    Attributes:
        name: its path below the folder, with "/" on every system.
        location: an absolute path, or a URL.
        size: in bytes, as it is stored.
        version: a checksum, or the time of the last change, as the file system has it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    location: str
    size: int
    version: str

    @property
    def file(self) -> AnyFile:
        """The file, to be opened."""
        return RemoteFile(self.location) if is_url(self.location) else Path(self.location)

    @property
    def peeked(self) -> AnyFile:
        """The file, to be looked at only."""
        return PeekedFile(self.location, self.size) if is_url(self.location) else self.file


def names_several(location: str) -> bool:
    """Return whether a location is a folder, a pattern or a URL, and not one local file."""
    if is_url(location):
        return True
    path = Path(location).expanduser()
    if path.is_dir():
        return not is_saved(path)
    return _MAGIC.search(location) is not None and not path.exists()


def find_files(location: str, *, leave_out: str | None = None) -> tuple[InputFile, ...]:
    """Return the files of a folder, of a pattern, or the one at a path or URL, sorted by name.

    In a folder, files of other kinds are left out. Files whose path below it has a part that begins
    with "." or "_" are left out too, unless a pattern names that part, as in "_old/*.csv" or
    "_*.csv". In a pattern, `**` stands for any number of folders.

    Args:
        location: a path, a pattern or a URL.
        leave_out: path or URL of the folder of the output, whose files are left out. A file that
            is named itself stays.

    Raises:
        DataError: there is no such file, one of them is empty, or all are left out.
    """
    if location == "-" or location.startswith(("hub:", "sample:")):
        raise DataError(f"{location}: is predicted as a whole; give --out FILE, not a folder")
    with storage_errors(location):
        local = os.path.abspath(Path(location).expanduser())  # noqa: PTH100 - without ".."
        system, path = file_system(location if is_url(location) else local)
        if _MAGIC.search(path) and not system.exists(path):
            root = _folder_of_pattern(path)
            named = posixpath.relpath(path, root).split("/")
            listing = {
                each: facts
                for each, facts in system.glob(path, detail=True).items()
                if facts["type"] == "file" and not _is_hidden(posixpath.relpath(each, root), named)
            }
            if not listing:
                raise DataError(
                    f'{location}: the pattern matches no file; names that begin with "." or "_" '
                    "must be given with it"
                )
        elif system.isdir(path):
            root = path
            listing = {
                each: facts
                for each, facts in system.find(path, detail=True).items()
                if _is_data(posixpath.relpath(each, root))
            }
            if not listing:
                endings = listed(_formats())
                raise DataError(f"{location}: no file of rows in this folder; known: {endings}")
        else:
            root, listing, leave_out = posixpath.dirname(path), {path: system.info(path)}, None
        every = (_input_file(system, each, facts, root) for each, facts in listing.items())
        files = [file for file in every if not file.location.startswith(f"{leave_out}/")]
    if not files:
        raise DataError(f"{location}: --out lies around all the rows; name another folder")
    for file in files:
        if not file.size:
            raise DataError(f"{file.location}: the file is empty; remove it, or leave it out")
    return tuple(sorted(files, key=lambda file: file.name))


def common_format(files: Iterable[InputFile], *, location: str) -> str:
    """Return the name in `READERS` of the format of all files, judged by their endings.

    The content of the first one decides between formats of the same ending.

    Raises:
        DataError: they have different formats, or it cannot be detected.
    """
    formats = _formats()
    kinds: dict[str, InputFile] = {}
    first = None
    for file in files:
        first = first or file
        ending, _ = ending_of(file.name)
        kinds.setdefault(formats.get(ending, ending), file)
    if len(kinds) > 1:
        (one, a), (other, b) = list(kinds.items())[:2]
        raise DataError(
            f"{location}: files of different formats: {a.name} ({one or 'no ending'}) and {b.name} "
            f"({other or 'no ending'}); name those of one format with a pattern such as "
            f'"{location.rstrip("/")}/*.csv"'
        )
    assert first is not None  # noqa: S101 - `find_files` returns at least one
    return detect(first.peeked)


def _formats() -> dict[str, str]:
    return {ending: reader.name for reader in READERS.values() for ending in reader.endings}


def _is_data(name: str) -> bool:
    return not _is_hidden(name) and ending_of(name)[0] in _formats()


def _is_hidden(name: str, named: Sequence[str] = ()) -> bool:
    """Return whether a part of a path begins with "." or "_", and no pattern of `named` does so."""
    patterns = [pattern for pattern in named if pattern.startswith(_HIDDEN)]
    return any(
        part.startswith(_HIDDEN) and not any(fnmatchcase(part, each) for each in patterns)
        for part in PurePosixPath(name).parts
    )


def _folder_of_pattern(path: str) -> str:
    parts = path.split("/")
    first = next(index for index, part in enumerate(parts) if _MAGIC.search(part))
    return "/".join(parts[:first])


def _input_file(
    system: AbstractFileSystem, path: str, facts: Mapping[str, Any], root: str
) -> InputFile:
    name = posixpath.relpath(path, root) if root else path
    if "file" in _protocols(system):
        status = Path(path).stat()
        return InputFile(
            name=name, location=path, size=status.st_size, version=str(status.st_mtime_ns)
        )
    versions = (facts[key] for key in _VERSIONS if facts.get(key) is not None)
    return InputFile(
        name=name,
        location=str(system.unstrip_protocol(path)),
        size=int(facts.get("size") or 0),
        version=str(next(versions, None) or system.ukey(path)),
    )


def _protocols(system: AbstractFileSystem) -> tuple[str, ...]:
    return (system.protocol,) if isinstance(system.protocol, str) else tuple(system.protocol)
