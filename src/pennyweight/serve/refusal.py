"""A request that is refused, and the one JSON shape of all errors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi.responses import JSONResponse

from pennyweight.errors import PennyweightError

__all__ = ["RefusedError", "error_response", "failure_response"]

# The kinds of errors, as text-embeddings-inference names them where it has one.
_TYPES = {
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    405: "MethodNotAllowed",
    408: "Timeout",
    413: "TooLarge",
    429: "Overloaded",
    500: "Backend",
    503: "Unavailable",
}


class RefusedError(PennyweightError):
    """A request that is refused; its text is for the client and says how to go on.

    Attributes:
        status: the HTTP status.
        headers: of the response.
    """

    def __init__(
        self, status: int, message: str, *, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.headers = dict(headers or {})


def error_response(
    status: int, message: str, *, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    """Return `{"error": message, "error_type": type}`, the shape of all errors."""
    content: dict[str, Any] = {
        # A message can quote a name with half a surrogate pair, which is no character.
        "error": message.encode(errors="backslashreplace").decode(),
        "error_type": _TYPES.get(status, "Validation"),
    }
    return JSONResponse(content, status, headers=dict(headers or {}))


def failure_response(request_id: str) -> JSONResponse:
    """Return the answer to a request at which the server failed, without the reason."""
    return error_response(
        500, f"the server failed; the reason is in its log under the request's id {request_id}"
    )
