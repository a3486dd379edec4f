"""A stub of an OpenAI-compatible server: what it answers is a function of the request."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

__all__ = ["Reply", "StubServer", "answer_with", "serve"]


@dataclass(frozen=True, slots=True)
class Reply:
    """A response: a status, a body that is sent as JSON or as it is, and headers."""

    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)


def answer_with(text: str | None) -> Reply:
    """Return a chat completion with a text."""
    return Reply(body={"choices": [{"message": {"role": "assistant", "content": text}}]})


class StubServer:
    """Requests that a stub received, and its answers; see `serve`.

    Attributes:
        url: of the API.
        requests: bodies of the requests in the order of their arrival.
        headers: of the same requests.
        paths: of the same requests.
        most_at_once: the most requests that were being answered at the same time.
    """

    def __init__(self, reply: Callable[[dict[str, Any]], Reply]) -> None:
        self.reply = reply
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.most_at_once = self._now = 0
        self.url = ""
        self._lock = threading.Lock()

    @contextmanager
    def counted(self, body: dict[str, Any], headers: dict[str, str], path: str) -> Iterator[None]:
        """Record a request while it is answered."""
        with self._lock:
            self.requests.append(body)
            self.headers.append(headers)
            self.paths.append(path)
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
        yield
        with self._lock:
            self._now -= 1


@contextmanager
def serve(reply: Callable[[dict[str, Any]], Reply]) -> Iterator[StubServer]:
    """Serve a stub on a free port of this machine, in threads."""
    stub = StubServer(reply)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            headers = {name.lower(): value for name, value in self.headers.items()}
            with stub.counted(body, headers, self.path):
                answer = stub.reply(body)
            content = answer.body if isinstance(answer.body, bytes) else _json(answer.body)
            try:
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)
            except ConnectionError:
                self.close_connection = True

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            """Print nothing about clients that hang up."""

    server = Server(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    stub.url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield stub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _json(body: Any) -> bytes:
    return json.dumps(body).encode()
