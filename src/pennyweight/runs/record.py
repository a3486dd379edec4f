"""The record of a run: everything that later stages may say about it, typed and versioned."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Tag, ValidationError

from pennyweight.budget.summary import PlanSummary
from pennyweight.data.splits import OverlapCount, SetFacts
from pennyweight.documents import DocumentError, parse_json, read_text
from pennyweight.engine.train.progress import Step
from pennyweight.environment import with_home, without_home
from pennyweight.errors import RunError
from pennyweight.evaluation.metrics import Metrics, MultiLabelMetrics
from pennyweight.files import replacing
from pennyweight.recipe import Recipe
from pennyweight.recipe.adapters import Adapter
from pennyweight.runs.combination import CombinationRecord
from pennyweight.runs.exists import RECORD, require_run
from pennyweight.runs.upgrade import upgrade

__all__ = [
    "AllocationRecord",
    "ArtifactRecord",
    "BaseRecord",
    "BaselineRecord",
    "Best",
    "CalibrationRecord",
    "ComputeRecord",
    "CorrectionRecord",
    "DataRecord",
    "EnvironmentRecord",
    "GitRecord",
    "GitState",
    "GroupRecord",
    "Mistake",
    "ParameterCounts",
    "RowStep",
    "RunRecord",
    "ShareEstimate",
    "TargetRecord",
    "TrainingRows",
    "load_record",
    "save_record",
    "write_text",
]


def _kind(metrics: Any) -> str:
    """Return which kind of metrics some values or an object are."""
    is_multi_label = isinstance(metrics, MultiLabelMetrics) or (
        isinstance(metrics, dict) and "micro_f1" in metrics
    )
    return "multi-label" if is_multi_label else "single-label"


_KINDS = ("single-label", "multi-label")
_AnyMetrics = Annotated[
    Annotated[Metrics, Tag("single-label")] | Annotated[MultiLabelMetrics, Tag("multi-label")],
    Discriminator(_kind),
]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ParameterCounts(_Part):
    """Trainable parameters: as planned, in the model, in the saved file, and allowed."""

    planned: int
    model: int
    file: int
    budget: int


class AllocationRecord(_Part):
    """How a strategy chose the ranks of the recipe.

    Attributes:
        adapter: the `[adapter]` section that the recipe had before.
        notes: lines on what was measured and chosen.
    """

    adapter: Adapter
    notes: tuple[str, ...] = ()


class RowStep(_Part):
    """One step that changed the training rows, such as a filter or an augmentation.

    Attributes:
        step: what was done.
        added: rows that the step added.
        removed: rows that the step removed.
        file: where the rows that were added or removed are stored.
        sha256: of that file, where the rows came from one.
        rejected: generated texts that each gate rejected.
        written_by_class: generated texts before the gates, by class.
        by_class: rows added, by class.
        effective_rows: the number of equally weighted rows that weighted ones are worth.
    """

    step: str
    added: int | None = None
    removed: int | None = None
    file: str | None = None
    sha256: str | None = None
    rejected: dict[str, int] | None = None
    written_by_class: dict[str, int] | None = None
    by_class: dict[str, int] | None = None
    effective_rows: float | None = None


class TrainingRows(_Part):
    """The number of rows that were trained on, and the steps that led to them."""

    rows: int
    steps: tuple[RowStep, ...] = ()


class DataRecord(_Part):
    """Files that were read, rows that sets share, and changes to the training rows."""

    sets: dict[str, SetFacts]
    overlaps: tuple[OverlapCount, ...] = ()
    removed_from_train: int = 0
    dropped_from_validation: int = 0
    training: TrainingRows | None = None
    split: Literal["stratified", "hash"] | None = None


class ComputeRecord(_Part):
    """Device, precision and attention; see `pennyweight.engine.device.Compute`.

    Attributes:
        products: "float", or "int8" for the products of frozen layers.
        processes: that trained together.
        compiled: whether blocks were compiled.
        frozen_bytes: size of the frozen weights.
        gradient_bytes: size of the gradients that the processes exchange in each step; None for one
            process.
    """

    device: str
    precision: str
    attention: str
    why: str
    autocast: bool = False
    products: str = "float"
    processes: int = 1
    compiled: bool = False
    frozen_bytes: int | None = None
    gradient_bytes: int | None = None


class BaseRecord(_Part):
    """The base model and where it came from."""

    name: str
    reference: str
    revision: str | None
    origin: str


class EnvironmentRecord(_Part):
    """Versions and machine; a package that is missing has the version "not installed"."""

    python: str
    platform: str
    processor: str
    cores: int | None
    packages: dict[str, str]


class GitState(_Part):
    """The revision of a checkout and whether it had uncommitted changes; None outside one."""

    revision: str | None = None
    dirty: bool | None = None


class GitRecord(_Part):
    """The checkouts of the working directory and of Pennyweight itself."""

    working_directory: GitState = GitState()
    pennyweight: GitState = GitState()


class Best(_Part):
    """The evaluation that was kept: its step, and the validation metric that chose it."""

    step: int
    metric: str
    value: float


class Mistake(_Part):
    """A wrong answer that the classifier was sure of; `confidence` is its probability.

    In a multi-label task, `label` and `predicted` list all names, and `confidence` is that of the
    most confident wrong decision. `text_pair` is the second text of a pair.
    """

    text: str
    label: str
    predicted: str
    confidence: float
    text_pair: str | None = None


class TargetRecord(_Part):
    """Rows of the unlabelled target, and the share of them that each class is predicted for."""

    rows: int
    predicted_shares: dict[str, float]


class ShareEstimate(_Part):
    """A class's estimated share with its 95% interval."""

    share: float
    interval: tuple[float, float]


class GroupRecord(_Part):
    """Some of the target's rows, with the estimated share of each class among them."""

    name: str
    rows: int
    refused: str | None
    prior: dict[str, ShareEstimate]
    examples: tuple[str, ...] = ()


class BaselineRecord(_Part):
    """How a baseline does on each labelled set, how long it took, and on how many rows."""

    seconds: float
    rows: int | None = None
    metrics: dict[str, _AnyMetrics]


class CalibrationRecord(_Part):
    """The temperature that calibrates the probabilities, and what it changed.

    Attributes:
        temperature: the number that all logits are divided by.
        rows: validation rows that it was fitted on.
        ece_without: expected calibration error of each labelled set without it.
        nll_without: mean negative log-likelihood of each labelled set without it.
    """

    temperature: float
    rows: int
    ece_without: dict[str, float] = {}
    nll_without: dict[str, float] = {}


class CorrectionRecord(_Part):
    """How predictions were corrected for the target's class shares, and what that changed."""

    method: str
    temperature: float
    area_under_curve: float | None
    one_group_because: str | None = None
    groups: tuple[GroupRecord, ...]
    accuracy_without: dict[str, float] = {}
    predicted_shares_without: dict[str, float] = {}


class ArtifactRecord(_Part):
    """The saved classifier: its directory inside the run, and the SHA-256 of each file in it."""

    directory: str
    files: dict[str, str]


class RunRecord(_Part):
    """One run, as `record.json` holds it. Times are UTC, sizes in bytes, durations in seconds."""

    schema_version: Literal[2] = 2
    status: Literal["running", "complete", "failed", "interrupted", "pruned"]
    recipe: Recipe
    plan: PlanSummary
    allocation: AllocationRecord | None = None
    parameters: ParameterCounts | None = None
    data: DataRecord | None = None
    leaks: tuple[str, ...] = ()
    transductive: tuple[str, ...] = ()
    compute: ComputeRecord | None = None
    base: BaseRecord | None = None
    environment: EnvironmentRecord | None = None
    git: GitRecord = GitRecord()
    started: str = ""
    process_id: int | None = None
    seconds: float = 0.0
    peak_memory_bytes: int = 0
    history: tuple[Step, ...] = ()
    best: Best | None = None
    planned_steps: int | None = None
    skips_refit: bool = False
    # Whether the head that was fitted again was kept; older records do not say.
    keeps_refit: bool | None = None
    predicted_seconds: float | None = None
    metrics: dict[str, _AnyMetrics] = {}
    baselines: dict[str, BaselineRecord] = {}
    mistakes: dict[str, tuple[Mistake, ...]] = {}
    target: TargetRecord | None = None
    calibration: CalibrationRecord | None = None
    correction: CorrectionRecord | None = None
    combination: CombinationRecord | None = None
    artifact: ArtifactRecord | None = None
    failure: str | None = None

    @property
    def is_multi_label(self) -> bool:
        """Whether a row may have any number of labels."""
        return self.recipe.data.task == "multi-label"

    @property
    def pair_columns(self) -> tuple[str, str] | None:
        """The columns with the two texts of a pair; None if every row is a single text."""
        train = self.recipe.data.train
        if train is not None and train.pair_columns is not None:
            return train.pair_columns
        facts = self.data.sets.get("train") if self.data is not None else None
        return ("text", "text_pair") if facts is not None and facts.are_pairs else None

    @property
    def over_budget(self) -> bool:
        """Whether more was trained than the budget allows, as full fine-tuning may."""
        trained = self.parameters.model if self.parameters else self.plan.trainable_parameters
        return trained > self.plan.budget

    @property
    def marks(self) -> tuple[str, ...]:
        """Warnings that belong wherever the run's results are shown."""
        return (
            *(f"LEAKS: {leak}" for leak in self.leaks),
            *(f"TRANSDUCTIVE: {use}" for use in self.transductive),
        )

    def with_changes(self, **changes: Any) -> RunRecord:
        """Return a copy with some fields replaced."""
        return self.model_copy(update=changes)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically; paths in the user's home directory begin with `~` in it.

    Raises:
        RunError: the file cannot be written.
    """
    if not path.parent.is_dir():
        raise RunError(f"{path}: there is no directory {path.parent}; create it first")
    try:
        with replacing(path) as part:
            part.write_text(without_home(text), encoding="utf-8", newline="")
    except OSError as error:
        raise RunError(f"{path}: cannot be written: {error.strerror}") from None


def save_record(run: Path, record: RunRecord) -> None:
    """Write the record into the run's directory."""
    text = json.dumps(record.model_dump(mode="json"), indent=1, ensure_ascii=False) + "\n"
    write_text(run / RECORD, text)


def load_record(run: str | Path) -> RunRecord:
    """Read a run's record; records of older versions are upgraded while they are read.

    Raises:
        RunError: there is none, it cannot be read, or it is of an unknown version.
    """
    require_run(run)
    path = Path(run) / RECORD
    try:
        values = parse_json(read_text(path))
    except (OSError, DocumentError) as error:
        raise RunError(f"{path}: cannot be read: {error}") from None
    values = upgrade(values, path=path)
    # These paths are read again, or compared with others.
    values |= {key: with_home(values[key]) for key in ("recipe", "base") if key in values}
    try:
        return RunRecord.model_validate_json(json.dumps(values))
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in problem["loc"] if part not in _KINDS)
        raise RunError(
            f"{path}: {key}: {problem['msg']}; the record is damaged or was written by another "
            "version of Pennyweight; train the run again, or use the version that wrote it"
        ) from None
