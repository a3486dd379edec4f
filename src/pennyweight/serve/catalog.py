"""The classifiers of a server by name: loaded, replaced and removed while it serves.

A replacement is loaded beside the classifier that it replaces, under a name of its own in the bank.
A request is answered by the version that had the name when the request was accepted, with that
version's labels; the old version leaves the bank after all texts that were accepted for it.
"""

from __future__ import annotations

import itertools
import re
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from pennyweight.data.label import Task
from pennyweight.errors import ServeError
from pennyweight.inference.texts import Text
from pennyweight.serve.batching import BatchQueue
from pennyweight.serve.metrics import Metrics
from pennyweight.serve.refusal import RefusedError

__all__ = [
    "NAME_PATTERN",
    "Bank",
    "BankEntry",
    "Catalog",
    "Served",
    "directory_below",
    "name_runs",
]

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"


class BankEntry(Protocol):
    """Facts about a classifier that a bank holds."""

    @property
    def name(self) -> str:
        """The name in the bank."""

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes in the order of their probabilities."""

    @property
    def task(self) -> Task:
        """Whether a text has exactly one label, or any number of them."""

    @property
    def thresholds(self) -> np.ndarray | None:
        """The probability from which a text has a label; None for a single-label task."""

    @property
    def pair_columns(self) -> tuple[str, str] | None:
        """The columns of the two texts of a pair; None where a row is one text."""

    @property
    def trainable_parameters(self) -> int:
        """The parameters that were trained."""

    @property
    def bytes(self) -> int:
        """The memory of the adapter and its head."""


class Bank(Protocol):
    """Many classifiers on one base; `pennyweight.inference.bank.ClassifierBank` is one."""

    def load(self, run: str | Path, *, name: str | None = None) -> BankEntry:
        """Load a run under a name."""

    def unload(self, name: str) -> None:
        """Remove a classifier."""

    def predict_probabilities(
        self, texts: Sequence[Text], names: Sequence[str]
    ) -> list[np.ndarray]:
        """Return the class probabilities of each text by its own classifier."""


@dataclass(frozen=True, slots=True)
class Served:
    """One version of a classifier.

    Attributes:
        name: the name that clients use.
        entry: the version in the bank, under a name of its own.
    """

    name: str
    entry: BankEntry


class Catalog:
    """The names that clients use, over a bank that the queue's thread computes with.

    Args:
        bank: where the classifiers are; loads while batches are computed.
        queue: computes the bank's batches, and removes classifiers between them.
        metrics: to be told of classifiers that come and go.
    """

    def __init__(self, bank: Bank, queue: BatchQueue, *, metrics: Metrics) -> None:
        self._bank = bank
        self._queue = queue
        self._metrics = metrics
        self._served: dict[str, Served] = {}
        self._versions = itertools.count(1)
        # Held while the bank is changed, so that two changes do not mix.
        self._changing = threading.Lock()
        # Held while a name is looked up and its texts are queued, and while a version loses its
        # name and its removal is queued: so no text is queued behind the removal of its version.
        self._admitting = threading.Lock()
        metrics.classifiers.set_function(lambda: len(self._served))

    @property
    def served(self) -> tuple[Served, ...]:
        """The current version of every classifier, by name."""
        return tuple(self._served[name] for name in sorted(self._served))

    def find(self, name: str | None) -> Served:
        """Return the current version of a classifier; None names the only one.

        Raises:
            RefusedError: with status 404, there is no such classifier; with 422, no name is given
                and several are loaded.
        """
        current = self._served
        if name is None and len(current) == 1:
            return next(iter(current.values()))
        loaded = f"loaded are: {', '.join(sorted(current)) or 'none'}"
        if name is None:
            raise RefusedError(
                422 if current else 404, f"name the classifier that is to answer; {loaded}"
            )
        if name not in current:
            raise RefusedError(404, f'no classifier "{name}"; {loaded}')
        return current[name]

    def load(self, run: Path, name: str) -> Served:
        """Load a run under a name, in place of the classifier that has it; blocks until done.

        Raises:
            RefusedError: the server is shutting down.
            RunError: the run cannot be loaded.
            BaseModelError: its base cannot be found.
        """
        with self._changing:
            version = f"{name}@{next(self._versions)}"
            served = Served(name, self._bank.load(run, name=version))
            self._switch({**self._served, name: served}, self._served.get(name))
            return served

    def unload(self, name: str) -> None:
        """Remove a classifier after the texts that were accepted for it; blocks until done.

        Raises:
            RefusedError: with status 404, there is no such classifier.
        """
        with self._changing:
            served = self.find(name)
            self._switch({k: v for k, v in self._served.items() if k != name}, served)
            self._metrics.forget(name)

    def submit(
        self,
        texts: Sequence[Text],
        names: Sequence[str | None],
        *,
        check: Callable[[Text, Served], None],
    ) -> tuple[list[Served], Future[list[np.ndarray]]]:
        """Queue texts for the current versions of their classifiers.

        Args:
            texts: of one request.
            names: of the classifier of each text; None names the only one.
            check: refuses a text that does not fit its classifier.

        Returns:
            The version that answers each text, and the future class probabilities of each.

        Raises:
            RefusedError: as `find`, `check` and `BatchQueue.submit` do.
        """
        with self._admitting:
            served = [self.find(name) for name in names]
            for text, version in zip(texts, served, strict=True):
                check(text, version)
            return served, self._queue.submit(texts, [version.entry.name for version in served])

    def _switch(self, served: dict[str, Served], outdated: Served | None) -> None:
        """Change what names stand for, and remove a version behind its last texts."""
        with self._admitting:
            self._served = served
            if outdated is None:
                return
            removal = self._queue.call(lambda: self._bank.unload(outdated.entry.name))
        removal.result()


def name_runs(runs: Iterable[str]) -> Mapping[str, Path]:
    """Return the directories of runs by name.

    Args:
        runs: each is `NAME=RUN`, or `RUN`, which is named like its directory.

    Raises:
        ServeError: a name cannot be used, or two runs have the same.
    """
    named: dict[str, Path] = {}
    for run in runs:
        name, path = "", run
        if "=" in run and not Path(run).exists():
            name, _, path = run.partition("=")
        name = name or Path(path).resolve().name
        if not re.fullmatch(NAME_PATTERN, name):
            raise ServeError(
                f'{run}: "{name}" cannot be the name of a classifier, which has up to 64 letters, '
                "digits, dots, hyphens and underscores; write NAME=RUN"
            )
        if name in named:
            raise ServeError(
                f'{run}: "{name}" is also the name of {named[name]}; write NAME=RUN to give each '
                "run its own name"
            )
        named[name] = Path(path)
    if not named:
        raise ServeError("no run to serve; name a directory of a finished run")
    return named


def directory_below(folder: Path | None, directory: str) -> Path:
    """Return a directory below the folder that clients may load from.

    Raises:
        RefusedError: with status 403, clients may not load, or the directory is not below the
            folder; with 404, it does not exist.
    """
    if folder is None:
        raise RefusedError(
            403,
            "this server loads no classifiers on request; start it with --allow-loading-from DIR",
        )
    try:
        root = folder.resolve()
        path = (root / directory).resolve()
        is_inside = path.is_relative_to(root) and path != root
        exists = is_inside and path.is_dir()
    except (OSError, ValueError, RuntimeError):
        raise RefusedError(422, f"{directory!r} is not a directory's path") from None
    if not is_inside:
        raise RefusedError(
            403,
            f"{directory!r} is not below the folder that classifiers are loaded from; give a path "
            "relative to that folder",
        )
    if not exists:
        raise RefusedError(404, f"no directory {directory!r} in the folder for loading")
    return path
