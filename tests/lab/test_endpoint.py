"""A server is asked as agreed, asked again when it is busy, and every failure is one clear line."""

from __future__ import annotations

import socket
import time
from dataclasses import replace
from typing import Any

import pytest

from lab.stub_server import Reply, answer_with, serve
from pennyweight.errors import DataError
from pennyweight.lab.endpoint import ChatClient, Endpoint

ENDPOINT = Endpoint("", "small", api_key_env=None, concurrency=2, timeout_seconds=5.0)


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Wait for no time, and return the list of the waits."""
    waited: list[float] = []

    monkeypatch.setattr(ChatClient, "_pause", lambda _, seconds: waited.append(seconds))
    return waited


def _ask(url: str, **changes: Any) -> str:
    with ChatClient(replace(ENDPOINT, url=url, **changes)) as client:
        return client.answer("Hello?", options={"temperature": 0.5})


def test_a_request_has_the_message_and_the_options_and_the_answer_loses_white_space() -> None:
    with serve(lambda _: answer_with("\n Good day. ")) as stub:
        assert _ask(stub.url) == "Good day."
    assert stub.paths == ["/v1/chat/completions"]
    assert stub.requests == [
        {
            "model": "small",
            "messages": [{"role": "user", "content": "Hello?"}],
            "temperature": 0.5,
        }
    ]
    assert "authorization" not in stub.headers[0]


def test_the_key_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_KEY", "secret\n")
    with serve(lambda _: answer_with("yes")) as stub:
        _ask(stub.url, api_key_env="A_KEY")
    assert stub.headers[0]["authorization"] == "Bearer secret"


@pytest.mark.parametrize(("value", "message"), [("", "is not set"), ("schlüssel", "only ASCII")])
def test_a_missing_key_is_refused_before_anything_is_sent(
    value: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("A_KEY", value)
    with serve(lambda _: answer_with("yes")) as stub, pytest.raises(DataError, match=message):
        _ask(stub.url, api_key_env="A_KEY")
    assert stub.requests == []


def test_a_busy_server_is_asked_again_after_growing_waits(waits: list[float]) -> None:
    replies = iter(
        [
            Reply(429, {"error": {"message": "too many"}}, {"Retry-After": "7"}),
            Reply(503, b"loading model"),
            answer_with(""),
            answer_with(None),
            answer_with("at last"),
        ]
    )
    with serve(lambda _: next(replies)) as stub:
        assert _ask(stub.url) == "at last"
    assert waits == [7.0, 2.0, 4.0, 8.0]


def _unauthorized(_: dict[str, Any]) -> Reply:
    return Reply(401, {"error": {"message": "Incorrect API key provided: secret"}})


@pytest.mark.parametrize(
    ("reply", "message", "requests"),
    [
        (_unauthorized, "status 401 .*: not authorized; check the API key in A_KEY$", 1),
        (lambda _: Reply(404, {"error": {"message": "no\nsuch model"}}),
         "status 404 Not Found: no such model; check generate.url", 1),
        (lambda _: Reply(307, None, {"Location": "http://elsewhere.invalid/"}),
         "status 307 Temporary Redirect.*; check generate.url", 1),
        (lambda _: Reply(429, {"error": "quota"}),
         "status 429 Too Many Requests: quota, 6 times in a row", 6),
        (lambda _: Reply(500, b""), "status 500 Internal Server Error, 6 times in a row", 6),
        (lambda _: answer_with(" "), "the answer is empty, 6 times in a row", 6),
        (lambda _: Reply(200, b"<html>hello</html>"),
         r"no choices\[0\]\.message\.content: <html>hello</html>; generate.url must", 1),
        (lambda _: Reply(200, {"choices": []}), r'content: \{"choices": \[\]\}; generate.url', 1),
        (lambda _: Reply(200, {"choices": [{"message": {"content": 7}}]}), "no choices", 1),
        (lambda _: Reply(200, b""), "content: it is empty; generate.url", 1),
    ],
)  # fmt: skip
def test_a_failure_is_one_line_that_names_the_server(
    reply: Any, message: str, requests: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("A_KEY", "secret")
    with serve(reply) as stub, pytest.raises(DataError, match=message) as failure:
        _ask(stub.url, api_key_env="A_KEY")
    assert len(stub.requests) == requests
    assert str(failure.value).startswith(f"endpoint {stub.url}: ")
    assert "\n" not in str(failure.value)
    assert "secret" not in str(failure.value)


def test_without_a_key_a_refusal_says_how_to_name_one() -> None:
    with serve(_unauthorized) as stub, pytest.raises(DataError, match=r"in generate\.api_key_env"):
        _ask(stub.url)


def test_a_server_that_does_not_run_is_an_error_at_once(waits: list[float]) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/v1"
        with pytest.raises(DataError, match=r"cannot be reached \(.*refused.*\); start the server"):
            _ask(url)
    assert waits == []


def test_a_server_that_is_too_slow_is_asked_again() -> None:
    calls: list[int] = []

    def slow_at_first(_: dict[str, Any]) -> Reply:
        calls.append(1)
        if len(calls) == 1:
            time.sleep(0.4)
        return answer_with("awake")

    with serve(slow_at_first) as stub:
        assert _ask(stub.url, timeout_seconds=0.2) == "awake"
        calls.clear()
        stub.reply = lambda _: time.sleep(0.1) or answer_with("late")
        with pytest.raises(DataError, match=r"no answer within 0\.01 seconds \(generate\.timeout"):
            _ask(stub.url, timeout_seconds=0.01)


@pytest.fixture
def _proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy in the environment that is not there."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.usefixtures("_proxy")
def test_requests_to_this_machine_do_not_go_through_a_proxy() -> None:
    with serve(lambda _: answer_with("direct")) as stub:
        assert _ask(stub.url) == "direct"
        assert _ask(stub.url.replace("127.0.0.1", "localhost")) == "direct"
