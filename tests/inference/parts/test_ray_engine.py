"""Predicting on Ray: the plan of resources, and a real cluster whose workers are killed."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from fake_ray import FakeRay
from pennyweight.errors import DataError, RunError
from pennyweight.inference.parts import ray_engine
from pennyweight.inference.parts.predict_files import PartOptions, predict_files
from pennyweight.inference.parts.ray_engine import predict_on_ray
from tiny import news, write_news


class Worker:
    """Stands for the worker that loads the run."""

    def __init__(self, job: Any, cores: int) -> None:
        self.cores = cores

    def node(self) -> str:
        return "node"

    def predict(self, part: Any) -> Any:
        return part


def part(number: int) -> Any:
    file, start = SimpleNamespace(location="rows.csv"), SimpleNamespace(row=5)
    return SimpleNamespace(path=f"part-{number}", file=file, start=start)


def computed(
    ray: FakeRay, monkeypatch: pytest.MonkeyPatch, *, parts: int = 6, workers: int | None = None
) -> list[str]:
    """Return the parts that were reported, in this order."""
    done: list[str] = []

    monkeypatch.setattr(ray_engine, "connected_ray", lambda: nullcontext(ray))
    monkeypatch.setattr(ray_engine, "_Actor", Worker)
    job: Any = None
    predict_on_ray(
        job,
        iter([part(number) for number in range(parts)]),
        done=lambda each: done.append(each.path),
        workers=workers,
        log=lambda _: None,
    )
    return done


@pytest.mark.parametrize(
    ("nodes", "workers", "expected"),
    [
        ([{"CPU": 8}, {"CPU": 4}, {}], None, (2, 4, 0)),
        ([{"CPU": 8, "GPU": 2}, {"CPU": 8, "GPU": 1}], None, (3, 4, 1)),
        ([{"CPU": 8, "GPU": 2}], 4, (2, 4, 1)),
        ([{"CPU": 2}], 2, (2, 1, 0)),
        ([{"CPU": 2}], 5, (2, 1, 0)),
        ([{"CPU": 1}, {"CPU": 16}], 4, (4, 1, 0)),
    ],
)
def test_a_cluster_is_shared_out_among_workers(
    nodes: list[dict[str, float]],
    workers: int | None,
    expected: tuple[int, int, int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ray = FakeRay(*nodes)
    computed(ray, monkeypatch, workers=workers)
    options = ray.options[0]
    assert (len(ray.options), options["num_cpus"], options["num_gpus"]) == expected
    assert sorted(ray.killed) == list(range(expected[0]))


def test_the_part_of_a_lost_worker_is_computed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = FakeRay(
        {"CPU": 1},
        {"CPU": 1},
        is_lost=lambda method, worker, *_: method == "predict" and not worker,
    )
    done = computed(ray, monkeypatch)
    assert sorted(done) == [f"part-{number}" for number in range(6)]


def test_a_part_that_ends_every_worker_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = FakeRay({"CPU": 1}, is_lost=lambda method, *_: method == "predict")
    with pytest.raises(
        RunError,
        match=r"^rows.csv: the part from row 6 on has ended 4 Ray workers .* Its node died$",
    ):
        computed(ray, monkeypatch)


def test_impossible_workers_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RunError, match="--workers 0: give a whole number from 1"):
        computed(FakeRay({"CPU": 1}), monkeypatch, workers=0)
    with pytest.raises(RunError, match="the Ray cluster has no machine with a core"):
        computed(FakeRay({"GPU": 1}), monkeypatch)


def _kill_a_worker(out: Path, killed: list[int]) -> None:
    """Kill one of the actors as soon as a part is done."""
    while not list(out.glob("[!.]*.csv")):
        time.sleep(0.05)
    for process in psutil.Process().children(recursive=True):
        if process.cmdline()[:1] == ["ray::_Actor.predict"]:
            os.kill(process.pid, signal.SIGKILL)
            killed.append(process.pid)
            return


@pytest.mark.slow
def test_a_real_cluster_does_each_part_once_though_a_worker_is_killed(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    data = write_news(tmp_path / "rows.csv", news(3000, seed=41))
    one, out = tmp_path / "one", tmp_path / "out"
    predict_files(run, str(data), out=str(one), options=PartOptions(rows_per_part=100))
    killed: list[int] = []
    killer = threading.Thread(target=_kill_a_worker, args=(out, killed), daemon=True)
    killer.start()
    lines: list[str] = []
    options = PartOptions(rows_per_part=100, engine="ray", workers=2)
    counts = predict_files(run, str(data), out=str(out), options=options, log=lines.append)
    assert killed
    assert any(
        re.match(r"rows.csv.part-\S+: its Ray worker on \S+ was lost", line) for line in lines
    )
    assert (counts.predicted, counts.parts) == (3000, 30)
    for path in sorted(one.glob("*.csv")):
        assert (out / path.name).read_bytes() == path.read_bytes()


@pytest.mark.slow
def test_an_error_of_a_worker_is_that_of_one_process(run: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    data = tmp_path / "rows.csv"
    data.write_text("text\nthe goal\n,\n")
    options = PartOptions(engine="ray")
    with pytest.raises(DataError, match=r"rows.csv: row 2 \(line 3\): 2 columns instead of 1"):
        predict_files(run, str(data), out=str(tmp_path / "out"), options=options)
