"""The adapter methods: one row each, with its count as a formula and its PEFT config.

A row turns a `Choice` (which matrices, at which rank and strength, and how much of the head)
into PEFT's own config, so what is planned, trained and saved is one and the same thing.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from peft import LoraConfig, PeftConfig, TaskType

from pennyweight.budget.layout import Layout, WeightMatrix

__all__ = ["METHODS", "AdaptedMatrix", "Bias", "Choice", "Head", "Method", "trained_whole"]

Bias = Literal["none", "all", "lora_only"]
Head = Literal["full", "low-rank", "output-only", "frozen"]


@dataclass(frozen=True, slots=True)
class AdaptedMatrix:
    """A weight matrix with the rank and alpha of its adapter; the scaling is alpha / rank."""

    matrix: WeightMatrix
    rank: int
    alpha: float


@dataclass(frozen=True, slots=True)
class Choice:
    """What of a base is adapted, and how: everything a method needs to build its config."""

    adapted: tuple[AdaptedMatrix, ...]
    dropout: float
    bias: Bias
    head: Head


@dataclass(frozen=True, slots=True)
class Method:
    """One adapter method.

    Attributes:
        name: as recipes write it.
        formula: parameters per matrix of `rows` by `columns` at rank r, for people.
        parameters: the same, for the planner.
        config: builds PEFT's config for a choice.
        paper: where the method comes from.
    """

    name: str
    formula: str
    parameters: Callable[[WeightMatrix, int], int]
    config: Callable[[Layout, Choice], PeftConfig]
    paper: str


def trained_whole(layout: Layout, head: Head) -> tuple[str, ...]:
    """The modules of the head that are trained in full, as PEFT's `modules_to_save`."""
    match head:
        case "full":
            return (layout.head_module,)
        case "low-rank" | "output-only":
            return (layout.head_output.name,)
        case "frozen":
            return ()


def _lora(layout: Layout, choice: Choice) -> LoraConfig:
    ranks = Counter(adapted.rank for adapted in choice.adapted)
    alphas = Counter(adapted.alpha for adapted in choice.adapted)
    rank, alpha = ranks.most_common(1)[0][0], alphas.most_common(1)[0][0]
    whole = trained_whole(layout, choice.head)
    # The task type makes PEFT train the head whole; every other head is spelled out instead.
    is_full = choice.head == "full"
    return LoraConfig(
        task_type=TaskType.SEQ_CLS if is_full else None,
        target_modules=sorted(adapted.matrix.name for adapted in choice.adapted),
        modules_to_save=None if is_full or not whole else list(whole),
        r=rank,
        lora_alpha=alpha,
        # PEFT reads the keys as regular expressions for the end of a module's name.
        rank_pattern={re.escape(a.matrix.name): a.rank for a in choice.adapted if a.rank != rank},
        alpha_pattern={
            re.escape(a.matrix.name): a.alpha for a in choice.adapted if a.alpha != alpha
        },
        lora_dropout=choice.dropout,
        bias=choice.bias,
    )


METHODS: Mapping[str, Method] = MappingProxyType(
    {
        method.name: method
        for method in (
            Method(
                name="lora",
                formula="r (rows + columns)",
                parameters=WeightMatrix.low_rank_parameters,
                config=_lora,
                paper="Hu et al. 2021, LoRA, arXiv:2106.09685",
            ),
        )
    }
)
