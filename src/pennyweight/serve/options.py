"""Options of a server: its limits, its batches, access, and its address."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path

from pennyweight.errors import ServeError

__all__ = ["LOOPBACK_HOSTS", "Access", "Batching", "Limits", "ServeOptions"]

LOOPBACK_HOSTS = ("localhost", "127.0.0.1", "::1")
# The options of `pennyweight serve` that messages name beside the attributes.
_LIMIT_OPTIONS = {
    "body_bytes": "--max-body-kb",
    "text_characters": "--max-characters",
    "request_texts": "--max-texts",
    "open_requests": "--max-requests",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds of everything that a client can make larger.

    Attributes:
        body_bytes: of a request's body.
        text_characters: of a text; of a pair, of both texts together.
        request_texts: texts in one request, and texts with a word left out in one explanation.
        queue_rows: texts that wait to be computed, of all requests.
        open_requests: requests that are read or answered at the same time.
        timeout_seconds: from the beginning of a request to its answer.
    """

    body_bytes: int = 1 << 20
    text_characters: int = 20_000
    request_texts: int = 128
    queue_rows: int = 1024
    open_requests: int = 256
    timeout_seconds: float = 30.0

    def __post_init__(self) -> None:
        for name, option in _LIMIT_OPTIONS.items():
            if getattr(self, name) < 1:
                raise ServeError(f"{name} ({option}) = {getattr(self, name)}: give 1 or more")
        if not (math.isfinite(self.timeout_seconds) and self.timeout_seconds > 0):
            raise ServeError(
                f"timeout_seconds (--timeout) = {self.timeout_seconds}: give a number above 0"
            )
        if self.queue_rows < self.request_texts:
            raise ServeError(
                f"queue_rows (--max-queue) = {self.queue_rows}: a request may have "
                f"{self.request_texts} texts, which must fit into the queue; raise it, or lower "
                "request_texts (--max-texts)"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Batching:
    """How texts of several requests are computed together.

    Attributes:
        batch_rows: the most texts in a batch.
        max_wait_ms: how long a text may wait for others while there are several clients; a text
            that comes alone does not wait.
    """

    batch_rows: int = 64
    max_wait_ms: float = 5.0

    def __post_init__(self) -> None:
        if self.batch_rows < 1:
            raise ServeError(f"batch_rows (--batch-rows) = {self.batch_rows}: give 1 or more")
        if not (math.isfinite(self.max_wait_ms) and self.max_wait_ms >= 0):
            raise ServeError(f"max_wait_ms (--max-wait-ms) = {self.max_wait_ms}: give 0 or more")


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """Who may ask, and what clients may load.

    Attributes:
        tokens: bearer tokens, any of which is accepted; without any, none is needed.
        hosts: names in a request's Host header, without ports, that are accepted.
        loading_folder: directories below it may be loaded by clients; None to refuse loading.
    """

    tokens: tuple[str, ...] = field(default=(), repr=False)
    hosts: tuple[str, ...] = LOOPBACK_HOSTS
    loading_folder: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeOptions:
    """Everything about a server besides its classifiers.

    Attributes:
        limits: bounds of requests and of the queue.
        batching: how batches are formed.
        access: tokens, hosts and the folder for loading.
        host: the address to listen on.
        port: to listen on; 0 for any free one.
        drain_seconds: after SIGTERM, how long new requests are still accepted while /readyz
            already says that the server is not ready.
        memory_bytes: of all adapters; None for no limit.
        log_texts: whether the texts are logged.
    """

    limits: Limits = Limits()
    batching: Batching = Batching()
    access: Access = Access()
    host: str = "127.0.0.1"
    port: int = 8000
    drain_seconds: float = 1.0
    memory_bytes: int | None = None
    log_texts: bool = False

    @property
    def is_open(self) -> bool:
        """Whether other machines can reach the server, and no token is needed."""
        if self.access.tokens or self.host in LOOPBACK_HOSTS:
            return False
        try:
            return not ip_address(self.host).is_loopback
        except ValueError:  # a name
            return True
