"""Search on a Ray cluster of two nodes on this machine while a process and then a node are killed.

    python benchmarks/ray_search.py --out DIR [--trials 24]

The base, the rows and the recipe are those of the tests. The same search is trained by the local
engine first; the sampler is "random", whose suggestions depend on the seed and the number of a
trial only. Prints both searches' results, and exits with 1 if they differ.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))
# Ray's processes import Pennyweight as well.
os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT / "src"), str(ROOT / "tests")])
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
# Ray would give its processes the lowest priority, which a busy machine never serves.
os.environ.setdefault("RAY_worker_niceness", "0")

import torch  # noqa: E402
from ray.cluster_utils import Cluster  # noqa: E402

from pennyweight.cli.output import quiet_libraries  # noqa: E402
from pennyweight.recipe import Recipe  # noqa: E402
from pennyweight.runs.record import load_record  # noqa: E402
from pennyweight.search.results import SearchResult  # noqa: E402
from pennyweight.search.search import run_search  # noqa: E402
from tiny import news, save_base, tiny_recipe, write_news  # noqa: E402


def _recipe(folder: Path, trials: int) -> Recipe:
    rows = news(76, seed=1)
    for name, part in (("train", rows[:48]), ("validation", rows[48:64]), ("test", rows[64:])):
        write_news(folder / f"{name}.csv", part)
    rate = {"optimizer.learning_rate": {"low": 1e-3, "high": 1e-1, "log": True}}
    return tiny_recipe(
        save_base(folder / "base", "bert"),
        folder,
        search={"trials": trials, "ranges": rate, "pruning": "off", "sampler": "random"},
    )


class _Killer:
    """Prints the lines of a search, and kills a process and then a node in its course."""

    def __init__(self, out: Path, cluster: Cluster, node: object, trials: int) -> None:
        self._out = out
        self._cluster = cluster
        self._node = node
        self._process_at, self._node_at = trials // 4, trials // 2
        self._ended = 0

    def __call__(self, line: str) -> None:
        print(f"{time.strftime('%X')} {line}", flush=True)
        self._ended += ": validation" in line
        if self._ended == self._process_at:
            self._process_at = -1
            self._kill_process()
        if self._ended == self._node_at:
            self._node_at = -1
            print("a node is killed", flush=True)
            self._cluster.remove_node(self._node, allow_graceful=False)

    def _kill_process(self) -> None:
        for run in sorted(self._out.glob("trial-*")):
            if not (run / "record.json").is_file():
                continue
            record = load_record(run)
            if record.status == "running" and record.process_id is not None:
                print(f"the process of {run.name} is killed", flush=True)
                os.kill(record.process_id, signal.SIGKILL)
                return


def _search_on_ray(recipe: Recipe, out: Path, trials: int) -> SearchResult:
    node = {"num_cpus": 1, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, connect=False, head_node_args=node)
    second = cluster.add_node(num_cpus=1)
    os.environ["RAY_ADDRESS"] = cluster.address
    try:
        log = _Killer(out, cluster, second, trials)
        return run_search(recipe, out=out, engine="ray", log=log)
    finally:
        cluster.shutdown()


def main() -> None:
    """Run both searches and compare them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--trials", type=int, default=24)
    arguments = parser.parse_args()
    quiet_libraries()
    torch.set_num_threads(1)
    out = arguments.out.absolute()
    out.mkdir(parents=True)
    recipe = _recipe(out, arguments.trials)
    began = time.perf_counter()
    local = run_search(recipe, out=out / "local")
    middle = time.perf_counter()
    spread = _search_on_ray(recipe, out / "ray", arguments.trials)
    ended = time.perf_counter()
    rows = list(zip(local.rows, spread.rows, strict=True))
    same_values = all(one.run == other.run and one.values == other.values for one, other in rows)
    differences = [abs((one.value or 0.0) - (other.value or 0.0)) for one, other in rows]
    print(
        f"local: {local.count('complete')} complete in {middle - began:.0f} s; "
        f"Ray: {spread.count('complete')} complete in {ended - middle:.0f} s; "
        f"values equal: {same_values}; largest difference of the results: {max(differences):g}; "
        f"best: {local.best} and {spread.best}"
    )
    if not same_values or max(differences) > 0.0 or spread.count("complete") != arguments.trials:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
