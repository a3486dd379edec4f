"""Base models are located, or refused with a suggested fix; nothing hangs."""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

import pytest
from huggingface_hub import constants, hf_api
from huggingface_hub.errors import EntryNotFoundError
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    CLIPConfig,
    DistilBertConfig,
)

from pennyweight.base import ConfigChanges, locate, skeleton
from pennyweight.base import hub as hub_models
from pennyweight.base.hub import fetch, fetch_config
from pennyweight.errors import BaseModelError

LABELS = ("ham", "spam", "eggs")
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def _tiny() -> BertConfig:
    return BertConfig(
        vocab_size=50,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=48,
        max_position_embeddings=40,
    )


def test_the_config_names_the_task_as_transformers_does() -> None:
    base = locate("roberta-base", labels=LABELS, config_only=True)
    assert base.config.problem_type == "single_label_classification"
    base = locate(
        "roberta-base", labels=LABELS, config_only=True, changes=ConfigChanges(multi_label=True)
    )
    assert base.config.problem_type == "multi_label_classification"


def test_embedded_base_is_located_with_the_labels_in_its_config() -> None:
    base = locate("embedded", labels=LABELS)
    assert (base.origin, base.revision) == ("embedded", None)
    assert base.reference == "sentence-transformers/all-MiniLM-L6-v2"
    assert Path(base.location, "config.json").is_file()
    assert base.config.num_labels == 3
    assert base.config.id2label == {0: "ham", 1: "spam", 2: "eggs"}
    assert base.config.label2id == {"ham": 0, "spam": 1, "eggs": 2}


def test_local_directory_is_located_and_its_dropout_replaced(tmp_path: Path) -> None:
    _tiny().save_pretrained(tmp_path)
    base = locate(str(tmp_path), labels=LABELS, changes=ConfigChanges(dropout=0.25))
    assert (base.origin, base.location, base.revision) == ("directory", str(tmp_path), None)
    assert base.config.hidden_dropout_prob == 0.25
    assert base.config.attention_probs_dropout_prob == 0.25


def test_known_config_needs_no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError

    # The package's function of the same name hides the module from a dotted path.
    monkeypatch.setattr(sys.modules[locate.__module__], "fetch_config", refuse)
    for name in ("roberta-base", "FacebookAI/roberta-base"):
        base = locate(name, labels=LABELS, config_only=True)
        assert (base.origin, base.name, base.config.hidden_size) == ("known config", name, 768)


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/at/all", "~/nowhere"])
def test_missing_directory_is_refused(name: str) -> None:
    with pytest.raises(BaseModelError, match=r"base\.name: .*nowhere.*: no such directory"):
        locate(name, labels=LABELS)


def test_directory_without_a_config_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BaseModelError, match=r"it must hold config\.json"):
        locate(str(tmp_path), labels=LABELS)


@pytest.mark.parametrize("text", ["{", "{}", "[]", '{"model_type": "no-such"}', "\0"])
def test_broken_config_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(BaseModelError, match=r"base\.name: "):
        locate(str(tmp_path), labels=LABELS)


def test_model_without_a_classification_head_is_refused(tmp_path: Path) -> None:
    CLIPConfig().save_pretrained(tmp_path / "clip")
    (tmp_path / "gpt").mkdir()
    config = {"model_type": "gpt_neox_japanese"}
    (tmp_path / "gpt" / "config.json").write_text(json.dumps(config))
    for name in ("clip", "gpt"):
        with pytest.raises(
            BaseModelError, match=f'type "{name}.*" has no sequence-classification head'
        ):
            locate(str(tmp_path / name), labels=LABELS)


def test_revision_of_a_local_base_is_refused(tmp_path: Path) -> None:
    _tiny().save_pretrained(tmp_path)
    for name in ("embedded", str(tmp_path)):
        with pytest.raises(BaseModelError, match=r"base\.revision: main: only a base from the hub"):
            locate(name, labels=LABELS, revision="main")


def test_skeleton_has_shapes_but_no_weights() -> None:
    model = skeleton(locate("roberta-base", labels=LABELS, config_only=True))
    tensors = [*model.parameters(), *model.buffers()]
    assert {tensor.device.type for tensor in tensors} == {"meta"}
    assert model.get_parameter("classifier.out_proj.weight").shape == (3, 768)


class Hub:
    """Locates bases on a hub of the test's own, with a cache of its own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
        self._monkeypatch = monkeypatch
        for name in [name for name in os.environ if "proxy" in name.lower()]:
            monkeypatch.delenv(name)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))

    def locate(self, name: str, *, endpoint: str, revision: str = "") -> dict[str, str]:
        """Return where a base comes from and where its files are, or the error."""
        template = f"{endpoint}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        self._monkeypatch.setattr(constants, "ENDPOINT", endpoint)
        self._monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        self._monkeypatch.setattr(hf_api.api, "endpoint", endpoint)
        start = time.monotonic()
        try:
            base = locate(name, labels=("a", "b"), revision=revision or None)
            path = fetch(name, revision=base.revision)
        except BaseModelError as error:
            return {"error": str(error), "seconds": str(time.monotonic() - start)}
        return {"origin": base.origin, "revision": base.revision or "", "path": str(path)}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Hub:
    return Hub(monkeypatch, tmp_path / "cache")


@contextmanager
def _blackhole(answer: bytes = b"") -> Iterator[str]:
    """Serve a port that accepts every connection, sends `answer`, and then nothing more."""
    held: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                held.append(connection)
                connection.sendall(answer)

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}"
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join(5)
            for connection in held:
                connection.close()


@pytest.mark.parametrize("answer", [b"", b"this is no HTTP\r\n\r\n"])
def test_hub_that_never_answers_is_an_error_within_ten_seconds(hub: Hub, answer: bytes) -> None:
    with _blackhole(answer) as endpoint:
        result = hub.locate("somebody/model", endpoint=endpoint)
    assert "the hub cannot be reached" in result["error"]
    assert "base.name=embedded" in result["error"]
    assert float(result["seconds"]) < 10


class _Hub(BaseHTTPRequestHandler):
    """The parts of the hub's API that a download needs, for one model in `folder`."""

    folder: Path

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(self.path.split("?")[0])
        files = sorted(file.name for file in self.folder.iterdir())
        siblings = [{"rfilename": name} for name in files]
        info = {"id": "me/tiny", "modelId": "me/tiny", "sha": COMMIT, "siblings": siblings}
        if path == "/":
            self._send(b"hub")
        elif path in (
            "/api/models/me/tiny",
            *(f"/api/models/me/tiny/revision/{r}" for r in ("main", COMMIT)),
        ):
            self._send(json.dumps(info).encode())
        elif path.startswith("/api/models/me/tiny/tree/"):
            tree = [
                {
                    "type": "file",
                    "path": name,
                    "size": (self.folder / name).stat().st_size,
                    "oid": f"{index:040x}",
                }
                for index, name in enumerate(files)
            ]
            self._send(json.dumps(tree).encode())
        elif path.startswith("/me/tiny/resolve/") and path.split("/")[-1] in files:
            name = path.split("/")[-1]
            self._send((self.folder / name).read_bytes(), etag=f"{files.index(name):040x}")
        else:
            code = "RevisionNotFound" if path.startswith("/api/models/me/tiny/") else "RepoNotFound"
            self._send(b"{}", status=404, error=code)

    def _send(self, content: bytes, *, status: int = 200, etag: str = "", error: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Content-Type", "application/json")
        if etag:
            self.send_header("ETag", f'"{etag}"')
        if error:
            self.send_header("X-Error-Code", error)
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


@contextmanager
def _hub(folder: Path) -> Iterator[str]:
    handler = type("Hub", (_Hub,), {"folder": folder})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join(5)
        server.server_close()


def test_base_from_the_hub_is_downloaded_once_and_its_commit_recorded(
    hub: Hub, tmp_path: Path
) -> None:
    folder = tmp_path / "served"
    AutoModelForSequenceClassification.from_config(_tiny()).save_pretrained(folder)
    with _hub(folder) as endpoint:
        first = hub.locate("me/tiny", endpoint=endpoint)
        unknown = hub.locate("me/other", endpoint=endpoint)
        revision = hub.locate("me/tiny", endpoint=endpoint, revision="v9")
    assert (first.get("origin"), first.get("revision")) == ("hub", COMMIT), first
    names = {file.name for file in Path(first["path"]).iterdir()}
    assert {"config.json", "model.safetensors"} <= names
    assert Path(first["path"]).is_relative_to(tmp_path / "cache")
    assert "no such model on the hub" in unknown["error"]
    assert "base.revision: me/tiny has no revision v9" in revision["error"]
    start = time.monotonic()
    again = hub.locate("me/tiny", endpoint=endpoint)  # the hub is gone by now
    assert (again.get("revision"), again.get("path")) == (COMMIT, first["path"])
    assert time.monotonic() - start < 60


def test_the_pooling_of_a_model_that_transformers_has_cached_is_asked_for_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cached: dict[str, object] = {"config.json": str(tmp_path / "config.json")}
    asked = []

    def download(_: str, file: str, **__: object) -> None:
        asked.append(file)
        cached[file] = object()  # known to be missing
        raise EntryNotFoundError("no such file")

    monkeypatch.setattr(hub_models, "unreachable", lambda: None)
    monkeypatch.setattr(
        hub_models, "try_to_load_from_cache", lambda _, file, **__: cached.get(file)
    )
    monkeypatch.setattr(hub_models, "hf_hub_download", download)
    monkeypatch.setattr(hub_models, "snapshot_download", lambda *_, **__: str(tmp_path / COMMIT))
    (tmp_path / COMMIT).mkdir()
    _tiny().save_pretrained(tmp_path / COMMIT)
    for _ in range(2):
        assert fetch_config("me/tiny", revision=None)[1] == COMMIT
    assert asked == ["1_Pooling/config.json"]


def test_a_model_in_several_files_is_cached_if_all_of_them_are(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}))
    cached = {name: str(tmp_path / name) for name in ("config.json", index.name, "one.safetensors")}
    local = []
    monkeypatch.setattr(hub_models, "unreachable", lambda: "no network")
    monkeypatch.setattr(
        hub_models, "try_to_load_from_cache", lambda _, file, **__: cached.get(file)
    )
    monkeypatch.setattr(
        hub_models,
        "snapshot_download",
        lambda *_, local_files_only, **__: local.append(local_files_only) or str(tmp_path),
    )
    with pytest.raises(BaseModelError, match="the hub cannot be reached"):
        fetch("me/tiny", revision=None)
    cached["two.safetensors"] = str(tmp_path / "two.safetensors")
    assert fetch("me/tiny", revision=None) == tmp_path
    assert local == [True]


def test_a_dropout_of_zero_is_set_and_that_of_a_head_is_not(tmp_path: Path) -> None:
    DistilBertConfig(dim=32, n_layers=1, n_heads=2, hidden_dim=48, dropout=0, attention_dropout=0,
                     seq_classif_dropout=0.2).save_pretrained(tmp_path)  # fmt: skip
    base = locate(
        str(tmp_path), labels=["a", "b"], changes=ConfigChanges(dropout=0.3), config_only=True
    )
    config = base.config.to_dict()
    assert (config["dropout"], config["attention_dropout"]) == (0.3, 0.3)
    assert config["seq_classif_dropout"] == 0.2
