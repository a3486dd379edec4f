"""Stands for the module `ray`: workers are threads of this process, and are lost as told."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from types import SimpleNamespace
from typing import Any

__all__ = ["FakeRay"]


class _RayError(Exception):
    """A worker that is lost."""


class _RayTaskError(_RayError):
    """An error in the code of a worker."""

    def __init__(self, cause: BaseException) -> None:
        super().__init__(str(cause))
        self.cause = cause


class _Actor:
    """A worker; it does one call after the other."""

    def __init__(self, instance: Any, number: int, is_lost: Callable[..., bool]) -> None:
        self.number = number
        self._instance = instance
        self._is_lost = is_lost
        self._thread = ThreadPoolExecutor(1)

    def __getattr__(self, name: str) -> Any:
        def remote(*arguments: Any, **options: Any) -> Future[Any]:
            if self._is_lost(name, self.number, *arguments):
                future: Future[Any] = Future()
                future.set_exception(_RayError("The actor died.\nIts node died. Reasons: many."))
                return future
            return self._thread.submit(getattr(self._instance, name), *arguments, **options)

        return SimpleNamespace(remote=remote)


class FakeRay:
    """The part of Ray that is used.

    Args:
        nodes: the resources of each.
        is_lost: whether a worker is lost in a call, given the name of its method, the worker's
            number, and the arguments.

    Attributes:
        options: what each worker was asked for with.
        killed: the numbers of the workers that were ended.
    """

    exceptions = SimpleNamespace(RayError=_RayError, RayTaskError=_RayTaskError)

    def __init__(
        self, *nodes: dict[str, float], is_lost: Callable[..., bool] = lambda *_: False
    ) -> None:
        self._nodes = nodes
        self._is_lost = is_lost
        self.options: list[dict[str, Any]] = []
        self.killed: list[int] = []

    def nodes(self) -> list[dict[str, Any]]:
        return [{"Alive": True, "Resources": node} for node in self._nodes]

    def cluster_resources(self) -> dict[str, float]:
        return {name: sum(node.get(name, 0.0) for node in self._nodes) for name in ("CPU", "GPU")}

    def available_resources(self) -> dict[str, float]:
        return {"CPU": 1.0}

    def remote(self, **options: Any) -> Any:
        def decorate(cls: Any) -> Any:
            def create(*arguments: Any, **keywords: Any) -> _Actor:
                self.options.append(options)
                number = len(self.options) - 1
                return _Actor(cls(*arguments, **keywords), number, self._is_lost)

            return SimpleNamespace(remote=create)

        return decorate

    @staticmethod
    def get(future: Future[Any]) -> Any:
        try:
            return future.result()
        except _RayError:
            raise
        except Exception as error:  # noqa: BLE001 - of any worker
            raise _RayTaskError(error) from None

    @staticmethod
    def wait(futures: list[Future[Any]], *, timeout: float) -> tuple[list[Future[Any]], Any]:
        return list(wait_for(futures, timeout, FIRST_COMPLETED).done), None

    def kill(self, actor: _Actor) -> None:
        self.killed.append(actor.number)
