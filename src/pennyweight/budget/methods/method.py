"""The row that describes an adapter method, and the values it exchanges with the planner.

A `Method` holds everything that distinguishes its method from the others: the keys of its
`[adapter]` section, its cost, its PEFT config, the names of its tensors, and what it supports. No
other code asks for a method by name. This module imports neither torch nor PEFT, so the recipe
schema and `--help` stay fast.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from pennyweight.budget.layout import Layout, WeightMatrix
from pennyweight.budget.methods.dial import Dial
from pennyweight.budget.methods.sections import AdapterSection, Bias, Head, Quantization
from pennyweight.budget.summary import Matrix

if TYPE_CHECKING:
    import torch
    from peft import PeftConfig

__all__ = [
    "AdaptedMatrix",
    "Choice",
    "Method",
    "Support",
    "Tensors",
    "layers_with_bias",
    "low_rank_parameters",
    "no_shared_parameters",
    "peft_options",
    "trained_head_modules",
]


@dataclass(frozen=True, slots=True)
class AdaptedMatrix:
    """A weight matrix with the rank of its adapter, and its alpha if the method has one.

    For a method with another dial, the rank is the dial's value; for one without a dial, it is 1.
    """

    matrix: WeightMatrix
    rank: int
    alpha: float | None


@dataclass(frozen=True, slots=True)
class Choice:
    """The settled values from which a method builds its PEFT config.

    Attributes:
        adapted: the adapted matrices, each with its rank and alpha.
        dropout: dropout probability on the adapters' input.
        bias: which biases are trained.
        head: how much of the classification head is trained.
        options: the method's own keys of the `[adapter]` section.
    """

    adapted: tuple[AdaptedMatrix, ...]
    dropout: float
    bias: Bias
    head: Head
    options: Mapping[str, Any] = field(default_factory=dict)


def _no_rank_dropped(adapter_config: Mapping[str, Any], matrices: Sequence[Matrix]) -> int:
    del adapter_config, matrices
    return 0


@dataclass(frozen=True, slots=True)
class Tensors:
    """How a method's tensors are named, in the model and in the saved file.

    Attributes:
        peft_type: PEFT's name of the method in `adapter_config.json`, such as "LORA".
        prefix: how the names of a matrix' adapter parameters begin after the matrix' own name.
        frozen: parts of the names of tensors that the file holds and training never changes.
        shared: the part of the names of trained tensors that all matrices share; None without any.
        dropped: returns the number of trained parameters that the saved file no longer holds,
            from its `adapter_config.json` and the planned matrices.
    """

    peft_type: str
    prefix: str
    frozen: tuple[str, ...] = ()
    shared: str | None = None
    dropped: Callable[[Mapping[str, Any], Sequence[Matrix]], int] = _no_rank_dropped

    @property
    def are_all_saved(self) -> bool:
        """Whether the saved file holds every trained parameter."""
        return self.dropped is _no_rank_dropped


@dataclass(frozen=True, slots=True)
class Support:
    """The options that a method can be combined with.

    Attributes:
        rank_per_matrix: whether ranks may differ between matrices.
        low_rank_head: whether the head's dense layer may get an adapter of its own rank.
        quantizations: the values of `base.quantization` that the method works with.
        resume_refusal: why an interrupted run cannot be resumed; None if it can.
        combines: how trained adapters can be combined into one: by their "deltas", where the
            trained update of a matrix is scaling B A and nothing else, or by "factors" only, the
            average of each trained tensor; None if not at all.
    """

    rank_per_matrix: bool = True
    low_rank_head: bool = True
    quantizations: tuple[Quantization, ...] = ("none", "nf4", "int8")
    resume_refusal: str | None = None
    combines: Literal["deltas", "factors"] | None = None


def _unchanged(config: PeftConfig) -> PeftConfig:
    return config


def low_rank_parameters(matrix: WeightMatrix, rank: int, options: Mapping[str, Any]) -> int:
    """Return the size of LoRA's B and A (arXiv:2106.09685, section 4.1), whatever the options."""
    del options
    return matrix.low_rank_parameters(rank)


def no_shared_parameters(choice: Choice) -> int:
    """Return 0: every trained parameter belongs to one matrix."""
    del choice
    return 0


def layers_with_bias(layout: Layout) -> tuple[WeightMatrix, ...]:
    """Return the linear layers of the encoder that have a bias."""
    return tuple(matrix for matrix in layout.encoder if matrix.has_bias)


def _linear_layers(layout: Layout) -> tuple[WeightMatrix, ...]:
    return layout.encoder


def _no_penalties(
    model: Any, optimizer: torch.optim.Optimizer, total_steps: int
) -> tuple[Callable[[], torch.Tensor], ...]:
    del model, optimizer, total_steps
    return ()


@dataclass(frozen=True, slots=True)
class Method:
    """One adapter method.

    Attributes:
        name: the value of `adapter.method`.
        summary: what the method does, in a few words.
        formula: the parameters per matrix of `rows` by `columns` at rank r, for display.
        paper: the method's paper.
        section: the pydantic model of its `[adapter]` section.
        parameters: returns the number of trained parameters that belong to one matrix, from the
            matrix, its rank and the method's own keys.
        config: returns PEFT's config for a choice; None for full fine-tuning, which trains every
            weight of the base and leaves a whole model instead of an adapter.
        tensors: the names of its tensors; None for full fine-tuning.
        dial: the key that sets the size of its adapters; None if they have one size only.
        support: what it can be combined with.
        shared: returns the number of trained parameters that all matrices share.
        targets: returns the layers that can get an adapter.
        shapes_only: returns the config with which PEFT builds the same shapes on the meta device,
            where an initialization cannot read the base's weights.
        begin_training: prepares PEFT's model and the optimizer for a run of the given number of
            optimizer steps, and returns penalties to add to the loss.
    """

    name: str
    summary: str
    formula: str
    paper: str
    section: type[AdapterSection]
    parameters: Callable[[WeightMatrix, int, Mapping[str, Any]], int]
    config: Callable[[Layout, Choice], PeftConfig] | None
    tensors: Tensors | None
    dial: Dial | None = field(default_factory=Dial)
    support: Support = field(default_factory=Support)
    shared: Callable[[Choice], int] = no_shared_parameters
    targets: Callable[[Layout], tuple[WeightMatrix, ...]] = _linear_layers
    shapes_only: Callable[[PeftConfig], PeftConfig] = _unchanged
    begin_training: Callable[
        [Any, torch.optim.Optimizer, int], tuple[Callable[[], torch.Tensor], ...]
    ] = _no_penalties

    @property
    def trains_every_weight(self) -> bool:
        """Whether no weight of the base is frozen."""
        return self.config is None

    @property
    def may_exceed_budget(self) -> bool:
        """Whether a plan over budget is allowed: a fully trained model is a teacher or baseline."""
        return self.trains_every_weight

    @property
    def allocation_refusal(self) -> str | None:
        """Why matrices cannot get ranks of their own from a strategy, or None if they can."""
        if self.dial is None:
            return f"the adapters of {self.name} have one size only"
        if self.dial.key != "rank":
            return f"{self.name} has no rank; adapter.{self.dial.key} sets the size of its adapters"
        if not self.support.rank_per_matrix:
            return f"{self.name} has one rank for all targets"
        if self.shared is not no_shared_parameters:
            return f"the matrices share parameters of {self.name}"
        return None

    @property
    def artifact(self) -> Literal["adapter", "model"]:
        """The name of the run's subdirectory that holds the trained weights."""
        return "model" if self.trains_every_weight else "adapter"

    @property
    def frozen(self) -> tuple[str, ...]:
        """Parts of the names of tensors that the saved file holds and training never changes."""
        return self.tensors.frozen if self.tensors else ()

    @property
    def resume_refusal(self) -> str | None:
        """Why an interrupted run cannot be resumed, or None if it can."""
        return self.support.resume_refusal

    def quantization_conflict(
        self, section: AdapterSection, quantization: Quantization
    ) -> str | None:
        """Return why a section does not work with a `base.quantization`, or None if it does."""
        allowed = self.support.quantizations
        if quantization not in allowed:
            return (
                f"adapter.method: {self.name} does not work with "
                f'base.quantization = "{quantization}"; use '
                + " or ".join(f'base.quantization = "{one}"' for one in allowed)
            )
        return section.quantization_conflict(quantization)

    def owns(self, parameter: str, *, matrix: str) -> bool:
        """Return whether a model's parameter belongs to the adapter of the matrix of that name."""
        if self.tensors is None or self.is_shared(parameter):
            return False
        return f".{matrix}.{self.tensors.prefix}" in parameter

    def is_shared(self, parameter: str) -> bool:
        """Return whether a model's parameter is one that all matrices share."""
        shared = self.tensors.shared if self.tensors else None
        return shared is not None and shared in parameter


# The names of heads that PEFT trains for a sequence classifier.
_PEFT_HEADS = ("classifier", "score")


def trained_head_modules(layout: Layout, head: Head) -> tuple[str, ...]:
    """Return the names of the head's modules that are trained in full."""
    match head:
        case "full":
            return layout.head_modules
        case "low-rank" if layout.head_down is not None:
            return (layout.head_module,)
        case "low-rank" | "output-only":
            return (layout.head_output.name,)
        case "frozen":
            return ()


def peft_options(layout: Layout, choice: Choice) -> dict[str, Any]:
    """Return the keyword arguments that the configs of all PEFT methods share."""
    from peft import TaskType

    modules = trained_head_modules(layout, choice.head)
    # The task type makes PEFT train a whole head of a usual name; any other is spelled out.
    is_full = modules == layout.head_modules
    is_known = is_full and layout.head_module in _PEFT_HEADS
    return {
        "task_type": TaskType.SEQ_CLS if is_full else None,
        "target_modules": sorted(adapted.matrix.name for adapted in choice.adapted),
        "modules_to_save": None if is_known or not modules else list(modules),
    }
