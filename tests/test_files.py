"""Atomic and durable writes of files and directories."""

from __future__ import annotations

import errno
import hashlib
import os
import threading
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from pennyweight.files import (
    building_in,
    hash_file,
    recover_directory,
    remove_leftovers,
    replace_directory,
    replacing,
    system_errors,
)


def _contents(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): path.read_text()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture
def operations(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the list to which every sync and every rename is appended, in order."""
    log: list[str] = []
    names: dict[int, str] = {}
    opened, fsync, replace, rename = os.open, os.fsync, Path.replace, Path.rename

    def remembered_open(path: Path, flags: int, mode: int = 0o777) -> int:
        descriptor = opened(path, flags, mode)
        names[descriptor] = path.name
        return descriptor

    def logged_fsync(descriptor: int) -> None:
        log.append(f"sync {names[descriptor]}")
        fsync(descriptor)

    def logged_replace(self: Path, target: Path) -> Path:
        log.append(f"rename {self.name}")
        return replace(self, target)

    def logged_rename(self: Path, target: Path) -> Path:
        log.append(f"rename {self.name}")
        return rename(self, target)

    monkeypatch.setattr(os, "open", remembered_open)
    monkeypatch.setattr(os, "fsync", logged_fsync)
    monkeypatch.setattr(Path, "replace", logged_replace)
    monkeypatch.setattr(Path, "rename", logged_rename)
    return log


def test_the_new_file_replaces_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with replacing(path) as part:
        part.write_text("new")
        assert path.read_text() == "old"
    assert _contents(tmp_path) == {"a.txt": "new"}


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with suppress(OSError), replacing(path) as part:
        part.write_text("half")
        raise OSError
    assert _contents(tmp_path) == {"a.txt": "old"}


def test_a_file_is_synced_before_it_is_renamed_and_its_folder_afterwards(
    tmp_path: Path, operations: list[str]
) -> None:
    with replacing(tmp_path / "a.txt") as part:
        part.write_text("new")
    assert operations == [f"sync {part.name}", f"rename {part.name}", f"sync {tmp_path.name}"]


def test_a_pipe_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()))
    reader.start()
    with replacing(pipe) as part:
        part.write_text("new")
    reader.join(timeout=10)
    assert read == ["new"]
    assert pipe.is_fifo()


@pytest.mark.parametrize("name", ["/dev/null", "/dev/stdout"])
def test_a_device_stays_what_it_is(name: str) -> None:
    with replacing(Path(name)) as part:
        assert part == Path(name)
    assert not list(Path("/dev").glob(".*.part"))


def test_a_symbolic_link_stays_and_its_target_is_replaced(tmp_path: Path) -> None:
    link, target = tmp_path / "link", tmp_path / "a.txt"
    target.write_text("old")
    link.symlink_to(target)
    with replacing(link) as part:
        part.write_text("new")
    assert link.is_symlink()
    assert target.read_text() == "new"


def _write(files: dict[str, str], directory: Path) -> None:
    for name, text in files.items():
        (directory / name).parent.mkdir(exist_ok=True)
        (directory / name).write_text(text)


def test_the_new_directory_replaces_the_old_one_and_its_parents_are_created(
    tmp_path: Path,
) -> None:
    directory = tmp_path / "deep" / "last"
    replace_directory(directory, lambda new: _write({"a": "1", "b": "1"}, new))
    replace_directory(directory, lambda new: _write({"a": "2"}, new))
    assert _contents(tmp_path) == {"deep/last/a": "2"}
    assert [path.name for path in directory.parent.iterdir()] == ["last"]


def test_every_file_of_a_directory_is_synced_before_the_directory_is_renamed(
    tmp_path: Path, operations: list[str]
) -> None:
    directory = tmp_path / "last"
    for _ in range(2):
        operations.clear()
        replace_directory(directory, lambda new: _write({"a": "1", "sub/b": "1"}, new))
    renamed = operations.index("rename .last.new")
    assert {"sync a", "sync b", "sync sub", "sync .last.new"} <= set(operations[:renamed])
    assert operations.index("rename last") < renamed
    assert operations[renamed + 1 :] == [f"sync {tmp_path.name}"]


def test_an_error_while_a_directory_is_filled_leaves_the_old_one(tmp_path: Path) -> None:
    directory = tmp_path / "last"
    replace_directory(directory, lambda new: _write({"a": "1"}, new))

    def fail(new: Path) -> None:
        (new / "a").write_text("half")
        raise OSError

    with suppress(OSError):
        replace_directory(directory, fail)
    assert _contents(directory) == {"a": "1"}
    replace_directory(directory, lambda new: _write({"a": "2"}, new))
    assert _contents(tmp_path) == {"last/a": "2"}


def test_a_crash_between_the_two_renames_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / "last"
    replace_directory(directory, lambda new: _write({"a": "1"}, new))
    rename = Path.rename

    def crash_at_the_second(self: Path, target: Path) -> Path:
        if self.name == ".last.new":
            raise KeyboardInterrupt
        return rename(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", crash_at_the_second)
        with pytest.raises(KeyboardInterrupt):
            replace_directory(directory, lambda new: _write({"a": "2"}, new))
    assert not directory.exists()
    assert recover_directory(directory)
    assert _contents(directory) == {"a": "1"}
    replace_directory(directory, lambda new: _write({"a": "3"}, new))
    assert _contents(tmp_path) == {"last/a": "3"}


def test_replacing_a_directory_again_after_a_crash_recovers_the_old_one_first(
    tmp_path: Path,
) -> None:
    # What a crash between the two renames leaves behind.
    (tmp_path / ".last.old").mkdir()
    (tmp_path / ".last.old" / "a").write_text("1")
    directory = tmp_path / "last"

    def fail(new: Path) -> None:
        raise OSError

    with suppress(OSError):
        replace_directory(directory, fail)
    assert _contents(directory) == {"a": "1"}


def test_recovering_leaves_a_complete_directory_alone(tmp_path: Path) -> None:
    directory = tmp_path / "last"
    assert not recover_directory(directory)
    replace_directory(directory, lambda new: _write({"a": "2"}, new))
    (tmp_path / ".last.old").mkdir()
    assert recover_directory(directory)
    assert _contents(directory) == {"a": "2"}


def _private(path: Path) -> None:
    """Write a file that its owner alone may read, as safetensors does."""
    path.write_text("weights")
    path.chmod(0o600)


@pytest.fixture
def umask() -> Iterator[int]:
    """Set the umask to one that lets the group write."""
    old = os.umask(0o002)
    yield 0o664
    os.umask(old)


def test_files_have_the_permissions_of_the_umask_whatever_a_library_sets(
    tmp_path: Path, umask: int
) -> None:
    with replacing(tmp_path / "a") as part:
        _private(part)
    replace_directory(tmp_path / "adapter", lambda new: _private(new / "b"))
    for file in (tmp_path / "a", tmp_path / "adapter" / "b"):
        assert file.stat().st_mode & 0o777 == umask


def test_a_replaced_file_keeps_its_permissions(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")
    (tmp_path / "a").chmod(0o640)
    with replacing(tmp_path / "a") as part:
        part.write_text("new")
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640


def test_the_directory_before_is_kept_where_that_is_wanted(tmp_path: Path) -> None:
    last, previous = tmp_path / "last", tmp_path / "previous"
    for text in "123":
        write = partial(_write, {"a": text})
        replace_directory(last, write, previous=previous)
    assert _contents(tmp_path) == {"last/a": "3", "previous/a": "2"}


def test_what_killed_processes_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    for name in (".last.new", ".last.old", "last", ".hidden"):
        (tmp_path / name).mkdir()
    for name in (".record.json.0a1b.part", "record.json", ".lock", "a.part"):
        (tmp_path / name).touch()
    remove_leftovers(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        *("last", ".hidden", "record.json", ".lock", "a.part")
    }


def test_the_temporary_file_of_a_killed_process_is_removed_and_that_of_a_living_one_is_not(
    tmp_path: Path,
) -> None:
    path = tmp_path / "a[1].txt"
    abandoned, other = (tmp_path / f".{name}.0a1b2c3d4e5f.part" for name in ("a[1].txt", "b.txt"))
    abandoned.touch()
    other.touch()
    with replacing(path) as first:
        assert not abandoned.exists()
        with replacing(path) as second:
            assert first.exists()
            second.write_text("second")
        first.write_text("first")
    assert _contents(tmp_path) == {path.name: "first", other.name: ""}


_LEFT_BEHIND = (".partial-0a1b", ".states.npy.0a1b.part", "tmp0a1b")


def _leave_behind(cache: Path) -> None:
    (cache / ".partial-0a1b").mkdir(parents=True, exist_ok=True)
    (cache / ".partial-0a1b" / "rows.arrow").touch()
    for name in _LEFT_BEHIND[1:]:
        (cache / name).touch()


def test_what_killed_processes_left_in_a_cache_is_removed(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    _leave_behind(cache)
    (cache / "entry").mkdir()
    with building_in(cache):
        assert {path.name for path in cache.iterdir()} == {"entry"}


def test_nothing_is_removed_while_another_builds_in_the_cache(tmp_path: Path) -> None:
    with building_in(tmp_path):
        _leave_behind(tmp_path)
        with building_in(tmp_path):
            assert {*_LEFT_BEHIND} == {path.name for path in tmp_path.iterdir()}
    with building_in(tmp_path):
        assert not list(tmp_path.iterdir())


def test_an_error_of_the_system_that_a_library_wraps_is_one_again(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file or directory") as caught, system_errors():
        save_file({"a": np.zeros(1)}, tmp_path / "missing" / "a.safetensors")
    assert caught.value.errno == errno.ENOENT
    with pytest.raises(ValueError, match="no system"), system_errors():
        raise ValueError("no system")


def test_a_files_hash_is_its_sha_256(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert hash_file(tmp_path / "a") == hashlib.sha256(b"abc").hexdigest()


def test_a_signal_right_after_the_temporary_file_exists_leaves_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = os.open

    def interrupted(*arguments: Any, **options: Any) -> int:
        os.close(opened(*arguments, **options))
        raise KeyboardInterrupt

    monkeypatch.setattr("pennyweight.files.os.open", interrupted)
    with pytest.raises(KeyboardInterrupt), replacing(tmp_path / "out.csv"):
        pass
    monkeypatch.undo()
    assert not list(tmp_path.iterdir())
