"""Hostile requests to the run page, and hostile runs in its folder."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pennyweight.report.run_page import make_server
from pennyweight.runs.record import save_record
from runs.records import example_record
from security.hostile import SECRET

# By name: path of the request, and headers that replace the usual ones.
_REQUESTS: dict[str, tuple[str, dict[str, str]]] = {
    "another host": ("/api/runs", {"Host": "evil.example"}),
    "another host with this port": ("/api/runs", {"Host": "evil.example:{port}"}),
    "a host that begins alike": ("/api/runs", {"Host": "127.0.0.1.evil.example:{port}"}),
    "another port": ("/api/runs", {"Host": "127.0.0.1:1"}),
    "no host": ("/api/runs", {"Host": ""}),
    "the page itself under another host": ("/", {"Host": "evil.example"}),
    "a path upwards": ("/api/run?path=../outside", {}),
    "an encoded path upwards": ("/api/run?path=%2e%2e%2foutside", {}),
    "an absolute path": ("/api/run?path=/etc", {}),
    "a link that leads outside": ("/api/run?path=link", {}),
    "a NUL": ("/api/run?path=%00", {}),
    "a path of 8,000 characters": ("/api/run?path=" + "a" * 8000, {}),
    "bytes that are not UTF-8": ("/api/run?path=%ff%fe", {}),
    "predictions that are truncated": ("/api/compare?one=good&other=good&set=test", {}),
    "a comparison outside": ("/api/compare?one=../outside&other=good&set=test", {}),
    "an endpoint that is a file": ("/record.json", {}),
    "brackets that are no address": ("//[x/api/runs", {}),
}


@pytest.fixture
def port(tmp_path: Path) -> Iterator[int]:
    """The port of a page over a good run among hostile ones."""
    folder, outside = tmp_path / "runs", tmp_path / "outside"
    contents = {
        "list": "[]",
        "text": '"x"',
        "null": "null",
        "deep": "[" * 100_000,
        "bytes": b"\xff\xfe",
        "started": '{"schema_version": 2, "started": 3}',
        "nan": '{"schema_version": 2, "seconds": NaN}',
        "big": "9" * 10_000,
    }
    for name, text in contents.items():
        (folder / name).mkdir(parents=True)
        content = text if isinstance(text, bytes) else text.encode()
        (folder / name / "record.json").write_bytes(content)
    for run in (folder / "good", outside):
        run.mkdir(parents=True)
        save_record(run, example_record(failure=SECRET if run == outside else None))
    (folder / "good" / "predictions.npz").write_bytes(b"PK\x03\x04")
    (folder / "link").symlink_to(outside)
    server = make_server(folder, port=0)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server.server_port
    server.shutdown()
    server.server_close()
    thread.join()


def _request(port: int, path: str, headers: dict[str, str]) -> tuple[int, str, dict[str, str]]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.putrequest("GET", path, skip_host="Host" in headers)
    for name, value in headers.items():
        connection.putheader(name, value.format(port=port))
    connection.endheaders()
    answer = connection.getresponse()
    return answer.status, answer.read().decode(), dict(answer.getheaders())


@pytest.mark.parametrize("name", _REQUESTS)
def test_a_hostile_request_gets_one_line_and_no_file_outside(port: int, name: str) -> None:
    path, headers = _REQUESTS[name]
    status, body, _ = _request(port, path, headers)
    assert 400 <= status <= 500
    assert SECRET not in body
    if body.startswith("{"):
        assert "\n" not in json.loads(body)["error"]
    # The server goes on.
    assert _request(port, "/api/runs", {})[0] == 200


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]"])
def test_damaged_runs_do_not_hide_the_others(port: int, host: str) -> None:
    status, body, headers = _request(port, "/api/runs", {"Host": f"{host}:{port}"})
    assert status == 200
    assert "good" in [run["path"] for run in json.loads(body)["runs"]]
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "'unsafe-inline'" not in policy.split("script-src")[1].split(";")[0]
