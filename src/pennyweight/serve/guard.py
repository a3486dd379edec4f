"""Checks of every request before its route: host, token, sizes, time; metrics and the log."""

from __future__ import annotations

import asyncio
import hmac
import re
import time
import traceback
import uuid
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from fastapi.responses import Response
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pennyweight.serve.logs import log_event
from pennyweight.serve.options import ServeOptions
from pennyweight.serve.refusal import RefusedError, error_response, failure_response
from pennyweight.serve.service import Service

__all__ = ["Guard"]

# Answered whatever the host and the token: probes have neither.
_PROBES = ("/healthz", "/readyz")
# Answered without a token: they hold no data.
_OPEN = (*_PROBES, "/", "/page.js", "/page.css", "/openapi.json")
# An id of a request that a client or a proxy has given.
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


@dataclass(slots=True)
class _Exchange:
    """One request, and what is known of its answer."""

    request_id: str
    state: dict[str, Any]
    started: float = field(default_factory=time.perf_counter)
    status: int = 0


class Guard:
    """ASGI middleware around the application.

    Args:
        app: the application.
        service: whose metrics are updated, and which may be stopping.
        options: limits and access.
    """

    def __init__(self, app: ASGIApp, *, service: Service, options: ServeOptions) -> None:
        self._app = app
        self._service = service
        self._options = options
        self._open_requests = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check a request, pass it on, and record it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        exchange = _Exchange(request_id, scope.setdefault("state", {}))
        exchange.state["request_id"] = request_id
        deadline = asyncio.get_running_loop().time() + self._options.limits.timeout_seconds
        exchange.state["deadline"] = deadline

        async def send_noted(message: Message) -> None:
            if message["type"] == "http.response.start":
                exchange.status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-ID"] = exchange.request_id
                if self._service.draining:
                    headers["Connection"] = "close"
            await send(message)

        self._open_requests += 1
        try:
            await self._pass(scope, receive, send_noted, exchange)
        finally:
            self._open_requests -= 1
            self._record(scope, exchange)

    async def _pass(self, scope: Scope, receive: Receive, send: Send, exchange: _Exchange) -> None:
        """Answer through the application, or with an error."""
        answer: Response | None = None
        try:
            self._check(scope)
            body = await self._read(scope, receive, exchange.state["deadline"])
            await self._app(scope, body, send)
        except RefusedError as refused:
            answer = error_response(refused.status, str(refused), headers=refused.headers)
        except Exception as error:  # noqa: BLE001 - a client gets an answer, and the log the rest
            # The message of an exception can hold a text.
            frames = traceback.format_list(traceback.extract_tb(error.__traceback__))
            exchange.state["failure"] = f"{type(error).__name__} at {''.join(frames[-3:])}"
            answer = failure_response(exchange.request_id)
        if answer is not None and not exchange.status:
            await answer(scope, receive, send)

    def _check(self, scope: Scope) -> None:
        """Refuse a request by its headers."""
        path, headers = scope["path"], Headers(scope=scope)
        if path in _PROBES:
            return
        access, limits = self._options.access, self._options.limits
        host = _host_of(headers.get("host", ""))
        if "*" not in access.hosts and host not in access.hosts:
            raise RefusedError(
                400,
                "this server does not answer under the name in the Host header; use one of "
                f"{', '.join(access.hosts)}, or start it with --allow-host NAME",
            )
        if access.tokens and path not in _OPEN and not _has_token(headers, access.tokens):
            raise RefusedError(
                401,
                "a token is needed; send it in the header Authorization: Bearer TOKEN",
                headers={"WWW-Authenticate": "Bearer"},
            )
        if self._open_requests > limits.open_requests:
            raise RefusedError(
                429,
                f"{limits.open_requests} requests are being answered; send it again after 1 s",
                headers={"Retry-After": "1"},
            )

    async def _read(self, scope: Scope, receive: Receive, deadline: float) -> Receive:
        """Read the body within the limits, and return how the application receives it.

        Args:
            scope: of the request.
            receive: returns the next part of the body.
            deadline: on the event loop's clock, in seconds.

        Raises:
            RefusedError: with status 408, the deadline has passed; 413, the body is too large; 400,
                the connection ended.
        """
        limits = self._options.limits
        length = Headers(scope=scope).get("content-length", "0")
        parts: list[bytes] = []
        size = int(length) if length.isdecimal() else 0
        message: Message = {"more_body": True}
        try:
            async with asyncio.timeout_at(deadline):
                while size <= limits.body_bytes and message.get("more_body"):
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise RefusedError(400, "the connection ended before the request did")
                    parts.append(message.get("body", b""))
                    size = max(size, sum(map(len, parts)))
        except TimeoutError:
            raise RefusedError(
                408, f"the request was not received within {limits.timeout_seconds:g} s"
            ) from None
        if size > limits.body_bytes:
            raise RefusedError(
                413,
                f"the body is over {limits.body_bytes} bytes; send fewer or shorter texts",
                headers={"Connection": "close"},
            )
        waiting = [{"type": "http.request", "body": b"".join(parts), "more_body": False}]

        async def replay() -> Message:
            return waiting.pop() if waiting else await receive()

        return replay

    def _record(self, scope: Scope, exchange: _Exchange) -> None:
        seconds = time.perf_counter() - exchange.started
        # Of the route, not the path, of which clients can make any number.
        route = getattr(scope.get("route"), "path", "other")
        state, metrics = exchange.state, self._service.metrics
        classifier = state.get("classifier", "")
        metrics.requests.labels(route, str(exchange.status), classifier).inc()
        metrics.request_seconds.labels(route).observe(seconds)
        fields: dict[str, Any] = {
            "request_id": exchange.request_id,
            "method": scope["method"],
            "route": route,
            "status": exchange.status,
            "seconds": round(seconds, 6),
            "client": (scope.get("client") or ("",))[0],
        }
        if classifier:
            fields["classifier"] = classifier
        for key in ("texts", "failure"):
            if key in state:
                fields[key] = state[key]
        if self._options.log_texts and "content" in state:
            fields["content"] = state["content"]
        log_event("request", is_error="failure" in state, **fields)


def _host_of(header: str) -> str:
    """Return the name in a Host header, without its port; empty if there is none."""
    try:
        parts = urlsplit(f"//{header}")
    except ValueError:
        return ""
    is_plain = parts.username is None and not (parts.path or parts.query or parts.fragment)
    return (parts.hostname or "") if is_plain else ""


def _has_token(headers: Headers, tokens: tuple[str, ...]) -> bool:
    scheme, _, given = headers.get("authorization", "").partition(" ")
    # Every token is compared, and each in constant time, so that time says nothing of them.
    matches = [hmac.compare_digest(given.strip().encode(), token.encode()) for token in tokens]
    return scheme.lower() == "bearer" and any(matches)
