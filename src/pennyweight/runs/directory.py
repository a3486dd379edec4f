"""A run's directory: where everything lies in it, and who may write to it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePath

import psutil
from filelock import FileLock, Timeout

from pennyweight.errors import RunError
from pennyweight.files import hash_file
from pennyweight.runs.exists import RECORD
from pennyweight.runs.record import ArtifactRecord, RunRecord, load_record

__all__ = [
    "RunDirectory",
    "hash_artifact",
    "lock_run",
    "require_empty",
    "short_path",
    "verify_artifact",
]

_LOCK = ".lock"
# Files beside an adapter that decide no answer; in a folder for the hub they are added to it.
_NEVER_LOADED = frozenset({"README.md", "record.json", "recipe.toml"})


@dataclass(frozen=True, slots=True)
class RunDirectory:
    """The paths inside a run's directory.

    Attributes:
        path: the directory itself, which need not exist.
    """

    path: Path

    @property
    def lock(self) -> Path:
        """The file that is locked while a process trains."""
        return self.path / _LOCK

    @property
    def recipe(self) -> Path:
        """The resolved recipe, complete, as TOML."""
        return self.path / "recipe.toml"

    @property
    def record(self) -> Path:
        """The record, as JSON."""
        return self.path / RECORD

    @property
    def checkpoint(self) -> Path:
        """The last checkpoint, from which training resumes."""
        return self.path / "checkpoints" / "last"

    @property
    def previous_checkpoint(self) -> Path:
        """The checkpoint before the last one, which replaces it if it is damaged."""
        return self.path / "checkpoints" / "previous"

    @property
    def logs(self) -> Path:
        """Curves for TensorBoard and other trackers."""
        return self.path / "logs"

    @property
    def bad_rows(self) -> Path:
        """Rows that could not be used, a JSONL file per set."""
        return self.path / "bad_rows"

    @property
    def removed_rows(self) -> Path:
        """Training rows that filters removed, a JSONL file per filter."""
        return self.path / "removed"

    @property
    def predictions(self) -> Path:
        """The predicted class and the label of every labelled row, by set."""
        return self.path / "predictions.npz"

    def artifact(self, kind: str) -> Path:
        """The saved classifier: "adapter", or "model" after full fine-tuning.

        In a folder for the hub, the adapter's files lie beside the record.
        """
        if (self.path / "adapter_config.json").is_file():
            return self.path
        return self.path / kind

    def is_unused(self) -> bool:
        """Return whether the directory is missing or holds nothing yet.

        A lock and temporary files are nothing: they are what a process that was killed before it
        wrote the record has left.
        """
        if not self.path.exists():
            return True
        return self.path.is_dir() and all(
            file.name == _LOCK or (file.name.startswith(".") and file.suffix == ".part")
            for file in self.path.iterdir()
        )


@contextmanager
def lock_run(directory: RunDirectory) -> Iterator[None]:
    """Create the directory if it is missing, and lock it for this process.

    The operating system releases the lock when the process ends, however it ends.

    Raises:
        RunError: the directory cannot be created, or another process trains in it.
    """
    try:
        directory.path.mkdir(parents=True, exist_ok=True)
        lock = FileLock(directory.lock)
        lock.acquire(timeout=0)
    except Timeout:
        owner = _owner(directory)
        raise RunError(
            f"{directory.path}: {owner} is training this run; wait until it ends, or stop it"
        ) from None
    except OSError as error:
        raise RunError(
            f"--out {directory.path}: cannot be created: {error.strerror or error}"
        ) from None
    try:
        yield
    finally:
        lock.release()


def _owner(directory: RunDirectory) -> str:
    """Return the process that holds the lock, as far as the record names one that still runs.

    In the instant between locking and recording, the record names the process before.
    """
    try:
        number = load_record(directory.path).process_id
    except RunError:
        return "another process"
    return f"process {number}" if number and psutil.pid_exists(number) else "another process"


def short_path(path: Path, others: Sequence[Path]) -> str:
    """Return the end of a path, as short as it can be and still differ from all others."""
    parts = path.resolve().parts
    others_parts = [other.resolve().parts for other in others]
    for length in range(1, len(parts)):
        if not any(other[-length:] == parts[-length:] for other in others_parts):
            return "/".join(parts[-length:])
    return str(path.resolve())


def require_empty(directory: Path) -> None:
    """Refuse a directory for output that is in use.

    Raises:
        RunError: it has files in it, or is a file.
    """
    if directory.is_file() or (directory.exists() and any(directory.iterdir())):
        raise RunError(f"{directory}: not empty; name a new directory")


def hash_artifact(artifact: Path) -> ArtifactRecord:
    """Return the artifact's directory name and the SHA-256 of each of its files."""
    files = sorted(file for file in artifact.iterdir() if file.is_file())
    return ArtifactRecord(
        directory=artifact.name, files={file.name: hash_file(file) for file in files}
    )


def verify_artifact(run: Path, record: RunRecord, artifact: Path) -> None:
    """Check that a saved classifier is the one that its record describes.

    Records of older versions hold no hashes; their artifacts are not checked.

    Raises:
        RunError: a file is missing, or was changed since it was written.
    """
    if record.artifact is None:
        return
    for name, digest in record.artifact.files.items():
        if name != PurePath(name).name:
            raise RunError(f"{run}/{RECORD}: artifact: {name!r}: not the name of a file")
        file = artifact / name
        if not file.is_file():
            raise RunError(
                f"{file}: missing, though {run}/{RECORD} lists it; restore it, or retrain"
            )
        if hash_file(file) != digest:
            raise RunError(
                f"{file}: its SHA-256 differs from the one in {run}/{RECORD}: the file was changed "
                "or damaged after training; restore it, or train again"
            )
    known = {*record.artifact.files, *_NEVER_LOADED}
    for file in artifact.iterdir():
        if file.name not in known and not file.name.startswith("."):
            raise RunError(
                f"{file}: not among the files that {run}/{RECORD} lists: it was added after "
                "training and might change the answers; move it elsewhere"
            )
