"""Names and paths that are kept out of files that are shared."""

from __future__ import annotations

import socket

import pytest

from pennyweight.environment import with_home, without_home, without_host_name


@pytest.fixture(autouse=True)
def _home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/alice")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/home/alice/data.csv", "~/data.csv"),
        ("/home/alice", "~"),
        ('train = "/home/alice/a b.csv"', 'train = "~/a b.csv"'),
        ("train (/home/alice/a) and /home/alice/b:split", "train (~/a) and ~/b:split"),
        ("file:///home/alice/a", "file://~/a"),
        ("/home/alicent/data.csv", "/home/alicent/data.csv"),
        ("/home/alice.old/data.csv", "/home/alice.old/data.csv"),
        ("/backup/home/alice/data.csv", "/backup/home/alice/data.csv"),
        ("relative/home/alice", "relative/home/alice"),
    ],
)
def test_the_home_directory_becomes_a_tilde_where_a_path_begins(text: str, expected: str) -> None:
    assert without_home(text) == expected


def test_a_home_that_is_the_root_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/")
    assert without_home("/data/a.csv") == "/data/a.csv"


def test_paths_are_absolute_again_and_other_values_stay() -> None:
    values = {"a": ["~/a.csv", "b ~/c", "~", 1, None], "d": {"~/e": "~/f"}}
    assert with_home(values) == {
        "a": ["/home/alice/a.csv", "b ~/c", "~", 1, None],
        "d": {"~/e": "/home/alice/f"},
    }


def test_the_machine_has_its_name_again_afterwards() -> None:
    name = socket.gethostname()
    with without_host_name():
        assert socket.gethostname() == "localhost"
    assert socket.gethostname() == name
