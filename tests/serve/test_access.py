"""Tokens, hosts, sizes, and the folder that clients may load from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from pennyweight.cli.main import app
from pennyweight.cli.serve import AccessArguments
from pennyweight.errors import ServeError
from pennyweight.serve.catalog import name_runs
from pennyweight.serve.options import Access, Batching, Limits, ServeOptions
from serve.planted import client_of, plant, service_of

_TOKENS = ("first-token-of-many-letters", "second-token-of-many-letters")
_BODY = {"texts": ["x"]}


@pytest.mark.parametrize(
    ("header", "status"),
    [
        (None, 401),
        ("Bearer wrong", 401),
        (f"Basic {_TOKENS[0]}", 401),
        (_TOKENS[0], 401),
        ("Bearer caf\u00e9", 401),
        (f"Bearer {_TOKENS[0]}", 200),
        (f"bearer {_TOKENS[1]}", 200),
    ],
)
def test_a_request_needs_one_of_the_tokens(tmp_path: Path, header: str | None, status: int) -> None:
    options = ServeOptions(access=Access(tokens=_TOKENS))
    headers = {} if header is None else {"Authorization": header.encode("latin-1")}
    with service_of(tmp_path, "a") as service, client_of(service, options) as client:
        answers = {
            client.post("/v1/classify", json=_BODY, headers=headers).status_code,
            client.get("/v1/classifiers", headers=headers).status_code,
            client.get("/metrics", headers=headers).status_code,
        }
        assert answers == {status}
        for path in ("/", "/page.js", "/healthz", "/readyz", "/openapi.json"):
            assert client.get(path).status_code == 200
    assert _TOKENS[0] not in repr(options)


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("localhost:8000", 200),
        ("LOCALHOST", 200),
        ("127.0.0.1:8000", 200),
        ("[::1]:8000", 200),
        ("attacker.example", 400),
        ("attacker.example:8000", 400),
        ("localhost.attacker.example", 400),
        ("localhost@attacker.example", 400),
        ("[::1", 400),
        ("", 400),
    ],
)
def test_a_name_that_another_server_can_have_is_refused(
    tmp_path: Path, host: str, status: int
) -> None:
    with service_of(tmp_path, "a") as service, client_of(service) as client:
        response = client.post("/v1/classify", json=_BODY, headers={"Host": host})
        assert response.status_code == status
        assert client.get("/", headers={"Host": host}).status_code == status
        # Probes name a pod's address.
        assert client.get("/readyz", headers={"Host": host}).status_code == 200


def test_a_form_of_another_page_cannot_ask(tmp_path: Path) -> None:
    with service_of(tmp_path, "a") as service, client_of(service) as client:
        headers = {"Content-Type": "text/plain"}
        response = client.post("/v1/classify", content='{"texts": ["x"]}', headers=headers)
        assert response.status_code == 422
        assert "access-control-allow-origin" not in response.headers


@pytest.mark.parametrize(
    ("texts", "status", "message"),
    [
        (["x" * 100], 200, ""),
        (["x" * 101], 422, "text 0 has 101 characters; shorten it to at most 100"),
        (["x"] * 8, 200, ""),
        (["x"] * 9, 422, "9 texts in one request; send at most 8"),
        (["x" * 3000], 413, "the body is over 2000 bytes"),
    ],
)
def test_sizes_are_limited(tmp_path: Path, texts: list[str], status: int, message: str) -> None:
    limits = Limits(body_bytes=2000, text_characters=100, request_texts=8, queue_rows=8)
    options = ServeOptions(limits=limits)
    with (
        service_of(tmp_path, "a", options=options) as service,
        client_of(service, options) as client,
    ):
        response = client.post("/v1/classify", json={"texts": texts})
        assert response.status_code == status
        assert message in response.text


def test_a_body_without_a_length_is_limited_as_well(tmp_path: Path) -> None:
    def body() -> Any:
        for _ in range(1000):
            sent.append(1)
            yield b" " * 100

    sent: list[int] = []
    options = ServeOptions(limits=Limits(body_bytes=2000))
    with service_of(tmp_path, "a") as service, client_of(service, options) as client:
        assert client.post("/v1/classify", content=body()).status_code == 413
        response = client.post("/v1/classify", json=_BODY, headers={"Content-Length": "99999"})
        assert response.status_code == 413


@pytest.mark.parametrize(
    ("directory", "status"),
    [
        ("a", 200),
        ("./b/../a", 200),
        ("link", 403),
        ("..", 403),
        (".", 403),
        ("/", 403),
        ("../outside", 403),
        ("a/../../outside", 403),
        ("missing", 404),
        ("a/planted.json", 404),
        ("a\0", 422),
        ("x" * 5000, 422),
    ],
)
def test_only_directories_below_the_folder_are_loaded(
    tmp_path: Path, directory: str, status: int
) -> None:
    folder, outside = tmp_path / "folder", plant(tmp_path / "outside", "o")
    plant(folder / "b", "b")
    (folder / "link").symlink_to(outside)
    options = ServeOptions(access=Access(loading_folder=folder))
    with service_of(folder, "a") as service, client_of(service, options) as client:
        response = client.put("/v1/classifiers/new", json={"directory": directory})
        assert response.status_code == status, response.text
        absolute = client.put("/v1/classifiers/new", json={"directory": str(outside)})
        assert absolute.status_code == 403


def test_without_a_folder_nothing_is_loaded_or_removed(tmp_path: Path) -> None:
    with service_of(tmp_path, "a") as service, client_of(service) as client:
        for response in (
            client.put("/v1/classifiers/a", json={"directory": "a"}),
            client.post("/v1/classifiers", json={"directory": "a"}),
            client.delete("/v1/classifiers/a"),
        ):
            assert response.status_code == 403
            assert "--allow-loading-from DIR" in response.json()["error"]
        assert client.post("/v1/classify", json=_BODY).status_code == 200


@pytest.mark.parametrize("name", ["", "a b", "../a", "a" * 65, ".hidden", "a\n"])
def test_a_name_is_plain(tmp_path: Path, name: str) -> None:
    options = ServeOptions(access=Access(loading_folder=tmp_path))
    with service_of(tmp_path, "a") as service, client_of(service, options) as client:
        response = client.post("/v1/classifiers", json={"directory": "a", "name": name})
        assert response.status_code == 422


def test_runs_are_named_by_their_directories_or_explicitly(tmp_path: Path) -> None:
    one, other = plant(tmp_path / "x" / "run", "a"), plant(tmp_path / "y" / "run", "b")
    equals = plant(tmp_path / "a=b", "c")
    assert name_runs([str(one), f"second={other}", f"third={equals}"]) == {
        "run": one,
        "second": other,
        "third": equals,
    }
    with pytest.raises(ServeError, match='"run" is also the name of'):
        name_runs([str(one), str(other)])
    with pytest.raises(ServeError, match="write NAME=RUN"):
        name_runs([str(equals)])


def test_tokens_come_from_a_file_and_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "tokens"
    file.write_text(f"{_TOKENS[0]}\n\n")
    monkeypatch.setenv("PENNYWEIGHT_SERVE_TOKEN", _TOKENS[1])
    access = AccessArguments(token_file=file, host="0.0.0.0", allow_host=["News.example"])
    assert access.values.tokens == _TOKENS
    assert access.values.hosts[-1] == "news.example"
    for content, message in (("", "it has no token"), ("short\n", "fewer than 16 characters")):
        file.write_text(content)
        with pytest.raises(ServeError, match=message):
            _ = access.values
    with pytest.raises(ServeError, match="cannot be read"):
        _ = AccessArguments(token_file=tmp_path / "none").values
    with pytest.raises(ServeError, match="no such directory"):
        _ = AccessArguments(allow_loading_from=tmp_path / "none").values


@pytest.mark.parametrize(
    "make",
    [
        lambda: Limits(queue_rows=10, request_texts=11),
        lambda: Limits(body_bytes=0),
        lambda: Limits(timeout_seconds=0),
        lambda: Limits(timeout_seconds=float("inf")),
        lambda: Limits(timeout_seconds=float("nan")),
        lambda: Batching(batch_rows=0),
        lambda: Batching(max_wait_ms=-1),
        lambda: Batching(max_wait_ms=float("nan")),
    ],
)
def test_limits_that_cannot_work_are_refused(make: Any) -> None:
    with pytest.raises(ServeError):
        make()


def test_a_missing_extra_is_an_instruction(monkeypatch: pytest.MonkeyPatch) -> None:
    from pennyweight.cli.main import app

    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    result = CliRunner().invoke(app, ["serve", "run"])
    assert isinstance(result.exception, ServeError)
    assert "pip install 'pennyweight[serve]'" in str(result.exception)


@pytest.mark.parametrize(
    ("host", "tokens", "is_open"),
    [
        ("127.0.0.1", (), False),
        ("127.0.0.2", (), False),
        ("localhost", (), False),
        ("::1", (), False),
        ("0.0.0.0", (), True),
        ("::", (), True),
        ("news.example", (), True),
        ("0.0.0.0", _TOKENS, False),
    ],
)
def test_a_server_that_others_reach_without_a_token_is_open(
    host: str, tokens: tuple[str, ...], is_open: bool
) -> None:
    assert ServeOptions(host=host, access=Access(tokens=tokens)).is_open is is_open


def test_an_open_server_is_announced_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pennyweight.serve import server

    def announced(*_: Any, announce: Callable[[str], None]) -> None:
        announce("http://0.0.0.0:8000")

    monkeypatch.setattr(server, "serve", announced)
    run = plant(tmp_path / "news", "a")
    (run / "record.json").touch()
    command = ["serve", str(run), "--host", "0.0.0.0"]
    warning = (
        "warning: there is no token, so anybody who reaches 0.0.0.0 may classify texts; give "
        "--token-file FILE, or set PENNYWEIGHT_SERVE_TOKEN\n"
    )
    address = "http://0.0.0.0:8000 serves news; press Ctrl-C to stop\n"
    assert CliRunner().invoke(app, command).output == warning + address
    loading = CliRunner().invoke(app, [*command, "--allow-loading-from", str(tmp_path)]).output
    assert "may classify texts and load and remove classifiers; give" in loading
    with_token = CliRunner(env={"PENNYWEIGHT_SERVE_TOKEN": _TOKENS[0]}).invoke(app, command)
    assert with_token.output == address
