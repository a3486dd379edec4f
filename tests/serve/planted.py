"""A bank whose classifiers have known outputs, and a server over it."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pennyweight.data.label import Task
from pennyweight.errors import RunError
from pennyweight.inference.texts import Text
from pennyweight.serve.app import make_app
from pennyweight.serve.options import ServeOptions
from pennyweight.serve.service import Service


@dataclass(frozen=True, slots=True)
class PlantedClassifier:
    name: str
    labels: tuple[str, ...]
    task: Task = "single-label"
    thresholds: np.ndarray | None = None
    pair_columns: tuple[str, str] | None = None
    trainable_parameters: int = 100
    bytes: int = 400


def expected(tag: str, text: Text, classes: int) -> np.ndarray:
    """Return the planted probabilities of a text by the classifier with this tag."""
    digest = hashlib.sha256(f"{tag}\0{text}".encode()).digest()
    weights = 1.0 + np.frombuffer(digest[:classes], dtype=np.uint8)
    return weights / weights.sum()


class PlantedBank:
    """Answers by `expected`; a batch takes `seconds` plus `seconds_per_row` for each row.

    Attributes:
        batches: the number of rows of each batch.
        threads: the threads that have computed.
    """

    def __init__(self, *, seconds: float = 0.0, seconds_per_row: float = 0.0) -> None:
        self.seconds = seconds
        self.seconds_per_row = seconds_per_row
        self.batches: list[int] = []
        self.threads: set[int] = set()
        self._tags: dict[str, str] = {}
        self._entries: dict[str, PlantedClassifier] = {}

    def load(self, run: str | Path, *, name: str | None = None) -> PlantedClassifier:
        file = Path(run) / "planted.json"
        if not file.is_file():
            raise RunError(f"{run}: no run; name a directory that holds one")
        planted = json.loads(file.read_text())
        name = name or Path(run).name
        tag = planted["tag"]
        entry = PlantedClassifier(
            name,
            tuple(f"{tag}-{index}" for index in range(planted["classes"])),
            task="multi-label" if planted["thresholds"] else "single-label",
            thresholds=np.array(planted["thresholds"]) if planted["thresholds"] else None,
            pair_columns=tuple(planted["pair"]) if planted["pair"] else None,
        )
        self._tags[name] = tag
        self._entries[name] = entry
        return entry

    def unload(self, name: str) -> None:
        if name not in self._entries:
            raise RunError(f'no classifier "{name}"')
        del self._entries[name], self._tags[name]

    def predict_probabilities(
        self, texts: Sequence[Text], names: Sequence[str]
    ) -> list[np.ndarray]:
        self.threads.add(threading.get_ident())
        self.batches.append(len(texts))
        time.sleep(self.seconds + self.seconds_per_row * len(texts))
        for name in names:
            if name not in self._entries:
                raise RunError(f'no classifier "{name}"')
        if any("poison" in text for text in texts):
            raise RuntimeError(f"secret: {texts}")
        return [
            expected(self._tags[name], text, len(self._entries[name].labels))
            for text, name in zip(texts, names, strict=True)
        ]


def plant(
    folder: Path,
    tag: str,
    *,
    classes: int = 3,
    pair: tuple[str, str] | None = None,
    thresholds: Sequence[float] | None = None,
) -> Path:
    """Write a planted run, and return its directory."""
    folder.mkdir(parents=True, exist_ok=True)
    planted = {"tag": tag, "classes": classes, "pair": pair, "thresholds": thresholds}
    (folder / "planted.json").write_text(json.dumps(planted))
    return folder


@contextmanager
def service_of(
    folder: Path, *tags: str, options: ServeOptions | None = None, bank: PlantedBank | None = None
) -> Iterator[Service]:
    """Yield a service over planted classifiers that are named like their tags."""
    service = Service(bank or PlantedBank(), options or ServeOptions())
    for tag in tags:
        service.catalog.load(plant(folder / tag, tag), tag)
    yield service
    service.close()


@contextmanager
def client_of(service: Service, options: ServeOptions | None = None, **settings):
    """Yield a client of the application, without a network."""
    from starlette.testclient import TestClient

    app = make_app(service, options or ServeOptions())
    yield TestClient(app, base_url="http://localhost", **settings)
