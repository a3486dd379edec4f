"""Connect to a Ray cluster: the one at `RAY_ADDRESS`, or one that is started on this machine."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

from pennyweight.errors import RunError, first_line

__all__ = ["connected_ray", "require_ray"]

_LOCAL = "local"
# Set before Ray is imported, and inherited by the processes that it starts.
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # Without it, Ray warns of a change in a later version whenever a worker needs no GPU.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


def require_ray() -> None:
    """Check that Ray is installed, without importing it.

    Raises:
        RunError: it is not.
    """
    if find_spec("ray") is None:
        raise RunError("the engine ray needs Ray; run: pip install 'pennyweight[ray]'")


@contextmanager
def connected_ray() -> Iterator[Any]:
    """Yield the module `ray`, connected to a cluster until the block ends.

    A connection that exists already is used, and left as it is. A cluster on this machine ends with
    the block. Workers need Pennyweight, and see the files of the machine that they run on.

    Raises:
        RunError: Ray is not installed, or no cluster answers at `RAY_ADDRESS`.
    """
    require_ray()
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    import ray

    if ray.is_initialized():
        yield ray
        return
    address = os.environ.get("RAY_ADDRESS") or _LOCAL
    try:
        with _kept_handler():
            ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False)
    except Exception as error:
        where = "on this machine" if address == _LOCAL else f"at RAY_ADDRESS={address}"
        raise RunError(f"no Ray cluster can be used {where}: {first_line(error)}") from error
    try:
        yield ray
    finally:
        with _kept_handler():
            ray.shutdown()


@contextmanager
def _kept_handler() -> Iterator[None]:
    """Keep the handler of SIGTERM in the block, which Ray would replace by its own."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
