"""A recipe as plain frozen values, one for each stage of training and inference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pennyweight.data.ingest import ReadOptions
from pennyweight.data.label import Task
from pennyweight.data.splits import OverlapPolicy, SourceSet, SplitOptions
from pennyweight.engine.batches.truncation import Truncation
from pennyweight.engine.train.objective import ObjectiveOptions
from pennyweight.engine.train.optimizer import OptimizerOptions
from pennyweight.engine.train.progress import TrainOptions
from pennyweight.lab.endpoint import Endpoint
from pennyweight.lab.fine_tuning import FineTuning
from pennyweight.lab.gates import GateOptions
from pennyweight.lab.generate import Generation
from pennyweight.lab.instructions import InstructedGeneration

__all__ = [
    "Augmentation",
    "BalancedRows",
    "BaseSettings",
    "ComputeSettings",
    "ConfidentRows",
    "DataSettings",
    "DensityRatioSettings",
    "DistillationSettings",
    "EndpointSource",
    "Filter",
    "FitSettings",
    "GenerationSettings",
    "InferenceSettings",
    "LanguageModelSource",
    "PriorSettings",
    "RowSettings",
    "SelfTrainingSettings",
    "Settings",
]


@dataclass(frozen=True, slots=True)
class BaseSettings:
    """How the base model is loaded; see the recipe's `[base]`."""

    weights: Literal["pretrained", "random"]
    tokenizer: str | None
    quantization: Literal["none", "nf4", "int8"]


@dataclass(frozen=True, slots=True)
class ComputeSettings:
    """The recipe's choice of device and kernels; `choose_compute` replaces "auto"."""

    precision: str
    attention: str
    compile: str
    products: Literal["float", "int8"]


@dataclass(frozen=True, slots=True)
class DataSettings:
    """Which rows are read, and how they are read, split and checked for leaks."""

    sources: SourceSet
    read: ReadOptions
    split: SplitOptions
    overlap: OverlapPolicy


@dataclass(frozen=True, slots=True)
class InferenceSettings:
    """How rows go through a model without gradients.

    Attributes:
        max_tokens: longer texts are cut to this many tokens.
        batch_tokens: the most tokens that go through the model at once.
        batch_rows: rows per batch.
        calibration_bins: bins of the expected calibration error.
        truncation: which tokens of a longer text are kept.
    """

    max_tokens: int
    batch_tokens: int
    batch_rows: int
    calibration_bins: int
    truncation: Truncation = "head"


@dataclass(frozen=True, slots=True)
class Filter:
    """A filter of training rows, by its name in `lab.filters.FILTERS`, with its own options."""

    method: str
    options: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Augmentation:
    """An augmentation, by its name in `lab.words.AUGMENTATIONS`, with its own options."""

    method: str
    copies: int
    options: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class LanguageModelSource:
    """A language model on this machine that continues openings.

    Attributes:
        model: a hub id or directory.
        prompts: the name of shipped openings, or a TOML file.
        fine_tuning: on the target's texts; None for none.
        generation: what is written.
    """

    model: str
    prompts: str
    fine_tuning: FineTuning | None
    generation: Generation


@dataclass(frozen=True, slots=True)
class EndpointSource:
    """A server that follows instructions.

    Attributes:
        endpoint: the server.
        instructions: "default", or a TOML file.
        generation: what is written.
    """

    endpoint: Endpoint
    instructions: str
    generation: InstructedGeneration


@dataclass(frozen=True, slots=True)
class GenerationSettings:
    """How labelled texts are generated; see the recipe's `[generate]`.

    Attributes:
        source: who writes the texts.
        gates: what a text must pass.
        judge: the classifier that is one of the gates.
        judges: finished runs, for the judge "classifiers".
        source_key: all parameters that determine the texts, as plain values, for the cache.
        gates_key: all parameters of the gates, as plain values.
    """

    source: LanguageModelSource | EndpointSource
    gates: GateOptions
    judge: Literal["tf-idf", "classifiers", "off"]
    judges: tuple[str, ...]
    source_key: Mapping[str, Any]
    gates_key: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class PriorSettings:
    """Correction for the target's class shares; see the recipe's `[transduction.prior]`."""

    method: str
    stated: Mapping[str, float]
    groups: str
    discriminator: str = "characters"
    entropy: float = 1.0
    slack: float = 0.0


@dataclass(frozen=True, slots=True)
class ConfidentRows:
    """Target rows whose labels have a minimum probability."""

    confidence: float
    by_class: Mapping[str, float]
    most_per_class: int | None


@dataclass(frozen=True, slots=True)
class BalancedRows:
    """The surest target rows of each class, labelled with a second view of the texts or without.

    Attributes:
        share: fraction of the target rows.
        has_second_view: whether a lexical classifier of the target takes part in the labelling.
        rounds: how often that classifier is fitted.
        soft: whether the probabilities of all classes are taught.
        weighted: whether rows are weighted by the probability of their label.
        copies: how often each row is seen in an epoch.
    """

    share: float
    has_second_view: bool
    rounds: int
    soft: bool = False
    weighted: bool = False
    copies: int = 1


@dataclass(frozen=True, slots=True)
class SelfTrainingSettings:
    """Pseudo-labels on the target; see the recipe's `[transduction.self_training]`.

    Attributes:
        teachers: finished runs.
        label_smoothing: of the added rows.
        rows: how they are selected.
        prior: the correction of teachers that have none of their own.
    """

    teachers: tuple[str, ...]
    label_smoothing: float
    rows: ConfidentRows | BalancedRows
    prior: PriorSettings | None = None


@dataclass(frozen=True, slots=True)
class DensityRatioSettings:
    """Weights of training rows; see the recipe's `[transduction.density_ratio]`."""

    largest: float
    power: float


@dataclass(frozen=True, slots=True)
class RowSettings:
    """Changes to the training rows between reading and tokenizing.

    Attributes:
        filters: that remove rows, in order.
        augmentations: that add changed copies.
        extra: Parquet files with further rows.
        generation: of rows by a language model, if any.
        self_training: on the target, if any.
        consistency_rows: rows of the target for the consistency loss; 0 for none, None for all.
        density_ratio: weights towards the target, if any.
        label_smoothing: of rows with a label of their own.
    """

    filters: tuple[Filter, ...]
    augmentations: tuple[Augmentation, ...]
    extra: tuple[str, ...]
    generation: GenerationSettings | None
    self_training: SelfTrainingSettings | None
    consistency_rows: int | None
    density_ratio: DensityRatioSettings | None
    label_smoothing: float


@dataclass(frozen=True, slots=True)
class DistillationSettings:
    """The teachers, and whether their hidden features are taught as well."""

    teachers: tuple[str, ...]
    with_features: bool


@dataclass(frozen=True, slots=True)
class FitSettings:
    """How the adapters are trained.

    Attributes:
        options: of the loop.
        optimizer: with its schedule.
        objective: the loss.
        average: decay of the moving average that is evaluated and saved; None for none.
        interpolate: share of the way from the weights at the start to the trained ones that is
            kept; None for all of it.
        start_from: the run whose trained weights training starts from; None for a new start.
        starts_head: whether the head starts from a logistic regression on embeddings.
        refits_head: whether the head is fitted again in the same way after training.
        seconds: time limit of the whole run; None for none.
        prefix_cache: "off", "disk" or "device".
        log_every: optimizer steps between two recorded losses.
        trackers: accelerate's names of the trackers that get the curves.
    """

    options: TrainOptions
    optimizer: OptimizerOptions
    objective: ObjectiveOptions
    average: float | None
    interpolate: float | None
    start_from: Path | None
    starts_head: bool
    refits_head: bool
    seconds: float | None
    prefix_cache: Literal["off", "disk", "device"]
    log_every: int
    trackers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Settings:
    """A recipe as plain values, one for each stage."""

    labels: tuple[str, ...]
    task: Task
    seed: int
    base: BaseSettings
    compute: ComputeSettings
    data: DataSettings
    rows: RowSettings
    distillation: DistillationSettings | None
    fit: FitSettings
    baselines: tuple[str, ...]
    inference: InferenceSettings
    prior: PriorSettings | None

    @property
    def multi_label_classes(self) -> int | None:
        """Number of classes of a multi-label task; None for a single-label task."""
        return len(self.labels) if self.task == "multi-label" else None
