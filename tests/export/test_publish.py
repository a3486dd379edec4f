"""Publishing: what is sent to a hub, the plan without one, and errors in one line."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import HfApi, constants

from export.hub_server import Hub, serve_hub
from pennyweight.errors import RunError
from pennyweight.export import publish as module
from pennyweight.export.hub_folder import HubOptions
from pennyweight.export.publish import Destination, publish

OPTIONS = HubOptions(base_id="me/tiny-bert")
TO = Destination("me/news", private=True, revision="v1")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with serve_hub() as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setenv("HF_TOKEN", "hf_secret")
        yield hub


def test_a_run_is_published_to_a_branch_of_a_private_repository(pooled_run: Path, hub: Hub) -> None:
    published = publish(pooled_run, to=TO, options=OPTIONS)
    assert published.url == f"{hub.url}/me/news/commit/1"
    (repository,) = hub.repositories
    assert (repository["name"], repository["organization"]) == ("news", "me")
    assert repository["visibility"] == "private"
    assert hub.branches == ["/api/models/me/news/branch/v1"]
    assert hub.revision == "v1"
    assert {file.name for file in published.files} == set(hub.files)
    for file in published.files:
        assert hashlib.sha256(hub.files[file.name]).hexdigest() == file.sha256
    assert hub.tokens == {"Bearer hf_secret"}


def test_a_dry_run_needs_no_network_and_no_token(
    pooled_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise AssertionError("a dry run must not connect")

    monkeypatch.setattr(module, "unreachable", fail)
    monkeypatch.setattr(module, "get_token", fail)
    monkeypatch.setattr(HfApi, "create_repo", fail)
    published = publish(pooled_run, to=TO, options=OPTIONS, dry_run=True)
    assert published.url is None
    assert published.calls == (
        "HfApi.create_repo('me/news', private=True, exist_ok=True)",
        "HfApi.create_branch('me/news', branch='v1', exist_ok=True)",
        "HfApi.upload_folder(repo_id='me/news', revision='v1', "
        "commit_message='Upload with Pennyweight')",
    )
    names = [file.name for file in published.files]
    assert {"README.md", "adapter_model.safetensors", "adapter_config.json"} <= set(names)
    assert all(file.bytes > 0 and len(file.sha256) == 64 for file in published.files)


def test_a_hub_that_refuses_is_an_error_in_one_line(pooled_run: Path, hub: Hub) -> None:
    hub.status = 403
    with pytest.raises(RunError, match=r"the hub answered 403: .*may not write") as caught:
        publish(pooled_run, to=TO, options=OPTIONS)
    assert len(str(caught.value).splitlines()) == 1
    assert "hf_secret" not in str(caught.value)


def test_no_network_and_no_token_are_errors_that_say_how_to_go_on(
    pooled_run: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "get_token", lambda: None)
    with pytest.raises(RunError, match="there is no token for the hub; run: hf auth login"):
        publish(pooled_run, to=TO, options=OPTIONS)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(RunError, match="cannot be reached: HF_HUB_OFFLINE is set; --dry-run and"):
        publish(pooled_run, to=TO, options=OPTIONS)
    with pytest.raises(RunError, match="--to news: expected OWNER/NAME"):
        publish(pooled_run, to=Destination("news"), options=OPTIONS)
