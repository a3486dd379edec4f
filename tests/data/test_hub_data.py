"""Data sets from the hub: local copies first, and no endless wait for an unreachable hub."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pennyweight.data import hub
from pennyweight.data.ingest import ReadOptions, Rows, read_rows
from pennyweight.data.source import Source
from pennyweight.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

LABELS = ("World", "Sports")
CARD = """---
dataset_info:
  features:
  - name: text
    dtype: string
  - name: label
    dtype:
      class_label:
        names:
          '0': Sports
          '1': World
---
"""


def read(location: str, cache: Path) -> Rows:
    return read_rows("rows", Source(location), ReadOptions(LABELS, (), "stop", cache))


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep the machine's own cache out of the tests."""
    cache = tmp_path / "hub-cache"
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", cache)
    return cache


@pytest.fixture
def local(tmp_path: Path) -> Path:
    """A directory in the hub's format."""
    folder = tmp_path / "news"
    (folder / "data").mkdir(parents=True)
    (folder / "README.md").write_text(CARD, encoding="utf-8")
    table = pa.table({"text": ["a", "b", "c"], "label": [0, 1, 1]})
    pq.write_table(table, folder / "data" / "train-00000-of-00001.parquet")
    pq.write_table(table.slice(0, 1), folder / "data" / "test-00000-of-00001.parquet")
    return folder


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make contacting the hub fail the test."""

    def contacted(*, timeout_seconds: float) -> str | None:
        raise AssertionError("the hub was contacted")

    monkeypatch.setattr(hub, "unreachable", contacted)


@pytest.mark.usefixtures("no_hub")
def test_a_local_directory_in_the_hubs_format_is_loaded(local: Path) -> None:
    assert hub.load(str(local), split="train").to_dict() == {
        "text": ["a", "b", "c"],
        "label": [0, 1, 1],
    }
    assert len(hub.load(str(local), split="train[:2]")) == 2


@pytest.mark.usefixtures("no_hub")
def test_its_classes_become_labels_by_name(local: Path, tmp_path: Path) -> None:
    rows = read(f"hub:{local}", tmp_path / "cache")

    assert rows.table.to_dict() == {"text": ["a", "b", "c"], "label": [1, 0, 0], "row": [1, 2, 3]}
    assert (rows.source, rows.format) == (f"hub:{local}:train", "hub")

    test = read(f"hub:{local}:test", tmp_path / "cache")
    assert len(test.table) == 1


@pytest.mark.usefixtures("no_hub")
def test_a_split_that_does_not_exist_is_an_error(local: Path) -> None:
    with pytest.raises(DataError) as caught:
        hub.load(str(local), split="dev")
    assert f"hub:{local}: split dev:" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("no_hub")
def test_a_loading_script_is_refused_and_not_executed(local: Path, tmp_path: Path) -> None:
    executed = tmp_path / "executed"
    script = f"""import datasets
from pathlib import Path

Path({str(executed)!r}).touch()


class News(datasets.GeneratorBasedBuilder):
    def _info(self):
        return datasets.DatasetInfo()
"""
    (local / "news.py").write_text(script, encoding="utf-8")

    for load in (
        lambda: hub.load(str(local), split="train"),
        lambda: read(f"hub:{local}", tmp_path / "cache"),
    ):
        with pytest.raises(DataError, match="scripts are no longer supported") as caught:
            load()
        assert "\n" not in str(caught.value)
    assert not executed.exists()


@pytest.mark.usefixtures("no_hub")
def test_a_script_of_another_name_is_not_executed(local: Path, tmp_path: Path) -> None:
    executed = tmp_path / "executed"
    (local / "loader.py").write_text(f"open({str(executed)!r}, 'w').close()", encoding="utf-8")

    assert len(hub.load(str(local), split="train")) == 3
    assert not executed.exists()


@pytest.mark.usefixtures("no_hub")
def test_a_cached_copy_is_used_without_contacting_the_hub(local: Path, own_cache: Path) -> None:
    hub.load(str(local), split="train")
    shutil.move(own_cache / "news", own_cache / "someone___news")
    (info,) = own_cache.glob("someone___news/*/*/*/dataset_info.json")
    info.write_text(info.read_text(encoding="utf-8").replace(str(local), "someone/news"), "utf-8")
    revision = info.parent.name

    assert hub.load("someone/news", split="train")["text"][:] == ["a", "b", "c"]
    assert len(hub.load("someone/news", split="train", revision=revision)) == 3
    with pytest.raises(AssertionError, match="contacted"):
        hub.load("someone/news", split="train", revision="other")


def test_a_hub_that_does_not_answer_is_an_error_that_says_what_to_do_instead(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hub, "unreachable", lambda timeout_seconds: "no network")

    with pytest.raises(DataError) as caught:
        hub.load("someone/news", split="train")

    assert "hub:someone/news: not in the local cache" in str(caught.value)
    assert "--set data.train=FILE" in str(caught.value)


def test_offline_mode_is_respected_without_contacting_the_hub(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)

    with pytest.raises(DataError, match="HF_HUB_OFFLINE is set"):
        hub.load("someone/news", split="train")


def test_a_name_is_needed(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="write hub:NAME"):
        read("hub:", tmp_path)


def in_new_process(endpoint: str, cache: Path, *, seconds: float) -> tuple[str, float]:
    """Return the error message of loading from an endpoint, and the seconds that it took."""
    code = (
        "import sys, time\n"
        "from pennyweight.data import hub\n"
        "from pennyweight.errors import DataError\n"
        "started = time.monotonic()\n"
        "try:\n"
        f"    hub.load('someone/news', split='train', timeout_seconds={seconds})\n"
        "except DataError as error:\n"
        "    print(error)\n"
        "print(time.monotonic() - started)\n"
    )
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.upper().startswith("HF_") and not name.lower().endswith("_proxy")
    }
    environment |= {
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(cache),
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert time.monotonic() - started < 60
    text, _, elapsed = done.stdout.strip().rpartition("\n")
    return text, float(elapsed)


def test_a_server_that_accepts_and_never_answers_is_given_up_on(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as blackhole:
        endpoint = f"http://127.0.0.1:{blackhole.getsockname()[1]}"
        text, elapsed = in_new_process(endpoint, tmp_path, seconds=1.0)

    assert f"{endpoint} does not answer" in text
    assert elapsed < 8.0


def test_a_closed_port_is_an_error_at_once(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        endpoint = f"http://127.0.0.1:{server.getsockname()[1]}"
    text, elapsed = in_new_process(endpoint, tmp_path, seconds=8.0)

    assert f"{endpoint} does not answer" in text
    assert elapsed < 8.0
