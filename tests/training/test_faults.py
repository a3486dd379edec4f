"""Faults of the machine during a run, injected for real: one line each, and nothing is lost."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from command_server import Command, CommandServer, Ended
from pennyweight.recipe import dump_recipe
from pennyweight.runs.record import load_record
from tiny import news, tiny_recipe, write_news
from training.outcomes import losses, weights_are_equal


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CommandServer]:
    server = CommandServer(tmp_path_factory.mktemp("logs"), cache=tmp_path_factory.mktemp("cache"))
    yield server
    server.close()


@pytest.fixture(scope="module")
def folder(
    bert: Path, sets: Path, server: CommandServer, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Return a folder with recipe.toml, of 24 steps, and `whole`, its unbroken run."""
    folder = tmp_path_factory.mktemp("faults")
    recipe = tiny_recipe(
        bert,
        sets,
        adapter={"dropout": 0.1},
        # By the likelihood the best adapter is replaced more often.
        train={"evaluate_every": 2, "epochs": 4, "keep_best": "nll"},
    )
    (folder / "recipe.toml").write_text(dump_recipe(recipe), encoding="utf-8")
    ended = server.run("train", "recipe.toml", "--out", "whole", cwd=folder)
    assert ended.code == 0, ended.output
    return folder


@pytest.fixture
def run(folder: Path, tmp_path: Path) -> Path:
    return tmp_path / "run"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """Return a small disk of its own; needs the right to mount one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this user may not mount a small disk")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def _start(server: CommandServer, folder: Path, run: Path, *more: str, **options: str) -> Command:
    return server.start("train", "recipe.toml", "--out", run, *more, cwd=folder, **options)


def _assert_resumes(server: CommandServer, folder: Path, run: Path) -> Ended:
    ended = server.run("train", run, "--out", run, "--resume", cwd=folder)
    assert ended.code == 0, ended.output
    assert weights_are_equal(run / "adapter", folder / "whole" / "adapter")
    record, whole = load_record(run), load_record(folder / "whole")
    assert losses(record) == losses(whole)
    assert (record.metrics, record.best) == (whole.metrics, whole.best)
    return ended


@contextmanager
def _paused(command: Command) -> Iterator[None]:
    command.signal(signal.SIGSTOP)
    yield
    command.signal(signal.SIGCONT)


def _assert_one_line(ended: Ended, *parts: str) -> None:
    assert ended.code == 2, ended.output
    assert "Traceback" not in ended.output
    assert ended.last_line.startswith("pennyweight: ")
    for part in parts:
        assert part in ended.last_line


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_saves_the_run_and_says_how_to_continue(
    name: str, server: CommandServer, folder: Path, run: Path
) -> None:
    number = getattr(signal, name)
    command = _start(server, folder, run)
    command.wait_for("step 5/")
    command.signal(number)
    ended = command.wait()
    assert ended.code == 128 + number
    assert "Traceback" not in ended.output
    assert f"; continue with: pennyweight train {run} --out {run} --resume" in ended.output
    record = load_record(run)
    assert record.status == "interrupted"
    if name != "SIGINT":
        assert record.failure == f"stopped by {name}"
    resumed = _assert_resumes(server, folder, run)
    assert "resumed after step " in resumed.output


_TERMINAL = """
import fcntl, os, termios, threading
main, side = os.openpty()
os.setsid()
fcntl.ioctl(side, termios.TIOCSCTTY, 0)
os.dup2(side, 1), os.dup2(side, 2), os.close(side)
def close_after_some_steps():
    shown = b""
    while b"/24" not in shown:
        shown += os.read(main, 4096)
    os.close(main)
threading.Thread(target=close_after_some_steps, daemon=True).start()
"""


def test_a_terminal_that_is_closed_saves_the_run(
    server: CommandServer, folder: Path, run: Path
) -> None:
    ended = _start(server, folder, run, prelude=_TERMINAL).wait()
    assert ended.code == 128 + signal.SIGHUP
    record = load_record(run)
    assert (record.status, record.failure) == ("interrupted", "stopped by SIGHUP")
    _assert_resumes(server, folder, run)


def test_nohup_lets_a_run_go_on(server: CommandServer, folder: Path, run: Path) -> None:
    prelude = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)"
    command = _start(server, folder, run, prelude=prelude)
    command.wait_for("step 5/")
    command.signal(signal.SIGHUP)
    assert command.wait().code == 0
    assert load_record(run).status == "complete"


def test_a_signal_before_the_first_step_is_one_line(
    server: CommandServer, folder: Path, run: Path
) -> None:
    command = _start(server, folder, run)
    command.wait_for("device:")
    command.signal(signal.SIGTERM)
    ended = command.wait()
    assert ended.code == 128 + signal.SIGTERM
    assert ended.last_line == "pennyweight: stopped by SIGTERM"
    assert "Traceback" not in ended.output


def _fill(disk: Path) -> Path:
    """Leave no byte free on a disk; return the file that fills it."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (1 << 16, 1 << 10):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue
    return filler


def test_a_full_disk_is_one_line_and_the_run_continues_once_there_is_space(
    server: CommandServer, folder: Path, disk: Path
) -> None:
    command = _start(server, folder, disk / "run")
    command.wait_for("step 5/")
    with _paused(command):
        filler = _fill(disk)
    ended = command.wait()
    _assert_one_line(ended, "No space left on device", "continue with: pennyweight train")
    filler.unlink()
    _assert_resumes(server, folder, disk / "run")


def test_a_directory_that_becomes_read_only_is_one_line(
    server: CommandServer, folder: Path, disk: Path
) -> None:
    command = _start(server, folder, disk / "run")
    command.wait_for("step 5/")
    checkpoints = str(disk / "run" / "checkpoints")
    with _paused(command):
        for mount in (["--bind", checkpoints], ["-o", "remount,ro,bind"]):
            subprocess.run(["mount", *mount, checkpoints], check=True)
    ended = command.wait()
    subprocess.run(["umount", checkpoints], check=True)
    _assert_one_line(ended, "Read-only file system", "continue with: pennyweight train")
    _assert_resumes(server, folder, disk / "run")


def test_a_read_only_directory_is_named(server: CommandServer, folder: Path, disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    ended = server.run("train", "recipe.toml", "--out", disk / "run", cwd=folder)
    _assert_one_line(ended, f"--out {disk / 'run'}: cannot be created: Read-only file system")


def test_a_cache_on_a_full_disk_is_one_line(
    server: CommandServer, folder: Path, run: Path, disk: Path
) -> None:
    filler = _fill(disk)
    ended = _start(server, folder, run, cache=disk / "cache").wait()
    _assert_one_line(ended, "No space left on device")
    filler.unlink()


def test_a_loss_that_is_not_finite_is_one_line(
    server: CommandServer, folder: Path, run: Path
) -> None:
    more = ("--set", "optimizer.learning_rate=1e38", "--set", "train.max_gradient_norm=off")
    ended = _start(server, folder, run, *more).wait()
    _assert_one_line(ended, "optimizer.learning_rate")
    record = load_record(run)
    assert record.status == "failed"
    assert record.failure == ended.last_line.removeprefix("pennyweight: ")


# More than what the process has at the first step by so much.
_MEMORY = """
import resource
import pennyweight.engine.train.step as module
take = module.OptimizerStep._accumulate
def limited(self, *arguments):
    size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + (16 << 20), resource.RLIM_INFINITY))
    try:
        return take(self, *arguments)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY,) * 2)
module.OptimizerStep._accumulate = limited
"""


def test_a_step_without_enough_memory_names_its_batch(
    server: CommandServer, folder: Path, run: Path, tmp_path: Path
) -> None:
    write_news(tmp_path / "train.csv", news(2000, seed=5))
    more = ["--data", str(tmp_path / "train.csv"), "--set", "train.batch_rows=2000"]
    more += ["--set", "train.batch_tokens=100000", "--set", "data.overlap=keep"]
    ended = _start(server, folder, run, *more, prelude=_MEMORY).wait()
    _assert_one_line(ended, "out of memory: step 1: a batch of 2000 rows", "train.batch_tokens")
    assert load_record(run).status == "failed"


_CLOCK = """
import itertools, time
now, jumps = time.time, itertools.cycle((0, -86400 * 365, 3600))
time.time = lambda: now() + next(jumps)
"""


def test_a_clock_that_jumps_changes_nothing(server: CommandServer, folder: Path, run: Path) -> None:
    command = _start(server, folder, run, prelude=_CLOCK)
    command.wait_for("step 5/")
    command.signal(signal.SIGKILL)
    assert command.wait().code == -signal.SIGKILL
    _assert_resumes(server, folder, run)
    assert 0.0 < load_record(run).seconds < 600.0


_KILLED_BEFORE = """
import os, signal
import pennyweight.training.active_run as module
import pennyweight.runs.writer as writer
def kill(*_): os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("name", ["writer.save_record", "module.write_text"])
def test_a_run_that_is_killed_before_its_record_or_its_recipe_can_be_resumed_and_started_over(
    name: str, server: CommandServer, folder: Path, run: Path
) -> None:
    prelude = f"{_KILLED_BEFORE}\n{name} = kill"
    for arguments in ((), ("--resume",)):
        ended = _start(server, folder, run, prelude=prelude).wait()
        assert ended.code == -signal.SIGKILL
        again = server.run("train", "recipe.toml", "--out", run, *arguments, cwd=folder)
        assert again.code == 0, again.output
        assert weights_are_equal(run / "adapter", folder / "whole" / "adapter")
        subprocess.run(["rm", "-r", str(run)], check=True)


_KILLED_AROUND = """
import os, signal
from pennyweight.training.saving import StepSaver
original = StepSaver.{name}
def killed(self, *arguments):
    if self.fit.progress.step == 6 and not {after}: os.kill(os.getpid(), signal.SIGKILL)
    original(self, *arguments)
    if self.fit.progress.step == 6: os.kill(os.getpid(), signal.SIGKILL)
StepSaver.{name} = killed
"""


@pytest.mark.parametrize("name", ["_keep_best", "_record_best", "_keep_checkpoint"])
@pytest.mark.parametrize("after", [False, True])
def test_a_run_that_is_killed_between_any_two_of_its_files_loses_nothing(
    name: str, after: bool, server: CommandServer, folder: Path, run: Path
) -> None:
    prelude = _KILLED_AROUND.format(name=name, after=after)
    ended = _start(server, folder, run, prelude=prelude).wait()
    assert ended.code == -signal.SIGKILL
    _assert_resumes(server, folder, run)


def test_a_run_without_its_recipe_is_resumed_by_the_one_in_its_record(
    server: CommandServer, folder: Path, run: Path
) -> None:
    _start(server, folder, run, prelude=f"{_KILLED_BEFORE}\nmodule.write_text = kill").wait()
    assert {file.name for file in run.iterdir()} == {".lock", "record.json"}
    _assert_resumes(server, folder, run)
    assert (run / "recipe.toml").read_text() == (folder / "whole" / "recipe.toml").read_text()


def test_of_two_processes_on_one_run_one_is_refused_and_the_other_unharmed(
    server: CommandServer, folder: Path, run: Path
) -> None:
    command = _start(server, folder, run)
    command.wait_for("step 2/")
    second = server.run("train", "recipe.toml", "--out", run, cwd=folder)
    _assert_one_line(second, f"process {command.pid} is training this run")
    assert command.wait().code == 0
    assert weights_are_equal(run / "adapter", folder / "whole" / "adapter")


def test_a_command_other_than_train_leaves_nothing_behind_when_it_is_stopped(
    server: CommandServer, folder: Path, tmp_path: Path
) -> None:
    write_news(tmp_path / "rows.csv", news(1500, seed=8))
    out = tmp_path / "answers.csv"
    command = server.start(
        *("predict", "whole", "--data", tmp_path / "rows.csv", "--out", out), cwd=folder
    )
    while not list(tmp_path.glob(".answers.csv.*.part")) and not out.exists():
        command.wait_for("", seconds=0.01)
    command.signal(signal.SIGTERM)
    ended = command.wait()
    assert ended.code in (0, 128 + signal.SIGTERM)
    assert not list(tmp_path.glob(".*.part"))


def test_a_killed_prediction_goes_on_and_gives_the_same_files(
    folder: Path, server: CommandServer, tmp_path: Path
) -> None:
    write_news(tmp_path / "rows.csv", news(1500, seed=31))
    command = ("predict", folder / "whole", "--data", "rows.csv", "--rows-per-part", "100")
    assert server.run(*command, "--out", "unbroken/", cwd=tmp_path).code == 0
    out = tmp_path / "out"
    for number in (signal.SIGKILL, signal.SIGTERM):
        parts = len(list(out.glob("*.csv")))
        running = server.start(*command, "--out", "out/", cwd=tmp_path)
        while len(list(out.glob("*.csv"))) < parts + 3 and "rows in" not in running.log.read_text():
            time.sleep(0.005)
        running.signal(number)
        ended = running.wait()
        assert ended.code in (-number, 128 + number)
    assert ended.last_line == (
        "pennyweight: stopped by SIGTERM; what is done is in out/, and the same command continues"
    )
    ended = server.run(*command, "--out", "out/", cwd=tmp_path)
    assert ended.last_line.startswith("1,500 rows in 15 files in out/ (")
    for path in (tmp_path / "unbroken").glob("*.csv"):
        assert (out / path.name).read_bytes() == path.read_bytes()
    assert len(list(out.glob(".*.part"))) == 0
