"""A hub on this machine that takes a repository and one commit, and remembers what it was sent."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Hub:
    """Requests that the server received, and how it answers.

    Attributes:
        status: of every answer about repositories; 200 to accept them.
        repositories: the bodies of requests for a new repository.
        branches: paths of requests for a new branch.
        files: contents by name.
        revision: that was committed to.
    """

    url: str = ""
    status: int = 200
    repositories: list[dict[str, Any]] = field(default_factory=list)
    branches: list[str] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    revision: str = ""
    tokens: set[str] = field(default_factory=set)


@contextmanager
def serve_hub() -> Iterator[Hub]:
    """Yield a hub that answers until the block ends."""
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def _answer(self, value: dict[str, Any], status: int = 200) -> None:
            body = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_HEAD(self) -> None:
            self.send_response(200)
            self.end_headers()

        def do_GET(self) -> None:
            self._answer({"id": "me/news", "sha": "0" * 40, "siblings": []}, hub.status)

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"] or 0))
            hub.tokens.add(self.headers["Authorization"] or "")
            if self.path == "/api/repos/create":
                hub.repositories.append(json.loads(body))
                if hub.status != 200:
                    self._answer({"error": "You may not write here"}, hub.status)
                    return
                self._answer({"url": f"{hub.url}/me/news"})
            elif "/branch/" in self.path:
                hub.branches.append(self.path)
                self._answer({})
            elif "/preupload/" in self.path:
                files = json.loads(body)["files"]
                modes = [
                    {"path": each["path"], "uploadMode": "regular", "shouldIgnore": False}
                    for each in files
                ]
                self._answer({"files": modes})
            elif "/commit/" in self.path:
                hub.revision = self.path.rpartition("/")[2]
                for line in map(json.loads, body.decode().splitlines()):
                    if line["key"] == "file":
                        value = line["value"]
                        hub.files[value["path"]] = base64.b64decode(value["content"])
                self._answer({"commitOid": "1" * 40, "commitUrl": f"{hub.url}/me/news/commit/1"})
            else:
                self._answer({})

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
