"""Load the runs, listen, and stop without dropping what was accepted."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import uvicorn

from pennyweight.errors import ServeError
from pennyweight.serve.app import make_app
from pennyweight.serve.catalog import Bank
from pennyweight.serve.logs import log_event, log_to_stderr
from pennyweight.serve.options import ServeOptions
from pennyweight.serve.service import Service

__all__ = ["serve"]


def serve(
    bank: Bank,
    runs: Mapping[str, Path],
    options: ServeOptions,
    *,
    announce: Callable[[str], None],
) -> None:
    """Serve runs until SIGTERM or SIGINT, then answer what was accepted, and return.

    Args:
        bank: an empty bank.
        runs: directories by name.
        options: everything else.
        announce: called with the server's address once it answers.

    Raises:
        ServeError: the address cannot be used.
        RunError: a run cannot be loaded.
    """
    listener = _listen(options.host, options.port)
    with listener:
        service = Service(bank, options)
        try:
            for name, run in runs.items():
                service.catalog.load(run, name)
            log_to_stderr()
            _Server(service, options, announce).run(sockets=[listener])
        finally:
            service.close()
    log_event("stopped")


class _Server(uvicorn.Server):
    """A uvicorn server that says on /readyz that it is stopping before it stops, and exits with 0.

    uvicorn's own server closes its sockets at once, and ends by the signal.
    """

    def __init__(
        self, service: Service, options: ServeOptions, announce: Callable[[str], None]
    ) -> None:
        limits = options.limits
        config = uvicorn.Config(
            make_app(service, options),
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=max(1, round(limits.timeout_seconds)),
        )
        super().__init__(config)
        self._service = service
        self._drain_seconds = options.drain_seconds
        self._announce = announce

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to accept connections, and announce the address."""
        await super().startup(sockets)
        for listener in sockets or ():
            host, port = listener.getsockname()[:2]
            address = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
            names = [served.name for served in self._service.catalog.served]
            log_event("listening", address=address, classifiers=names)
            self._announce(address)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop on SIGTERM and SIGINT."""
        loop = asyncio.get_running_loop()

        def handle(number: int, _: object) -> None:
            loop.call_soon_threadsafe(self._stop, number)

        previous = {n: signal.signal(n, handle) for n in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _stop(self, number: int) -> None:
        if self._service.draining:
            # A second signal: exit at once. A thread that computes a batch or loads a run cannot be
            # stopped, and would keep the process until it ends.
            log_event("stopped", signal=signal.Signals(number).name, forced=True)
            os._exit(128 + number)
        self._service.draining = True
        log_event("stopping", signal=signal.Signals(number).name)
        delay = self._drain_seconds if number == signal.SIGTERM else 0.0
        asyncio.get_running_loop().call_later(delay, self._exit)

    def _exit(self) -> None:
        self.should_exit = True


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise ServeError(
            f"{host} port {port}: {error.strerror or error}; choose another port, or 0 for any "
            "free one, or another --host"
        ) from None
    except OverflowError:
        raise ServeError(f"port {port}: give a number from 0 to 65535") from None
