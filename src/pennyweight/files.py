"""Atomic writes: a file or directory is complete under its name, or absent.

Everything is synced to the disk before it is renamed into place, so that a crash of the machine
cannot leave a renamed but empty file.
"""

from __future__ import annotations

import fcntl
import glob
import hashlib
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = [
    "building_in",
    "hash_file",
    "recover_directory",
    "remove_leftovers",
    "replace_directory",
    "replacing",
    "sync_directory",
    "system_errors",
]

# How libraries written in Rust, such as safetensors and tokenizers, word an error of the system.
_RUST_ERROR = re.compile(r"\(os error (\d+)\)")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path that replaces `path` once the block has ended without an error.

    A reader sees the old file or the new one, never a part of it. After an error the temporary
    file is removed and the old file is untouched; those of killed processes are removed first. The
    permissions are those of the old file, or those that the umask gives a new one, whatever a
    library sets. A symbolic link stays, and the file that it points to is replaced.

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
    _remove_abandoned(path)
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.part")
    descriptor: int | None = None
    try:
        # A signal can end the block as soon as the file exists.
        descriptor = os.open(part, os.O_CREAT | os.O_WRONLY, 0o666)
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_SH)
        mode = (path if path.exists() else part).stat().st_mode
        with system_errors():
            yield part
        part.chmod(mode)
        _sync(part)
        part.replace(path)
        _sync(path.parent)
    finally:
        if descriptor is not None:
            os.close(descriptor)
        part.unlink(missing_ok=True)


def replace_directory(
    directory: Path, write: Callable[[Path], None], *, previous: Path | None = None
) -> None:
    """Fill a new directory with `write`, then put it in the place of `directory`.

    Between the two renames that this takes, the old directory lies beside its name;
    `recover_directory` puts it back after a crash at that moment. An error in `write` is passed on;
    the old directory is untouched then, and nothing of the new one is left. The permissions of the
    files are those that the umask gives new ones.

    Args:
        directory: what is replaced; it need not exist.
        write: fills the new directory.
        previous: where the old directory is kept, in the place of what lies there; None to
            delete it.

    Raises:
        OSError: the directory cannot be written; the old one is untouched.
    """
    recover_directory(directory)
    new, old = _beside(directory, "new"), _beside(directory, "old")
    for leftover in (new, old):
        shutil.rmtree(leftover, ignore_errors=True)
    new.mkdir(parents=True)
    try:
        with system_errors():
            write(new)
        _share(new)
        sync_directory(new)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)  # a full disk needs the space
        raise
    if directory.exists():
        directory.rename(old)
    new.rename(directory)
    _sync(directory.parent)
    if previous is not None and old.exists():
        shutil.rmtree(previous, ignore_errors=True)
        old.rename(previous)
    shutil.rmtree(old, ignore_errors=True)


def recover_directory(directory: Path) -> bool:
    """Undo a replacement that a crash interrupted; return whether `directory` exists now."""
    old = _beside(directory, "old")
    if not directory.exists() and old.is_dir():
        old.rename(directory)
        _sync(directory.parent)
    return directory.is_dir()


def remove_leftovers(directory: Path) -> None:
    """Remove the temporary files and directories that killed processes left in a directory.

    No process may be writing there.
    """
    for pattern in (".*.new", ".*.old", ".*.part"):
        for leftover in directory.glob(pattern):
            _remove(leftover)


@contextmanager
def building_in(cache: Path) -> Iterator[None]:
    """Create a cache's directory if it is missing, and keep others from cleaning it in the block.

    If no other process builds anything there, what killed ones have left is removed first.

    Raises:
        OSError: the directory cannot be created or written.
    """
    cache.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(cache, os.O_RDONLY)
    try:
        # Without locks, as on some network disks, nothing is removed.
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for pattern in (".partial-*", ".*.part", "tmp*"):
                for leftover in cache.glob(pattern):
                    _remove(leftover)
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_SH)
        yield
    finally:
        os.close(descriptor)


def sync_directory(directory: Path) -> None:
    """Flush a directory and everything in it to the disk."""
    for path in (*sorted(directory.rglob("*")), directory):
        _sync(path)


@contextmanager
def system_errors() -> Iterator[None]:
    """Raise errors of the system that a library has wrapped in its own as `OSError` again."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        match = _RUST_ERROR.search(str(error))
        if match is None:
            raise
        number = int(match[1])
        raise OSError(number, os.strerror(number)) from error


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file's content, in hex.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _remove_abandoned(path: Path) -> None:
    """Remove the temporary files of a target whose processes were killed: nobody locks them."""
    for part in path.parent.glob(f".{glob.escape(path.name)}.*.part"):
        with suppress(OSError):
            descriptor = os.open(part, os.O_RDONLY)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                part.unlink()
            finally:
                os.close(descriptor)


def _remove(path: Path) -> None:
    """Remove a file or directory; whatever cannot be removed stays."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


def _beside(directory: Path, suffix: str) -> Path:
    return directory.with_name(f".{directory.name}.{suffix}")


def _share(directory: Path) -> None:
    """Give all files in a new directory the permissions that new files have."""
    mode = directory.stat().st_mode & 0o666
    for path in directory.rglob("*"):
        if path.is_file() and not path.is_symlink():
            path.chmod(mode)


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
