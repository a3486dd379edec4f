"""A local web page over a folder of runs: standard library, no network, no build step."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from pennyweight.errors import PennyweightError, ReportError
from pennyweight.report.facts import compare_runs

__all__ = ["RunIndex", "make_server"]

# The page brings all it needs, and asks nobody but this server.
_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "connect-src 'self'; img-src data:"
)


class RunIndex:
    """The runs below a folder; records are read again only when they have changed.

    Args:
        folder: with run directories at any depth.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self._known: dict[Path, tuple[int, dict[str, Any]]] = {}

    def summaries(self) -> list[dict[str, Any]]:
        """One row per run for the table, newest first."""
        rows = []
        for path in self.folder.rglob("record.json"):
            try:
                changed = path.stat().st_mtime_ns
                known = self._known.get(path)
                if known is None or known[0] != changed:
                    known = (changed, _summary(json.loads(path.read_text(encoding="utf-8"))))
                    self._known[path] = known
            except (OSError, ValueError, KeyError, TypeError):
                continue  # being written, or no record of ours
            rows.append({"path": str(path.parent.relative_to(self.folder)), **known[1]})
        return sorted(rows, key=lambda row: str(row["started"]), reverse=True)

    def record(self, path: str) -> dict[str, Any]:
        """A whole record, of a run below the folder.

        Raises:
            ReportError: there is no such run.
        """
        file = self._inside(path) / "record.json"
        try:
            found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            raise ReportError(f"{path}: no run there") from None
        return found

    def compare(self, one: str, other: str, name: str) -> dict[str, Any]:
        """McNemar's test of two runs on a set.

        Raises:
            PennyweightError: they cannot be compared.
        """
        found = compare_runs(self._inside(one), self._inside(other), name)
        return {
            "rows": found.rows,
            "only_one": found.only_one,
            "only_other": found.only_other,
            "p": found.p,
        }

    def _inside(self, path: str) -> Path:
        found = (self.folder / path).resolve()
        if not found.is_relative_to(self.folder):
            raise ReportError(f"{path}: outside {self.folder}")
        return found


def _summary(record: Mapping[str, Any]) -> dict[str, Any]:
    metrics = record.get("metrics", {})
    test = metrics.get("test") or metrics.get("validation") or {}
    shifted = metrics.get("shifted") or {}
    history = record.get("history", [])
    return {
        "name": record["recipe"]["name"],
        "seed": record["recipe"]["seed"],
        "status": record["status"],
        "started": record["started"],
        "accuracy": test.get("accuracy"),
        "interval": test.get("accuracy_interval"),
        "shifted": shifted.get("accuracy"),
        "parameters": record.get("parameters", {}).get("file"),
        "seconds": record.get("seconds"),
        "loss": history[-1]["loss"] if history else None,
        "leaks": bool(record.get("leaks")),
        "transductive": bool(record.get("transductive")),
    }


class _Server(ThreadingHTTPServer):
    """What the handlers need to answer."""

    def __init__(self, index: RunIndex, page: bytes, *, port: int) -> None:
        self.index = index
        self.page = page
        super().__init__(("127.0.0.1", port), _Handler)


class _Handler(BaseHTTPRequestHandler):
    """Three questions, one page."""

    server: _Server

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        asked = {key: values[0] for key, values in parse_qs(url.query).items()}
        index = self.server.index
        try:
            if url.path == "/":
                self._answer(self.server.page, "text/html; charset=utf-8")
            elif url.path == "/api/runs":
                self._json({"folder": str(index.folder), "runs": index.summaries()})
            elif url.path == "/api/run":
                self._json(index.record(asked["path"]))
            elif url.path == "/api/compare":
                self._json(index.compare(asked["one"], asked["other"], asked["set"]))
            else:
                self.send_error(HTTPStatus.NOT_FOUND)
        except PennyweightError as error:
            self._json({"error": str(error)}, HTTPStatus.BAD_REQUEST)
        except KeyError as error:
            self._json({"error": f"{error} is missing"}, HTTPStatus.BAD_REQUEST)

    def _json(self, value: object, status: HTTPStatus = HTTPStatus.OK) -> None:
        self._answer(json.dumps(value).encode(), "application/json", status)

    def _answer(self, body: bytes, kind: str, status: HTTPStatus = HTTPStatus.OK) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("Content-Security-Policy", _POLICY)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's
        """Say nothing on the terminal."""


def make_server(folder: Path, *, port: int) -> ThreadingHTTPServer:
    """A server on this machine alone, not yet running.

    Args:
        folder: with runs.
        port: 0 for any that is free.

    Raises:
        ReportError: there is no such folder, or the port is taken.
    """
    if not folder.is_dir():
        raise ReportError(f"{folder}: no such directory; name the one that your runs stand in")
    page = (resources.files("pennyweight.report") / "page" / "index.html").read_bytes()
    try:
        return _Server(RunIndex(folder), page, port=port)
    except OSError as error:
        raise ReportError(f"--port {port}: {error.strerror}; name another, or 0 for any") from None
