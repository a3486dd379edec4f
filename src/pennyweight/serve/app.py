"""The ASGI application: routes, the page, and one shape for all errors."""

from __future__ import annotations

from importlib import resources
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from pennyweight.serve.guard import Guard
from pennyweight.serve.options import ServeOptions
from pennyweight.serve.refusal import RefusedError, error_response, failure_response
from pennyweight.serve.routes import (
    classification_routes,
    classifier_routes,
    compatible_routes,
    operation_routes,
)
from pennyweight.serve.service import Service

__all__ = ["make_app"]

_DESCRIPTION = (
    "Classifiers that share one frozen base. Every error is {error, error_type}, and its message "
    "says how to go on."
)
# The page's script and style are files of this server, and it connects to nothing else.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_PAGE = {
    "/": ("index.html", "text/html"),
    "/page.js": ("page.js", "text/javascript"),
    "/page.css": ("page.css", "text/css"),
}


def make_app(service: Service, options: ServeOptions) -> ASGIApp:
    """Return the application with everything that protects it."""
    app = FastAPI(
        title="Pennyweight",
        version=version("pennyweight"),
        description=_DESCRIPTION,
        docs_url=None,
        redoc_url=None,
    )
    app.include_router(classification_routes(service))
    app.include_router(compatible_routes(service))
    app.include_router(classifier_routes(service, options.access))
    app.include_router(operation_routes(service))
    _add_page(app)

    @app.exception_handler(RefusedError)
    async def refused(_: Request, error: RefusedError) -> Response:
        return error_response(error.status, str(error), headers=error.headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        return error_response(422, _explanation(error))

    @app.exception_handler(HTTPException)
    async def failed(_: Request, error: HTTPException) -> Response:
        message = f"{error.detail}; the routes are described in /openapi.json"
        return error_response(error.status_code, message, headers=error.headers)

    @app.exception_handler(Exception)
    async def broken(request: Request, _: Exception) -> Response:
        # The exception itself goes on to the guard, which logs it.
        return failure_response(request.state.request_id)

    return Guard(app, service=service, options=options)


def _add_page(app: FastAPI) -> None:
    folder = resources.files("pennyweight.serve") / "page"
    for path, (name, media_type) in _PAGE.items():
        content = (folder / name).read_bytes()

        async def page(content: bytes = content, media_type: str = media_type) -> Response:
            headers = {
                "Content-Security-Policy": _POLICY,
                "X-Content-Type-Options": "nosniff",
                "Referrer-Policy": "no-referrer",
                "Cache-Control": "no-cache",
            }
            return Response(content, media_type=media_type, headers=headers)

        app.add_api_route(path, page, include_in_schema=False)


# Pydantic names the shape that a value was tried as in the place of a mistake.
_TYPE_NAMES = frozenset({"str", "list", "tuple", "dict", "int", "float", "bool"})


def _explanation(error: RequestValidationError) -> str:
    """Return one line about the first mistakes of a request, without the values themselves."""
    mistakes: dict[str, dict[str, None]] = {}
    for detail in error.errors():
        # A value that may have one of several shapes has a mistake for each.
        mistakes.setdefault(_place(detail), {})[detail["msg"]] = None
    lines = [f"{place}: {', or: '.join(kinds)}" for place, kinds in list(mistakes.items())[:3]]
    return "; ".join(lines) + "; the shape is described in /openapi.json"


def _place(detail: dict[str, Any]) -> str:
    """Return where in a request a mistake is, without the names of pydantic's types."""
    parts = [str(part) for part in detail["loc"]]
    return ".".join(part for part in parts if "[" not in part and part not in _TYPE_NAMES)
