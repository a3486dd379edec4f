"""The folder that receives predictions, on this machine or behind a URL."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from filelock import FileLock, Timeout

from pennyweight.data.read.storage import file_system, is_url, storage_errors
from pennyweight.errors import RunError
from pennyweight.files import replacing

__all__ = ["OutputFolder"]

_LOCK = ".lock"


@dataclass(frozen=True, slots=True)
class OutputFolder:
    """A folder for files that are complete under their names, or absent.

    Attributes:
        location: an absolute path, or a URL.
    """

    location: str

    @classmethod
    def at(cls, location: str) -> OutputFolder:
        """Return the folder at a path or URL; it need not exist.

        Raises:
            RunError: the URL's file system is not known.
        """
        if is_url(location):
            with storage_errors(location, RunError):
                system, path = file_system(location)
                return cls(str(system.unstrip_protocol(path)).rstrip("/"))
        return cls(os.path.abspath(Path(location).expanduser()))  # noqa: PTH100 - without ".."

    @property
    def is_remote(self) -> bool:
        """Whether the folder is behind a URL."""
        return is_url(self.location)

    def shown(self, name: str) -> str:
        """Return the path or URL of a file in the folder."""
        return f"{self.location}/{name}"

    def is_unused(self) -> bool:
        """Return whether the folder is missing or holds nothing but temporary files.

        Raises:
            RunError: it cannot be read.
        """
        with storage_errors(self.location, RunError):
            system, path = file_system(self.location)
            if not system.exists(path):
                return True
            names = (PurePosixPath(name).name for name in system.ls(path, detail=False))
            return all(name.startswith(".") for name in names)

    def read(self, name: str) -> bytes | None:
        """Return the content of a file; None if there is no such file.

        Raises:
            RunError: it cannot be read.
        """
        with storage_errors(self.shown(name), RunError):
            system, path = file_system(self.shown(name))
            with suppress(FileNotFoundError):
                return bytes(system.cat_file(path))
        return None

    def sizes(self) -> dict[str, int]:
        """Return the size of every file in the folder, by its path below it.

        Raises:
            RunError: the folder cannot be read.
        """
        with storage_errors(self.location, RunError):
            system, root = file_system(self.location)
            files = system.find(root, detail=True)
            return {
                PurePosixPath(path).relative_to(root).as_posix(): int(facts["size"] or 0)
                for path, facts in files.items()
            }

    def remove(self, name: str) -> None:
        """Remove a file, if it is there.

        Raises:
            RunError: it cannot be removed.
        """
        with storage_errors(self.shown(name), RunError), suppress(FileNotFoundError):
            system, path = file_system(self.shown(name))
            system.rm_file(path)

    @contextmanager
    def replacing(self, name: str) -> Iterator[Path]:
        """Yield a local path, whose file becomes `name` when the block ends without an error.

        A remote file is uploaded as a whole.

        Raises:
            RunError: the file cannot be written.
        """
        shown = self.shown(name)
        if not self.is_remote:
            try:
                Path(shown).parent.mkdir(parents=True, exist_ok=True)
                with replacing(Path(shown)) as part:
                    yield part
            except OSError as error:
                raise RunError(f"{shown}: cannot be written: {error.strerror or error}") from None
            return
        with tempfile.TemporaryDirectory(prefix="pennyweight-") as folder:
            part = Path(folder) / PurePosixPath(name).name
            yield part
            with storage_errors(shown, RunError):
                system, path = file_system(shown)
                system.makedirs(system._parent(path), exist_ok=True)
                system.put_file(str(part), path)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes of this machine from predicting into the folder; create it first.

        Raises:
            RunError: another process predicts into it, or it cannot be created.
        """
        if self.is_remote:
            yield
            return
        path = Path(self.location)
        if path.is_file():
            raise RunError(f"--out {path}: a file, not a folder; name another one")
        with storage_errors(f"--out {path}", RunError):
            path.mkdir(parents=True, exist_ok=True)
            lock = FileLock(path / _LOCK)
            try:
                lock.acquire(timeout=0)
            except Timeout:
                raise RunError(
                    f"--out {path}: another process is predicting into this folder; wait until it "
                    "ends, or stop it"
                ) from None
        try:
            yield
        finally:
            lock.release()
