"""Resuming: a run that was interrupted ends like one that never was."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pennyweight.errors import RunError
from pennyweight.recipe import Recipe
from pennyweight.runs import writer
from pennyweight.runs.record import Best, RunRecord, load_record, save_record
from pennyweight.training import active_run
from pennyweight.training import train as module
from pennyweight.training.train import train
from pennyweight.training.watcher import Watcher
from tiny import news, tiny_recipe, write_news
from training.outcomes import interrupt_at, losses, weights_are_equal

Reference = tuple[Recipe, Path, RunRecord]


@pytest.fixture(scope="module")
def unbroken(bert: Path, sets: Path, tmp_path_factory: pytest.TempPathFactory) -> Reference:
    """A run of six steps with an evaluation after every second one."""
    # Dropout is on: what it drops must not depend on the interruption either.
    recipe = tiny_recipe(bert, sets, train={"evaluate_every": 2}, adapter={"dropout": 0.1})
    out = tmp_path_factory.mktemp("unbroken") / "run"
    return recipe, out, train(recipe, out=out)


def _interrupt(recipe: Recipe, out: Path, step: int) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(recipe, out=out, watcher=interrupt_at(step))


def _with_train_keys(recipe: Recipe, **keys: object) -> Recipe:
    return recipe.model_copy(update={"train": recipe.train.model_copy(update=keys)})


def _assert_equal(run: Path, record: RunRecord, unbroken: Reference) -> None:
    _, reference, expected = unbroken
    for artifact in ("checkpoints/last", "adapter"):
        assert weights_are_equal(run / artifact, reference / artifact)
    assert [step.step for step in record.history] == [1, 2, 3, 4, 5, 6]
    assert losses(record) == losses(expected)
    assert record.metrics == expected.metrics
    assert record.best == expected.best
    assert (record.status, record.failure) == ("complete", None)


@pytest.mark.parametrize("interrupted_at", [1, 2, 5, 6])
def test_a_resumed_run_ends_with_the_weights_of_one_never_interrupted(
    unbroken: Reference, tmp_path: Path, interrupted_at: int
) -> None:
    recipe, out = unbroken[0], tmp_path / "run"
    _interrupt(recipe, out, interrupted_at)
    assert load_record(out).status == "interrupted"
    lines: list[str] = []
    record = train(recipe, out=out, resume=True, watcher=Watcher(log=lines.append))
    assert ("resumed after step 4" in lines) == (interrupted_at > 2)
    begins_again = "no checkpoint was written before the interruption: training begins again"
    assert (begins_again in lines) == (interrupted_at <= 2)
    _assert_equal(out, record, unbroken)


def test_a_run_without_a_checkpoint_holds_every_step_once_after_it_is_resumed(
    unbroken: Reference, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The record is saved at every step, so the interrupted run has a history but no checkpoint.
    monkeypatch.setattr(writer, "_SECONDS_BETWEEN_SAVES", 0.0)
    recipe, out = _with_train_keys(unbroken[0], evaluate_every="epoch"), tmp_path / "run"
    _interrupt(recipe, out, 4)
    assert [step.step for step in load_record(out).history] == [1, 2, 3]
    assert not (out / "checkpoints").exists()
    record = train(recipe, out=out, resume=True)
    assert [step.step for step in record.history] == [1, 2, 3, 4, 5, 6]


def test_seconds_and_peak_memory_of_a_resumed_run_include_what_came_before(
    unbroken: Reference, tmp_path: Path
) -> None:
    recipe, out = unbroken[0], tmp_path / "run"
    _interrupt(recipe, out, 5)
    interrupted = load_record(out)
    assert interrupted.seconds > 0
    # As if the first part had been on a larger machine, and long.
    before = interrupted.with_changes(seconds=1000.0, peak_memory_bytes=10**15)
    save_record(out, before)
    record = train(recipe, out=out, resume=True)
    assert 1000.0 < record.seconds < 1000.0 + 600.0
    assert record.peak_memory_bytes == 10**15
    assert record.started == before.started


def test_a_run_can_be_interrupted_and_resumed_repeatedly(
    unbroken: Reference, tmp_path: Path
) -> None:
    recipe, out = unbroken[0], tmp_path / "run"
    _interrupt(recipe, out, 3)
    with pytest.raises(KeyboardInterrupt):
        train(recipe, out=out, resume=True, watcher=interrupt_at(5))
    _assert_equal(out, train(recipe, out=out, resume=True), unbroken)


@pytest.mark.parametrize("directory", ["adapter", "last"])
def test_a_crash_between_the_two_renames_of_a_directory_loses_no_checkpoint(
    unbroken: Reference, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, directory: str
) -> None:
    recipe, out = unbroken[0], tmp_path / "run"
    rename, renamed = Path.rename, []

    def crash_at_the_second_save(self: Path, target: Path) -> Path:
        if self.name == f".{directory}.new":
            renamed.append(self)
            if len(renamed) == 2:
                raise KeyboardInterrupt
        return rename(self, target)

    # The likelihood improves at every evaluation, so that the adapter is replaced each time.
    recipe = _with_train_keys(recipe, keep_best="nll")
    unbroken = (recipe, tmp_path / "unbroken", train(recipe, out=tmp_path / "unbroken"))
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", crash_at_the_second_save)
        with pytest.raises(KeyboardInterrupt):
            train(recipe, out=out)
    lost = out / "adapter" if directory == "adapter" else out / "checkpoints" / "last"
    assert not lost.exists()
    lines: list[str] = []
    record = train(recipe, out=out, resume=True, watcher=Watcher(log=lines.append))
    assert "resumed after step 2" in lines
    _assert_equal(out, record, unbroken)


def test_a_run_interrupted_after_its_last_step_is_finished_by_resuming(
    bert: Path, sets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, out = tiny_recipe(bert, sets, train={"max_steps": 2}), tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(module, "evaluate_finally", _raise(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            train(recipe, out=out)
    best = load_record(out).best
    assert best is not None
    assert best.step == 2
    record = train(recipe, out=out, resume=True)
    assert (record.status, record.best) == ("complete", best)
    assert len(record.history) == 2


def _raise(error: BaseException) -> Callable[..., Any]:
    def function(*_: object, **__: object) -> None:
        raise error

    return function


def test_a_run_is_not_resumed_with_another_recipe(bert: Path, sets: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    _interrupt(tiny_recipe(bert, sets), out, 1)
    other = tiny_recipe(bert, sets, optimizer={"learning_rate": 0.02}, train={"epochs": 2})
    with pytest.raises(
        RunError,
        match=r"differs from the one this run was begun with, "
        r"in optimizer\.learning_rate, train\.epochs;",
    ):
        train(other, out=out, resume=True)
    assert load_record(out).status == "interrupted"


def test_a_run_is_not_resumed_on_changed_rows(
    bert: Path, sets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, out = shutil.copytree(sets, tmp_path / "sets"), tmp_path / "run"
    recipe = tiny_recipe(bert, folder, train={"evaluate_every": 2})
    _interrupt(recipe, out, 4)
    before = load_record(out)
    write_news(folder / "train.csv", news(48, seed=99))
    with pytest.raises(RunError) as caught:
        train(recipe, out=out, resume=True)
    message = str(caught.value)
    assert f"the rows of train ({folder / 'train.csv'}) have changed since" in message
    assert "\n" not in message
    assert load_record(out) == before
    # A run that is resumed and killed at once remembers what it was begun with.
    with monkeypatch.context() as patch:
        patch.setattr(active_run, "_record_splits", _raise(KeyboardInterrupt()))
        shutil.copy(sets / "train.csv", folder)
        with pytest.raises(KeyboardInterrupt):
            train(recipe, out=out, resume=True)
    write_news(folder / "train.csv", news(48, seed=99))
    with pytest.raises(RunError, match="have changed since"):
        train(recipe, out=out, resume=True)
    # With the rows restored, the run goes on.
    shutil.copy(sets / "train.csv", folder)
    assert train(recipe, out=out, resume=True).status == "complete"


def _flip_a_bit(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def _truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:100])


@pytest.mark.parametrize("damage", [_flip_a_bit, _truncate, Path.unlink])
@pytest.mark.parametrize("name", ["adapter_model.safetensors", "training_state.pt"])
def test_a_damaged_checkpoint_is_replaced_by_the_one_before(
    unbroken: Reference, tmp_path: Path, damage: Callable[[Path], None], name: str
) -> None:
    recipe, out = unbroken[0], tmp_path / "run"
    _interrupt(recipe, out, 5)
    file = out / "checkpoints" / "last" / name
    damage(file)
    lines: list[str] = []
    record = train(recipe, out=out, resume=True, watcher=Watcher(log=lines.append))
    (warning,) = [line for line in lines if line.startswith(f"warning: {file}: ")]
    assert warning.endswith("; the checkpoint before it is used")
    assert "resumed after step 2" in lines
    _assert_equal(out, record, unbroken)


def test_a_damaged_checkpoint_with_none_before_it_is_an_error_that_says_how_to_go_on(
    bert: Path, sets: Path, tmp_path: Path
) -> None:
    recipe, out = tiny_recipe(bert, sets, train={"evaluate_every": 1}), tmp_path / "run"
    _interrupt(recipe, out, 2)
    file = out / "checkpoints" / "last" / "training_state.pt"
    file.write_bytes(b"no")
    with pytest.raises(RunError) as caught:
        train(recipe, out=out, resume=True)
    assert str(caught.value) == (
        f"{file}: damaged: its SHA-256 differs from the one in manifest.json; there is no "
        "checkpoint before it; to train this run from the beginning, delete "
        f"{out / 'checkpoints'}"
    )


def test_a_checkpoint_of_an_older_version_without_a_manifest_is_read(
    unbroken: Reference, tmp_path: Path
) -> None:
    recipe, out = unbroken[0], tmp_path / "run"
    _interrupt(recipe, out, 5)
    (out / "checkpoints" / "last" / "manifest.json").unlink()
    _assert_equal(out, train(recipe, out=out, resume=True), unbroken)


def test_a_best_that_was_not_recorded_before_a_kill_is_that_of_the_checkpoint(
    unbroken: Reference, tmp_path: Path
) -> None:
    recipe, out = unbroken[0], tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        train(recipe, out=out, watcher=interrupt_at(5))
    # As if the process had been killed after the first checkpoint was written.
    stale = Best(step=1, metric="accuracy", value=0.0)
    save_record(out, load_record(out).with_changes(best=stale))
    with pytest.raises(KeyboardInterrupt):
        train(recipe, out=out, resume=True, watcher=interrupt_at(5))
    resumed = load_record(out).best
    assert resumed is not None
    assert resumed.step in (2, 4)


@pytest.mark.parametrize("half_renamed", [False, True])
def test_a_run_of_a_method_that_cannot_be_resumed_is_refused(
    bert: Path, sets: Path, tmp_path: Path, half_renamed: bool
) -> None:
    adapter = {"method": "adalora", "rank": 2, "target_rank": 1}
    adapter |= {"start_steps": 1, "final_steps": 1, "every": 1}
    recipe = tiny_recipe(bert, sets, adapter=adapter, train={"evaluate_every": 2})
    out = tmp_path / "run"
    _interrupt(recipe, out, 5)
    if half_renamed:
        # As a crash between the two renames of the checkpoint leaves it.
        (out / "checkpoints" / "last").rename(out / "checkpoints" / ".last.old")
    with pytest.raises(RunError, match="the run cannot be resumed, because"):
        train(recipe, out=out, resume=True)
