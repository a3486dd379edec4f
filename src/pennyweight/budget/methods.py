"""The adapter methods: one row each, with its count as a formula and its PEFT config.

A row turns a `Choice` (which matrices, at which rank and strength, and how much of the head)
into PEFT's own config, so what is planned, trained and saved is one and the same thing.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

from peft import (
    AdaLoraConfig,
    EvaConfig,
    LoHaConfig,
    LoraConfig,
    PeftConfig,
    TaskType,
    VeraConfig,
)

from pennyweight.budget.layout import Layout, WeightMatrix

__all__ = ["METHODS", "AdaptedMatrix", "Bias", "Choice", "Head", "Method", "trained_whole"]

Bias = Literal["none", "all", "lora_only"]
Head = Literal["full", "low-rank", "output-only", "frozen"]


@dataclass(frozen=True, slots=True)
class AdaptedMatrix:
    """A weight matrix with the rank of its adapter, and its alpha where the method has one."""

    matrix: WeightMatrix
    rank: int
    alpha: float | None


@dataclass(frozen=True, slots=True)
class Choice:
    """What of a base is adapted, and how: everything a method needs to build its config."""

    adapted: tuple[AdaptedMatrix, ...]
    dropout: float
    bias: Bias
    head: Head
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Method:
    """One adapter method.

    Attributes:
        name: as recipes write it.
        summary: what it does, in a few words.
        formula: parameters per matrix of `rows` by `columns` at rank r, for people.
        parameters: the same, for the planner.
        config: builds PEFT's config for a choice.
        paper: where the method comes from.
        frozen: parts of names of tensors that the adapter's file holds and training leaves alone.
        is_uniform: whether all targets share one rank, and the head cannot be low-rank.
    """

    name: str
    summary: str
    formula: str
    parameters: Callable[[WeightMatrix, int], int]
    config: Callable[[Layout, Choice], PeftConfig]
    paper: str
    frozen: tuple[str, ...] = ()
    is_uniform: bool = False


def trained_whole(layout: Layout, head: Head) -> tuple[str, ...]:
    """The modules of the head that are trained in full, as PEFT's `modules_to_save`."""
    match head:
        case "full":
            return (layout.head_module,)
        case "low-rank" | "output-only":
            return (layout.head_output.name,)
        case "frozen":
            return ()


def _shared(layout: Layout, choice: Choice) -> dict[str, Any]:
    """What all of PEFT's configs take."""
    whole = trained_whole(layout, choice.head)
    # The task type makes PEFT train the head whole; every other head is spelled out instead.
    is_full = choice.head == "full"
    return {
        "task_type": TaskType.SEQ_CLS if is_full else None,
        "target_modules": sorted(adapted.matrix.name for adapted in choice.adapted),
        "modules_to_save": None if is_full or not whole else list(whole),
    }


# PEFT's names of the initializations.
_INITIALIZATIONS: Mapping[str, bool | str] = MappingProxyType(
    {
        "kaiming": True,
        "gaussian": "gaussian",
        "orthogonal": "orthogonal",
        "pissa": "pissa",
        "olora": "olora",
        "eva": "eva",
        # PEFT's own LoftQ quantizes a base that is not; here it is held in 4 bits already, and
        # the adapters are set once they are there.
        "loftq": True,
    }
)


def _lora_with(**flags: bool) -> Callable[[Layout, Choice], PeftConfig]:
    def config(layout: Layout, choice: Choice) -> LoraConfig:
        ranks = Counter(adapted.rank for adapted in choice.adapted)
        alphas = Counter(adapted.alpha for adapted in choice.adapted)
        rank, alpha = ranks.most_common(1)[0][0], alphas.most_common(1)[0][0]
        initialization = choice.options.get("initialization", "kaiming")
        return LoraConfig(
            **_shared(layout, choice),
            r=rank,
            lora_alpha=alpha,
            # PEFT reads the keys as regular expressions for the end of a module's name.
            rank_pattern={
                re.escape(a.matrix.name): a.rank for a in choice.adapted if a.rank != rank
            },
            alpha_pattern={
                re.escape(a.matrix.name): a.alpha for a in choice.adapted if a.alpha != alpha
            },
            lora_dropout=choice.dropout,
            bias=choice.bias,
            init_lora_weights=_INITIALIZATIONS[initialization],
            # Every matrix keeps its planned rank.
            eva_config=EvaConfig(rho=1.0) if initialization == "eva" else None,
            **flags,
        )

    return config


def _adalora(layout: Layout, choice: Choice) -> AdaLoraConfig:
    options = choice.options
    start, final = options["start_steps"], options["final_steps"]
    return AdaLoraConfig(
        **_shared(layout, choice),
        init_r=choice.adapted[0].rank,
        target_r=options["target_rank"],
        lora_alpha=choice.adapted[0].alpha,
        lora_dropout=choice.dropout,
        bias=choice.bias,
        tinit=start,
        tfinal=final,
        deltaT=options["every"],
        beta1=options["betas"][0],
        beta2=options["betas"][1],
        orth_reg_weight=options["orthogonality"],
        # Training puts the real number here, which no plan knows.
        total_step=start + final + 1,
    )


def _vera(layout: Layout, choice: Choice) -> VeraConfig:
    return VeraConfig(
        **_shared(layout, choice),
        r=choice.adapted[0].rank,
        vera_dropout=choice.dropout,
        d_initial=choice.options["d_initial"],
        bias="vera_only" if choice.bias == "lora_only" else choice.bias,
        save_projection=True,
    )


def _loha(layout: Layout, choice: Choice) -> LoHaConfig:
    return LoHaConfig(
        **_shared(layout, choice),
        r=choice.adapted[0].rank,
        alpha=choice.adapted[0].alpha,
        rank_dropout=choice.dropout,
    )


def _with_magnitudes(matrix: WeightMatrix, rank: int) -> int:
    return matrix.low_rank_parameters(rank) + matrix.rows


_ROWS_AND_COLUMNS = "r (rows + columns)"
METHODS: Mapping[str, Method] = MappingProxyType(
    {
        method.name: method
        for method in (
            Method(
                name="lora",
                summary="W + (alpha / r) B A",
                formula=_ROWS_AND_COLUMNS,
                parameters=WeightMatrix.low_rank_parameters,
                config=_lora_with(),
                paper="Hu et al. 2021, LoRA, arXiv:2106.09685",
            ),
            Method(
                name="rslora",
                summary="W + (alpha / sqrt(r)) B A",
                formula=_ROWS_AND_COLUMNS,
                parameters=WeightMatrix.low_rank_parameters,
                config=_lora_with(use_rslora=True),
                paper="Kalajdzievski 2023, rank-stabilized LoRA, arXiv:2312.03732",
            ),
            Method(
                name="dora",
                summary="LoRA on the direction of W, and a trained magnitude per row",
                formula="r (rows + columns) + rows",
                parameters=_with_magnitudes,
                config=_lora_with(use_dora=True),
                paper="Liu et al. 2024, DoRA, arXiv:2402.09353",
            ),
            Method(
                name="rsdora",
                summary="DoRA with rank-stabilized scaling",
                formula="r (rows + columns) + rows",
                parameters=_with_magnitudes,
                config=_lora_with(use_dora=True, use_rslora=True),
                paper="arXiv:2402.09353 with arXiv:2312.03732",
            ),
            Method(
                name="lora-fa",
                summary="LoRA with A frozen as it was drawn",
                formula="r rows",
                parameters=lambda matrix, rank: rank * matrix.rows,
                config=_lora_with(),
                paper="Zhang et al. 2023, LoRA-FA, arXiv:2308.03303",
                frozen=(".lora_A.",),
            ),
            Method(
                name="adalora",
                summary="W + P diag(e) Q, the least important ranks dropped in training",
                formula="r (rows + columns + 1), before ranks fall",
                parameters=lambda matrix, rank: matrix.low_rank_parameters(rank) + rank,
                config=_adalora,
                paper="Zhang et al. 2023, AdaLoRA, arXiv:2303.10512",
                # A counter, which PEFT marks as trained on the meta device.
                frozen=(".ranknum.",),
                is_uniform=True,
            ),
            Method(
                name="vera",
                summary="W + diag(b) B diag(d) A; A and B random, frozen, shared by all layers",
                formula="rows + r",
                parameters=lambda matrix, rank: matrix.rows + rank,
                config=_vera,
                paper="Kopiczko et al. 2023, VeRA, arXiv:2310.11454",
                frozen=(".vera_A", ".vera_B"),
                is_uniform=True,
            ),
            Method(
                name="loha",
                summary="W + (alpha / r) (B1 A1) * (B2 A2), multiplied elementwise",
                formula="2 r (rows + columns)",
                parameters=lambda matrix, rank: 2 * matrix.low_rank_parameters(rank),
                config=_loha,
                paper="Hyeon-Woo et al. 2022, FedPara, arXiv:2108.06098",
                is_uniform=True,
            ),
        )
    }
)
