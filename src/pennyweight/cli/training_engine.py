"""The options that say where a search or a study trains."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from pennyweight.errors import RunError

if TYPE_CHECKING:
    from pennyweight.search.engines import Engine

__all__ = ["EngineName", "EngineOptions", "SearchEngineOptions"]


class EngineName(StrEnum):
    """The engines that run trainings."""

    local = "local"
    ray = "ray"


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOptions:
    """The engine that runs trainings, and each training's share of a cluster."""

    engine_name: Annotated[
        EngineName,
        typer.Option(
            "--engine",
            help="Where to train: on this machine, or on the Ray cluster at RAY_ADDRESS, or one "
            "that is started on this machine; ray needs pennyweight[ray].",
        ),
    ] = EngineName.local
    cpus_per_trial: Annotated[
        float | None,
        typer.Option(
            "--cpus-per-trial",
            metavar="NUMBER",
            help="With --engine ray: the number of CPUs of each training, or a fraction of one, "
            "such as 0.5. If not given, 1.",
            show_default=False,
        ),
    ] = None
    gpus_per_trial: Annotated[
        float | None,
        typer.Option(
            "--gpus-per-trial",
            metavar="NUMBER",
            help="With --engine ray: the number of GPUs of each training, 0 for none, or a "
            "fraction of one, such as 0.25. If not given, 1 if the cluster has any.",
            show_default=False,
        ),
    ] = None

    @property
    def engine(self) -> Engine:
        """The engine.

        Raises:
            RunError: the options do not fit together.
        """
        from pennyweight.search.engines import LocalEngine, RayEngine

        if self.engine_name == EngineName.ray:
            cpus = 1.0 if self.cpus_per_trial is None else self.cpus_per_trial
            return RayEngine(cpus, self.gpus_per_trial)
        if self.cpus_per_trial is not None or self.gpus_per_trial is not None:
            raise RunError("--cpus-per-trial and --gpus-per-trial need --engine ray")
        return LocalEngine()


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchEngineOptions(EngineOptions):
    """The engine of a search, and the number of trials at the same time."""

    workers: Annotated[
        int | None,
        typer.Option(
            "--workers",
            metavar="NUMBER",
            help="The number of trials to train at the same time, each in a process of its own. If "
            "not given, 1, and with --engine ray as many as the cluster has room for.",
            show_default=False,
        ),
    ] = None
