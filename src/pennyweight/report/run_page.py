"""A local web page over a folder of runs: standard library only, no network, no build step."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from dataclasses import asdict
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from pennyweight.errors import PennyweightError, ReportError, RunError, first_line
from pennyweight.evaluation.metrics import headline_in
from pennyweight.runs.exists import RECORD
from pennyweight.runs.predictions import mcnemar_of_runs, same_rows
from pennyweight.runs.record import RunRecord, load_record
from pennyweight.runs.results import BASELINES, baseline_headlines, ordered_sets

__all__ = ["RunIndex", "make_server"]

# The page contains its own scripts and styles, and connects to this server only. Of scripts, only
# those that it contains now are run, by their hashes.
_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src {scripts}; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_SCRIPT = re.compile(rb"<script>(.*?)</script>", re.DOTALL)
_HOSTS = ("127.0.0.1", "localhost", "[::1]")
# Seconds until a client that sends no request is disconnected.
_TIMEOUT = 30


class RunIndex:
    """The runs below a folder; a record is read again only when its file has changed.

    Args:
        folder: a directory with run directories at any depth.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        # By record file: modification time in nanoseconds, and the summary if it was readable.
        self._summaries: dict[Path, tuple[int, dict[str, Any] | None]] = {}

    def summaries(self) -> list[dict[str, Any]]:
        """Return one table row per run, newest first.

        Records that cannot be read, because they are damaged or of an unknown version, are left
        out.
        """
        rows = []
        for file in self.folder.rglob(RECORD):
            summary = self._summary(file)
            if summary is not None:
                rows.append({"path": file.parent.relative_to(self.folder).as_posix(), **summary})
        return sorted(rows, key=lambda row: str(row["started"]), reverse=True)

    def record(self, path: str) -> dict[str, Any]:
        """Return a run's complete record as JSON values, and what is shown first of each set.

        The key "shown" holds, by set, the leading metric with its value and interval, and the
        values of the baselines in this metric.

        Args:
            path: the run's directory, relative to the folder.

        Raises:
            ReportError: the path is outside the folder.
            RunError: there is no run, or its record cannot be read.
        """
        record = load_record(self._inside(path))
        shown = {name: _shown(record, name) for name in record.metrics}
        return {**record.model_dump(mode="json"), "shown": shown}

    def compare(self, one: str, other: str, name: str) -> dict[str, Any]:
        """Return McNemar's test of two runs on a set.

        Raises:
            ReportError: a path is outside the folder.
            RunError: the runs cannot be compared on this set.
        """
        paths = self._inside(one), self._inside(other)
        first, second = map(load_record, paths)
        is_shared = name in first.metrics and name in second.metrics
        if is_shared and not same_rows(first, second, name):
            raise RunError(f"{one} and {other}: their {name} sets hold different rows")
        return asdict(mcnemar_of_runs(*paths, name))

    def _summary(self, file: Path) -> dict[str, Any] | None:
        try:
            changed = file.stat().st_mtime_ns
        except OSError:
            return None  # deleted since it was listed
        cached = self._summaries.get(file)
        if cached is not None and cached[0] == changed:
            return cached[1]
        try:
            summary = _summarize(load_record(file.parent))
        except Exception:  # noqa: BLE001 - one damaged record must not hide the other runs
            summary = None
        self._summaries[file] = (changed, summary)
        return summary

    def _inside(self, path: str) -> Path:
        try:
            directory = (self.folder / path).resolve()
        except (OSError, ValueError):
            raise ReportError(f"{path!r}: not a path") from None
        if not directory.is_relative_to(self.folder):
            raise ReportError(f"{path}: outside {self.folder}")
        return directory


def _summarize(record: RunRecord) -> dict[str, Any]:
    """Return the table's row of a run."""
    main = next(iter(ordered_sets(record)), None)
    first = record.metrics[main].headline if main is not None else None
    shifted = record.metrics.get("shifted")
    return {
        "name": record.recipe.name,
        "seed": record.recipe.seed,
        "status": record.status,
        "started": record.started,
        "metric": first.metric if first else None,
        "score": first.value if first else None,
        "interval": first.interval if first else None,
        "shifted": headline_in(shifted, first.metric).value if shifted and first else None,
        "parameters": record.parameters.file if record.parameters else None,
        "seconds": record.seconds,
        "loss": record.history[-1].loss if record.history else None,
        "leaks": bool(record.leaks),
        "transductive": bool(record.transductive),
    }


def _shown(record: RunRecord, name: str) -> dict[str, Any]:
    """Return what is shown first of a set: the leading metric, and the baselines in it."""
    first = record.metrics[name].headline
    baselines = {
        BASELINES[each].full: one.value for each, one in baseline_headlines(record, name).items()
    }
    interval = None if first.interval is None else list(first.interval)
    return {
        "metric": first.metric,
        "value": first.value,
        "interval": interval,
        "baselines": baselines,
    }


def _finite(value: object) -> object:
    """Return JSON values with None for infinities and NaN, which browsers refuse to parse."""
    match value:
        case dict():
            return {key: _finite(item) for key, item in value.items()}
        case list() | tuple():
            return [_finite(item) for item in value]
        case float() if not math.isfinite(value):
            return None
    return value


class _Server(ThreadingHTTPServer):
    """An HTTP server that carries what its handlers need."""

    def __init__(self, index: RunIndex, page: bytes, *, port: int) -> None:
        self.index = index
        self.page = page
        digests = (hashlib.sha256(script).digest() for script in _SCRIPT.findall(page))
        hashes = (f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)
        self.policy = _POLICY.format(scripts=" ".join(hashes))
        super().__init__(("127.0.0.1", port), _Handler)


class _Handler(BaseHTTPRequestHandler):
    """The page, and three JSON endpoints: the runs, a run, and a comparison of two."""

    server: _Server
    timeout = _TIMEOUT

    def do_GET(self) -> None:
        index = self.server.index
        try:
            if not self._is_local():
                # Otherwise a web page could read the runs under a name that it points to here.
                raise ReportError("the request is for another host; open the printed address")
            url = urlsplit(self.path)
            query = {key: values[0] for key, values in parse_qs(url.query).items()}
            if url.path == "/":
                self._answer(self.server.page, "text/html; charset=utf-8")
            elif url.path == "/api/runs":
                self._json({"folder": str(index.folder), "runs": index.summaries()})
            elif url.path == "/api/run":
                self._json(index.record(query["path"]))
            elif url.path == "/api/compare":
                self._json(index.compare(query["one"], query["other"], query["set"]))
            else:
                self.send_error(HTTPStatus.NOT_FOUND)
        except PennyweightError as error:
            self._json({"error": str(error)}, HTTPStatus.BAD_REQUEST)
        except KeyError as error:
            self._json({"error": f"the parameter {error} is missing"}, HTTPStatus.BAD_REQUEST)
        except ConnectionError:
            pass  # the browser has closed the connection
        except Exception as error:  # noqa: BLE001 - a damaged run must not end the connection
            reason = f"cannot be shown: {first_line(error)}"
            self._json({"error": reason}, HTTPStatus.INTERNAL_SERVER_ERROR)

    def _is_local(self) -> bool:
        """Return whether the request names this machine as its host."""
        host, _, port = (self.headers.get("Host") or "").rpartition(":")
        return host in _HOSTS and port == str(self.server.server_port)

    def _json(self, value: object, status: HTTPStatus = HTTPStatus.OK) -> None:
        body = json.dumps(_finite(value), allow_nan=False).encode()
        self._answer(body, "application/json", status)

    def _answer(self, body: bytes, content_type: str, status: HTTPStatus = HTTPStatus.OK) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("Content-Security-Policy", self.server.policy)
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Cross-Origin-Resource-Policy", "same-origin")
        self.send_header("Referrer-Policy", "no-referrer")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as in the base class
        """Write no access log to the terminal."""


def make_server(folder: Path, *, port: int) -> ThreadingHTTPServer:
    """Return a server for this machine only, which is not running yet.

    Args:
        folder: the directory with the runs.
        port: the port to listen on; 0 for any free one.

    Raises:
        ReportError: there is no such directory, or the port is in use.
    """
    if not folder.is_dir():
        raise ReportError(f"{folder}: no such directory; give the folder that contains your runs")
    page = (resources.files("pennyweight.report") / "page" / "index.html").read_bytes()
    try:
        return _Server(RunIndex(folder), page, port=port)
    except OSError as error:
        raise ReportError(
            f"--port {port}: {error.strerror}; choose another port, or 0 for any free one"
        ) from None
