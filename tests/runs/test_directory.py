"""The directory of a run: its lock, and the hashes of the artifact in it."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from pennyweight.errors import RunError
from pennyweight.runs.directory import RunDirectory, hash_artifact, lock_run, verify_artifact
from pennyweight.runs.record import save_record
from runs.locking import another_process_trains
from runs.records import example_record


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "adapter_model.safetensors").write_bytes(b"weights")
    (folder / "pennyweight.json").write_text("{}")
    return folder


def test_a_directory_is_unused_until_something_besides_the_lock_is_in_it(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path / "run")
    assert directory.is_unused()
    with lock_run(directory):
        assert directory.is_unused()
    assert directory.path.is_dir()
    assert directory.is_unused()
    directory.recipe.write_text("")
    assert not directory.is_unused()


def test_a_file_is_no_unused_directory(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert not RunDirectory(tmp_path / "file").is_unused()


def test_a_locked_run_is_refused_with_the_id_of_the_process(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with another_process_trains(run) as process:
        save_record(run, example_record(status="running", process_id=process.pid))
        with pytest.raises(RunError) as caught, lock_run(RunDirectory(run)):
            pytest.fail("the lock was taken twice")
        assert str(caught.value) == (
            f"{run}: process {process.pid} is training this run; wait until it ends, or stop it"
        )


def test_a_locked_directory_without_a_record_is_refused_too(tmp_path: Path) -> None:
    with (
        another_process_trains(tmp_path / "run"),
        pytest.raises(RunError, match="another process is training this run"),
        lock_run(RunDirectory(tmp_path / "run")),
    ):
        pytest.fail("the lock was taken twice")


def test_an_owner_that_no_longer_runs_is_not_named(tmp_path: Path) -> None:
    # The lock is taken, and the new owner has not yet written the record.
    with another_process_trains(tmp_path / "run"):
        save_record(tmp_path / "run", example_record(status="running", process_id=2**22 + 1))
        with (
            pytest.raises(RunError, match="another process is training this run"),
            lock_run(RunDirectory(tmp_path / "run")),
        ):
            pytest.fail("the lock was taken twice")


def test_what_a_process_leaves_that_is_killed_before_the_record_counts_as_nothing(
    tmp_path: Path,
) -> None:
    for name in (".lock", ".record.json.0a1b2c3d4e5f.part"):
        (tmp_path / name).touch()
    assert RunDirectory(tmp_path).is_unused()
    (tmp_path / "notes.txt").touch()
    assert not RunDirectory(tmp_path).is_unused()


def test_the_lock_of_a_killed_process_does_not_matter(tmp_path: Path) -> None:
    with another_process_trains(tmp_path / "run") as process:
        process.kill()
        process.wait()
    assert (tmp_path / "run" / ".lock").is_file()
    with lock_run(RunDirectory(tmp_path / "run")):
        pass


def test_the_lock_is_released_after_an_error(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path / "run")
    with pytest.raises(ZeroDivisionError), lock_run(directory):
        raise ZeroDivisionError
    with lock_run(directory):
        pass


def test_a_directory_that_cannot_be_created_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(RunError, match=r"--out .*/file/run: cannot be created: "),
        lock_run(RunDirectory(tmp_path / "file" / "run")),
    ):
        pytest.fail("there is no such directory")


def test_every_file_of_an_artifact_is_hashed(artifact: Path) -> None:
    (artifact / "folder").mkdir()
    record = hash_artifact(artifact)
    assert record.directory == "adapter"
    assert record.files == {
        "adapter_model.safetensors": hashlib.sha256(b"weights").hexdigest(),
        "pennyweight.json": hashlib.sha256(b"{}").hexdigest(),
    }


def test_an_unchanged_artifact_is_accepted(artifact: Path, tmp_path: Path) -> None:
    record = example_record(artifact=hash_artifact(artifact))
    verify_artifact(tmp_path, record, artifact)
    # Files that were added later, such as an export, are none of its business.
    (artifact / "README.md").write_text("added by hand")
    verify_artifact(tmp_path, record, artifact)


def test_a_changed_byte_is_refused_by_the_name_of_its_file(artifact: Path, tmp_path: Path) -> None:
    record = example_record(artifact=hash_artifact(artifact))
    (artifact / "adapter_model.safetensors").write_bytes(b"weighty")
    with pytest.raises(RunError) as caught:
        verify_artifact(tmp_path, record, artifact)
    assert str(caught.value).startswith(f"{artifact / 'adapter_model.safetensors'}: its SHA-256")
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_refused_by_its_name(artifact: Path, tmp_path: Path) -> None:
    record = example_record(artifact=hash_artifact(artifact))
    (artifact / "pennyweight.json").unlink()
    with pytest.raises(RunError, match=r"pennyweight\.json: missing, though .*record\.json"):
        verify_artifact(tmp_path, record, artifact)


def test_an_artifact_without_recorded_hashes_is_not_checked(artifact: Path, tmp_path: Path) -> None:
    verify_artifact(tmp_path, example_record(artifact=None), artifact)
