"""The record of a run: everything that later stages may say about it."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pennyweight.errors import RunError
from pennyweight.files import replacing

__all__ = [
    "PREDICTIONS",
    "RunRecord",
    "artifact_of",
    "load_record",
    "save_record",
    "write_atomically",
]

_FILE = "record.json"
# Each labelled row's answer and label, by set.
PREDICTIONS = "predictions.npz"


class RunRecord(BaseModel):
    """One run, as `record.json` holds it. Times are UTC, sizes bytes, durations seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    status: Literal["running", "complete", "failed", "interrupted"]
    recipe: dict[str, Any]
    plan: dict[str, Any]
    parameters: dict[str, int] = Field(default_factory=dict)
    data: dict[str, Any] = Field(default_factory=dict)
    leaks: list[str] = Field(default_factory=list)
    transductive: list[str] = Field(default_factory=list)
    compute: dict[str, Any] = Field(default_factory=dict)
    base: dict[str, Any] = Field(default_factory=dict)
    environment: dict[str, Any] = Field(default_factory=dict)
    git: dict[str, Any] = Field(default_factory=dict)
    started: str = ""
    seconds: float = 0.0
    peak_memory_bytes: int = 0
    history: list[dict[str, Any]] = Field(default_factory=list)
    best: dict[str, Any] = Field(default_factory=dict)
    metrics: dict[str, Any] = Field(default_factory=dict)
    mistakes: dict[str, list[dict[str, Any]]] = Field(default_factory=dict)
    target: dict[str, Any] = Field(default_factory=dict)
    correction: dict[str, Any] = Field(default_factory=dict)
    failure: str | None = None

    @property
    def over_budget(self) -> bool:
        """Whether more was trained than allowed, as full fine-tuning does: a teacher at most."""
        counts = self.parameters or self.plan
        return bool(counts.get("model", counts.get("trainable_parameters", 0)) > counts["budget"])

    @property
    def marks(self) -> list[str]:
        """What must be said wherever the run's answers are shown."""
        return [
            *(f"LEAKS: {leak}" for leak in self.leaks),
            *(f"TRANSDUCTIVE: {use}" for use in self.transductive),
        ]

    def with_changes(self, **changes: Any) -> RunRecord:
        """A copy with some fields replaced."""
        return self.model_copy(update=changes)


def artifact_of(run: Path, *, method: str) -> Path:
    """Where a run keeps its best: an adapter, or of full fine-tuning the whole model."""
    return run / ("model" if method == "full" else "adapter")


def write_atomically(path: Path, text: str) -> None:
    """Write a text file so that a reader sees the old one or the new one, never a half.

    Raises:
        RunError: it cannot be written.
    """
    try:
        with replacing(path) as part:
            part.write_text(text, encoding="utf-8", newline="")
    except OSError as error:
        raise RunError(f"{path}: cannot be written: {error.strerror}") from None


def save_record(run: Path, record: RunRecord) -> None:
    """Write the record into the run's directory."""
    text = json.dumps(record.model_dump(mode="json"), indent=1, ensure_ascii=False) + "\n"
    write_atomically(run / _FILE, text)


def load_record(run: Path) -> RunRecord:
    """Read a run's record.

    Raises:
        RunError: there is none, or it cannot be read.
    """
    path = run / _FILE
    if not path.is_file():
        raise RunError(f"{run}: not a run: {_FILE} is missing; train one with --out {run}")
    try:
        return RunRecord.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValidationError) as error:
        raise RunError(f"{path}: cannot be read: {str(error).splitlines()[0]}") from None
