"""The facts that Pennyweight saves beside trained weights, in `pennyweight.json`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from pennyweight.data.label import Task
from pennyweight.documents import DocumentError, read_document
from pennyweight.errors import RunError
from pennyweight.files import replacing

__all__ = ["ArtifactFacts", "read_artifact_facts", "write_artifact_facts"]

_FILE = "pennyweight.json"


@dataclass(frozen=True, slots=True)
class ArtifactFacts:
    """Facts about an adapter that its weights do not contain.

    Attributes:
        labels: the class names in the order of the logits.
        method: the adapter method's name.
        frozen: parts of the names of tensors that are stored and were never trained.
        task: whether a text has exactly one label, or any number of them.
        thresholds: of a multi-label task, the probability of each class from which a text is given
            the class; None for 0.5 each.
        interpolated: share of the way from the weights at the start to the trained ones.
        temperature: the number that logits are divided by, so that probabilities are calibrated;
            None if none was fitted.
    """

    labels: tuple[str, ...]
    method: str
    frozen: tuple[str, ...] = ()
    task: Task = "single-label"
    thresholds: tuple[float, ...] | None = None
    interpolated: float = 1.0
    temperature: float | None = None


_ADAPTER = TypeAdapter(ArtifactFacts)


def write_artifact_facts(directory: Path, facts: ArtifactFacts) -> None:
    """Write the facts into an artifact's directory, atomically."""
    text = _ADAPTER.dump_json(facts, indent=1).decode()
    with replacing(directory / _FILE) as part:
        part.write_text(f"{text}\n", encoding="utf-8")


def read_artifact_facts(directory: Path) -> ArtifactFacts | None:
    """Return an artifact's facts, or None if it has none, as artifacts of other software.

    Raises:
        RunError: the file is there and cannot be read.
    """
    path = directory / _FILE
    try:
        return _ADAPTER.validate_json(read_document(path))
    except FileNotFoundError:
        return None
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        location = ".".join(map(str, problem["loc"]))
        reason = f"{location}: {problem['msg']}" if location else problem["msg"]
    except DocumentError as error:
        reason = str(error)
    except OSError as error:
        reason = str(error.strerror)
    raise RunError(
        f"{path}: cannot be read: {reason}; expected a JSON object with labels, method and frozen"
    )
