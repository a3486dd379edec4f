"""The trained weights of a LoRA-type adapter: the updates of matrices, the head, and the rest."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import peft
import torch

from pennyweight.budget.summary import Matrix
from pennyweight.errors import RunError, first_line

__all__ = ["LowRank", "TrainedWeights", "read_trained_weights", "trained_weights_of"]

# What PEFT puts before the name of every module.
_PREFIX = "base_model.model."
_FACTOR = re.compile(rf"{re.escape(_PREFIX)}(?P<matrix>.+)\.lora_(?P<side>[AB])\.weight")


@dataclass(frozen=True, slots=True)
class LowRank:
    """The update of a matrix: scaling B A (Hu et al. 2021, arXiv:2106.09685).

    Attributes:
        a: A, `[rank, columns]`.
        b: B, `[rows, rank]`.
        scaling: alpha / rank, or alpha / sqrt(rank) of rank-stabilized methods.
    """

    a: torch.Tensor
    b: torch.Tensor
    scaling: float

    @property
    def rank(self) -> int:
        """The number of rows of A."""
        return self.a.shape[0]

    def delta(self) -> torch.Tensor:
        """Return the whole update, `[rows, columns]`."""
        return self.scaling * (self.b @ self.a)


@dataclass(frozen=True, slots=True)
class TrainedWeights:
    """Everything that an adapter's file holds.

    Attributes:
        updates: the low-rank update of each adapted matrix, by the matrix' name.
        tensors: what else is trained as it is, by its name in the file: biases, magnitudes.
        head: the tensors of the head's modules that are trained in full, by their name in the file.
        product: the names in `head` of the two factors, first and last, of a pooled head whose
            weights have a low rank.
    """

    updates: Mapping[str, LowRank]
    tensors: Mapping[str, torch.Tensor] = field(default_factory=dict)
    head: Mapping[str, torch.Tensor] = field(default_factory=dict)
    product: tuple[str, str] | None = None

    def state(self) -> dict[str, torch.Tensor]:
        """Return all tensors by their names in PEFT's file."""
        factors: dict[str, torch.Tensor] = {}
        for matrix, update in self.updates.items():
            factors[f"{_PREFIX}{matrix}.lora_A.weight"] = update.a
            factors[f"{_PREFIX}{matrix}.lora_B.weight"] = update.b
        return {**factors, **self.tensors, **self.head}

    def reordered(self, order: Sequence[int], *, output: str) -> TrainedWeights:
        """Return the weights with the classes of the output layer in another order.

        Args:
            order: the index in these weights of each class of the new order.
            output: the name of the output layer.
        """
        index = torch.tensor(order)
        prefix = f"{_PREFIX}{output}."
        head = {
            name: tensor.index_select(0, index) if name.startswith(prefix) else tensor
            for name, tensor in self.head.items()
        }
        return replace(self, head=head)


def read_trained_weights(
    directory: Path, matrices: Sequence[Matrix], *, output: str
) -> TrainedWeights:
    """Read the trained weights of a saved adapter.

    Args:
        directory: the adapter's directory.
        matrices: the trained parts of its plan.
        output: the name of the output layer.

    Raises:
        RunError: the adapter cannot be read, or does not hold the planned matrices.
    """
    try:
        config = peft.PeftConfig.from_pretrained(str(directory))
        state = peft.load_peft_weights(str(directory), device="cpu")
    except Exception as error:  # noqa: BLE001 - PEFT raises many kinds for a damaged file
        raise RunError(f"{directory}: cannot be read: {first_line(error)}") from None
    is_stabilized = bool(getattr(config, "use_rslora", False))
    weights = trained_weights_of(state, matrices, output=output, is_stabilized=is_stabilized)
    planned = {matrix.name for matrix in matrices if matrix.rank is not None}
    if different := sorted(planned ^ set(weights.updates)):
        raise RunError(
            f"{directory}: {different[0]}: its adapter is in the plan or in the file, but not in "
            "both; restore the file, or train again"
        )
    return weights


def trained_weights_of(
    state: Mapping[str, torch.Tensor],
    matrices: Sequence[Matrix],
    *,
    output: str,
    is_stabilized: bool,
) -> TrainedWeights:
    """Return tensors with PEFT's names as trained weights, in float32.

    Args:
        state: the tensors of an adapter's file, or of `peft.get_peft_model_state_dict`.
        matrices: the trained parts of the plan.
        output: the name of the output layer.
        is_stabilized: whether the scaling is alpha / sqrt(rank).
    """
    alphas = {matrix.name: matrix.alpha for matrix in matrices if matrix.rank is not None}
    modules = {part.name.rpartition(".")[0] for part in matrices if part.kind == "head"}
    in_head = tuple(f"{_PREFIX}{module}." for module in modules)
    sides: dict[str, dict[str, torch.Tensor]] = {}
    tensors, head = {}, {}
    for name, stored in state.items():
        tensor = stored.detach().cpu().float()
        if match := _FACTOR.fullmatch(name):
            sides.setdefault(match["matrix"], {})[match["side"]] = tensor
        elif name.startswith(in_head):
            head[name] = tensor
        else:
            tensors[name] = tensor
    updates = {}
    for matrix, side in sides.items():
        rank = side["A"].shape[0]
        alpha = alphas.get(matrix) or float(rank)
        scaling = alpha / (math.sqrt(rank) if is_stabilized else rank)
        updates[matrix] = LowRank(side["A"], side["B"], scaling)
    return TrainedWeights(updates, tensors, head, _product(head, output))


def _product(head: Mapping[str, torch.Tensor], output: str) -> tuple[str, str] | None:
    """Return the names of the factors of a pooled head of a low rank, in the order of use."""
    module, _, last = output.rpartition(".")
    names = (f"{_PREFIX}{module}.down.weight", f"{_PREFIX}{output}.weight")
    return names if last == "out" and all(name in head for name in names) else None
