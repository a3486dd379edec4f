"""JSON and TOML of anybody: read in bounded time and memory, or refused in one line."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from pennyweight.documents import (
    DocumentError,
    load_arrays,
    parse_json,
    parse_toml,
    printable,
    read_document,
    read_json_table,
    read_text,
    read_toml,
)
from pennyweight.errors import PennyweightError, first_line
from pennyweight.limits import LIMITS, limit


def test_a_byte_order_mark_and_windows_line_ends_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_bytes(b"\xef\xbb\xbfa = 1\r\nb = 2\r\n")
    assert read_toml(path) == {"a": 1, "b": 2}


@pytest.mark.parametrize("levels", [66, 400, 5000, 100_000])
def test_deep_nesting_is_refused(levels: int) -> None:
    with pytest.raises(DocumentError, match="nested more than 64 levels deep"):
        parse_json("[" * levels + "]" * levels)
    with pytest.raises(DocumentError, match="nested more than 64 levels deep"):
        parse_toml("x = " + "[" * levels + "]" * levels)


def test_ordinary_nesting_is_read() -> None:
    assert parse_json("[" * 60 + "]" * 60)
    with pytest.raises(DocumentError, match="nested"):
        parse_toml(".".join("a" * 3000) + " = 1")


@pytest.mark.parametrize("content", [b"{", b"\xff", b"9" * 10_000, b"[1]", b"null", b'"x"', b"3"])
def test_what_is_no_object_is_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(DocumentError) as caught:
        read_json_table(path)
    assert "\n" not in str(caught.value)


def test_only_regular_files_of_a_limited_size_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero"), tmp_path):
        with pytest.raises(DocumentError, match="not a regular file"):
            read_document(path)
    large = tmp_path / "large"
    large.write_bytes(b" " * (2**20 + 1))
    assert len(read_text(large)) == 2**20 + 1
    monkeypatch.setenv("PENNYWEIGHT_MAX_DOCUMENT_MIB", "1")
    with pytest.raises(DocumentError, match=r"larger than 1 MiB; .*PENNYWEIGHT_MAX_DOCUMENT_MIB"):
        read_document(large)


@pytest.mark.parametrize("variable", LIMITS)
def test_a_limit_is_a_number_of_mebibytes(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert limit(variable) == LIMITS[variable][0] * 2**20
    monkeypatch.setenv(variable, "3")
    assert limit(variable) == 3 * 2**20
    for wrong in ("0", "-1", "x", "1.5", "9" * 400):
        monkeypatch.setenv(variable, wrong)
        with pytest.raises(PennyweightError, match=f"{variable}: given"):
            limit(variable)


def test_arrays_are_read_without_objects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez(tmp_path / "a.npz", x=np.arange(3))
    assert load_arrays(tmp_path / "a.npz")["x"].tolist() == [0, 1, 2]
    np.savez(tmp_path / "b.npz", x=np.array([{}], dtype=object))
    np.savez_compressed(tmp_path / "e.npz", x=np.arange(3))
    assert load_arrays(tmp_path / "e.npz")["x"].tolist() == [0, 1, 2]
    np.savez_compressed(tmp_path / "c.npz", x=np.zeros(2**21, dtype=np.int8))
    monkeypatch.setenv("PENNYWEIGHT_MAX_EXPANDED_MIB", "1")
    (tmp_path / "d.npz").write_bytes((tmp_path / "a.npz").read_bytes()[:100])
    for name in "bcd":
        with pytest.raises(DocumentError):
            load_arrays(tmp_path / f"{name}.npz")


def test_control_characters_are_escaped() -> None:
    assert printable("a\nb\x1b[2K\u202eé") == "a\\nb\\x1b[2K\\u202eé"
    assert printable("\ud800") == "\\ud800"


def test_the_first_line_of_an_empty_message_is_the_errors_type() -> None:
    assert first_line(ValueError("\n  \n a \n b")) == "a"
    assert first_line(EOFError()) == "EOFError"
