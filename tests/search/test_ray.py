"""Searches and studies on Ray: simulated clusters whose processes are lost, and a real one."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from fake_ray import FakeRay
from pennyweight.cli.training_engine import EngineName, EngineOptions
from pennyweight.errors import RunError, TrainingError
from pennyweight.recipe import Recipe, dump_recipe
from pennyweight.recipe.study import load_study
from pennyweight.runs.record import RunRecord
from pennyweight.search import ray_engine, study_training, worker
from pennyweight.search.engines import LocalEngine, RayEngine
from pennyweight.search.ray_trainer import Trainer
from pennyweight.search.results import SearchResult
from pennyweight.search.search import run_search
from pennyweight.search.studies import run_study
from runs.records import example_recipe
from search.simulated import simulated_train
from search.simulated_job import RANGES
from tiny import tiny_recipe

ROOT = Path(__file__).parents[2]


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., FakeRay]]:
    """Return a function that simulates a cluster of nodes with one CPU each.

    The processes that train a trial are lost as often as it says, after their first evaluation.
    """

    def simulate(*, nodes: int = 2, losses: dict[str, int] | None = None) -> FakeRay:
        left, orders = Counter(losses or {}), dict[int, str]()

        def is_lost(method: str, worker: int, *arguments: Any) -> bool:
            if method == "begin":
                orders[worker] = arguments[0].name
            if method != "answer" or not left[orders[worker]]:
                return False
            left[orders[worker]] -= 1
            return True

        cluster = FakeRay(*[{"CPU": 1.0}] * nodes, is_lost=is_lost)
        monkeypatch.setattr(ray_engine, "connected_ray", lambda: nullcontext(cluster))
        return cluster

    # Restored afterwards: the trainers are in this process.
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    threads = torch.get_num_threads()
    yield simulate
    torch.set_num_threads(threads)


def _recipe(**options: Any) -> Recipe:
    values = {"trials": 8, "ranges": dict(RANGES), "pruning": "off", "sampler": "random", **options}
    data = {"task": "single-label", "validation": "validation.csv"}
    return example_recipe(data=data, adapter={"rank": 2}, search=values)


def _rows(result: SearchResult) -> list[Any]:
    return [replace(row, seconds=None) for row in result.rows]


def test_a_search_whose_processes_are_lost_has_the_trials_of_one_on_this_machine(
    simulated: Path, ray: Callable[..., FakeRay]
) -> None:
    local = run_search(_recipe(), out=simulated / "local")
    ray(losses={"trial-0000": 1, "trial-0003": 2})
    lines: list[str] = []
    spread = run_search(_recipe(), out=simulated / "ray", engine="ray", log=lines.append)
    assert _rows(spread) == _rows(local)
    assert spread.count("complete") == 8
    assert lines[0] == "waiting for 2 workers of 1 CPU each on the Ray cluster of 2 nodes"
    assert sum("was lost, and another one begins it again" in line for line in lines) == 3


def test_trials_are_pruned_by_the_process_that_has_the_database(
    simulated: Path, ray: Callable[..., FakeRay]
) -> None:
    recipe = _recipe(pruning="median", trials=12)
    local = run_search(recipe, out=simulated / "local")
    ray(nodes=1)
    spread = run_search(recipe, out=simulated / "ray", engine="ray")
    assert spread.count("pruned") > 0
    assert _rows(spread) == _rows(local)


def test_a_trial_that_loses_every_process_is_recorded_as_failed(
    simulated: Path, ray: Callable[..., FakeRay]
) -> None:
    cluster = ray(losses={"trial-0001": 9})
    result = run_search(_recipe(trials=3), out=simulated, engine="ray")
    assert [row.status for row in result.rows] == ["complete", "failed", "complete"]
    reason = str(result.rows[1].reason)
    assert reason.startswith("the training has ended 4 Ray workers one after the other, the last")
    # Those that were lost, and those that were idle at the end.
    assert len(cluster.killed) >= 5


def test_a_trial_that_fails_is_recorded_and_a_directory_that_cannot_be_used_ends_the_search(
    simulated: Path, ray: Callable[..., FakeRay], monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(recipe: Recipe, *, out: Path, **options: Any) -> RunRecord:
        if out.name == "trial-0001":
            raise TrainingError("no luck")
        if out.name == "trial-0003":
            raise RunError("the disk is full")
        return simulated_train(recipe, out=out, **options)

    monkeypatch.setattr(worker, "train", failing)
    ray()
    result = run_search(_recipe(trials=3), out=simulated, engine="ray")
    assert result.rows[1].reason == "no luck"
    with pytest.raises(RunError, match="the disk is full"):
        run_search(_recipe(trials=6), out=simulated, engine="ray")


def test_a_study_on_ray_has_the_rows_of_one_on_this_machine(
    roberta: Path, sets: Path, tmp_path: Path, ray: Callable[..., FakeRay]
) -> None:
    recipe = tmp_path / "base.toml"
    keys = {"train": {"max_steps": 2}}
    recipe.write_text(dump_recipe(tiny_recipe(roberta, sets, **keys)))
    study = tmp_path / "study.toml"
    study.write_text(
        f"""
        recipe = "{recipe}"
        seeds = [1, 2]
        [[rows]]
        name = "one"
        set = ["adapter.rank=1"]
        [[rows]]
        name = "two"
        """
    )
    local = run_study(load_study(study), out=tmp_path / "local")
    # One node, so that two trainings are never in this process at once.
    ray(nodes=1)
    lines: list[str] = []
    spread = run_study(load_study(study), out=tmp_path / "ray", engine="ray", log=lines.append)
    keep = {"seconds": 0.0, "peak_memory_bytes": 0}
    assert [replace(row, **keep) for row in spread] == [replace(row, **keep) for row in local]
    assert f"two, seed 2: {tmp_path / 'ray' / '02-two' / 'seed-2'}" in lines


def test_a_run_of_a_study_that_fails_does_not_stop_the_others(
    roberta: Path,
    sets: Path,
    tmp_path: Path,
    ray: Callable[..., FakeRay],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def failing(*_: Any, **__: Any) -> RunRecord:
        raise TrainingError("no luck")

    monkeypatch.setattr(study_training, "train", failing)
    (tmp_path / "base.toml").write_text(dump_recipe(tiny_recipe(roberta, sets)))
    study = tmp_path / "study.toml"
    study.write_text(f'recipe = "{tmp_path / "base.toml"}"\nseeds = [1, 2]\n[[rows]]\nname = "a"\n')
    ray()
    (row,) = run_study(load_study(study), out=tmp_path / "out", engine="ray")
    assert row.failures == {"1": "no luck", "2": "no luck"}


def test_a_cluster_without_room_is_refused(simulated: Path, ray: Callable[..., FakeRay]) -> None:
    ray()
    with pytest.raises(
        RunError, match="no node of the Ray cluster has 2 CPUs for a training; lower"
    ):
        run_search(_recipe(), out=simulated, engine=RayEngine(cpus_per_trial=2.0))
    with pytest.raises(RunError, match=r"no node of the Ray cluster has 1 CPU and 0\.5 GPUs"):
        run_search(_recipe(), out=simulated, engine=RayEngine(gpus_per_trial=0.5))


def test_parts_of_a_cpu_let_more_trials_run_at_once(
    simulated: Path, ray: Callable[..., FakeRay]
) -> None:
    ray(nodes=1)
    lines: list[str] = []
    engine = RayEngine(cpus_per_trial=0.25)
    run_search(_recipe(trials=2), out=simulated, engine=engine, log=lines.append)
    assert lines[0] == "waiting for 4 workers of 0.25 CPUs each on the Ray cluster of 1 node"


def test_a_node_without_the_files_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    for folder in (Path.cwd(), tmp_path / "nowhere"):
        trainer = Trainer(folder, tmp_path / "missing.part", threads=1, uses_gpu=True)
        with pytest.raises(RunError, match=r"node .* does not see .*; all nodes need the output"):
            trainer.node()


@pytest.mark.parametrize(
    ("cpus", "gpus", "message"),
    [
        (0.0, None, "--cpus-per-trial 0: give a whole number from 1, or a fraction such as 0.5"),
        (1.0, -1.0, "--gpus-per-trial -1: give a whole number from 0, or a fraction such as 0.5"),
        (1.5, None, "--cpus-per-trial 1.5: give a whole number from 1, or"),
        (float("nan"), None, "--cpus-per-trial nan: give a whole number from 1, or"),
        (1.0, float("inf"), "--gpus-per-trial inf: give a whole number from 0, or"),
    ],
)
def test_resources_that_ray_does_not_know_are_refused(
    cpus: float, gpus: float | None, message: str
) -> None:
    with pytest.raises(RunError, match=f"^{message}"):
        RayEngine(cpus, gpus)


def test_the_options_of_the_cluster_need_its_engine() -> None:
    assert EngineOptions().engine == LocalEngine()
    options = EngineOptions(engine_name=EngineName.ray, gpus_per_trial=0.5)
    assert options.engine == RayEngine(1.0, 0.5)
    with pytest.raises(RunError, match="--cpus-per-trial and --gpus-per-trial need --engine ray"):
        EngineOptions(cpus_per_trial=2.0).engine  # noqa: B018


@pytest.mark.slow
def test_a_real_cluster_that_loses_a_process_and_a_node_has_the_results_of_one_machine(
    tmp_path: Path,
) -> None:
    script = str(ROOT / "benchmarks" / "ray_search.py")
    command = [sys.executable, script, "--out", str(tmp_path / "out"), "--trials", "8"]
    environment = {**os.environ, "PENNYWEIGHT_CACHE": str(tmp_path / "cache")}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "a node is killed" in result.stdout
    assert "Ray: 8 complete" in result.stdout
