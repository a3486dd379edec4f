"""Atomic writes: a file or directory is complete under its name, or absent.

Everything is synced to the disk before it is renamed into place, so that a crash of the machine
cannot leave a renamed but empty file.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["hash_file", "recover_directory", "replace_directory", "replacing"]


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path that replaces `path` once the block has ended without an error.

    A reader sees the old file or the new one, never a part of it. After an error the temporary
    file is removed and the old file is untouched. A symbolic link stays, and the file that it
    points to is replaced.

    A device, a pipe or a socket, such as `/dev/stdout` or the other end of a shell's `>(command)`,
    cannot be replaced: `path` itself is yielded, and is written to directly.

    Raises:
        OSError: the file cannot be written.
    """
    if _is_special(path):
        yield path
        return
    if path.is_symlink():
        path = path.resolve()
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.part")
    try:
        yield part
        _sync(part)
        part.replace(path)
        _sync(path.parent)
    finally:
        part.unlink(missing_ok=True)


def replace_directory(directory: Path, write: Callable[[Path], None]) -> None:
    """Fill a new directory with `write`, then put it in the place of `directory`.

    Between the two renames that this takes, the old directory lies beside its name;
    `recover_directory` puts it back after a crash at that moment. An error in `write` is passed on;
    the old directory is untouched then, and nothing of the new one is left.

    Raises:
        OSError: the directory cannot be written.
    """
    recover_directory(directory)
    new, old = _beside(directory, "new"), _beside(directory, "old")
    for leftover in (new, old):
        shutil.rmtree(leftover, ignore_errors=True)
    new.mkdir(parents=True)
    try:
        write(new)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise
    for path in (*sorted(new.rglob("*")), new):
        _sync(path)
    if directory.exists():
        directory.rename(old)
    new.rename(directory)
    _sync(directory.parent)
    shutil.rmtree(old, ignore_errors=True)


def recover_directory(directory: Path) -> bool:
    """Undo a replacement that a crash interrupted; return whether `directory` exists now."""
    old = _beside(directory, "old")
    if not directory.exists() and old.is_dir():
        old.rename(directory)
        _sync(directory.parent)
    return directory.is_dir()


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file's content, in hex.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _beside(directory: Path, suffix: str) -> Path:
    return directory.with_name(f".{directory.name}.{suffix}")


def _is_special(path: Path) -> bool:
    """Return whether something other than a file or a directory lies at `path`.

    Everything in `/dev` and `/proc` counts: `/dev/stdout` is a link to whatever the shell has
    opened, which can be a file, but then the shell's redirection would no longer reach it.
    """
    if path.absolute().parts[:2] in (("/", "dev"), ("/", "proc")) and path.exists():
        return True
    return path.exists() and not path.is_file() and not path.is_dir()


def _sync(path: Path) -> None:
    """Flush a file or directory to the disk, where the system can do that."""
    if os.name == "nt" and path.is_dir():
        return  # Windows cannot open directories
    flags = os.O_RDONLY if path.is_dir() or os.name != "nt" else os.O_RDWR
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
