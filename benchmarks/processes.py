"""Compare trainings by 1, 2 and 4 processes, and one that another number of them resumes.

    python benchmarks/processes.py --out DIR [--steps 50]

The base, the rows and the recipe are those of the tests, without dropout, whose masks differ with
the number of processes. Of the last training, by 4 processes, one is killed in the middle; 2
processes resume it. Prints the largest difference of a step's loss from that of one process, and
exits with 1 if it is above 1e-4.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from pennyweight.cli.output import quiet_libraries  # noqa: E402
from pennyweight.recipe import dump_recipe  # noqa: E402
from pennyweight.runs.record import RunRecord, load_record  # noqa: E402
from tiny import news, save_base, tiny_recipe, write_news  # noqa: E402

_TOLERANCE = 1e-4


def _write_recipe(folder: Path, steps: int) -> None:
    rows = news(76, seed=1)
    for name, part in (("train", rows[:48]), ("validation", rows[48:64]), ("test", rows[64:])):
        write_news(folder / f"{name}.csv", part)
    recipe = tiny_recipe(
        save_base(folder / "base", "bert"),
        folder,
        base={"dropout": 0.0},
        # Batches of 8 of 48 rows.
        train={"epochs": -(-steps // 6), "max_steps": steps, "evaluate_every": 10},
        evaluate={"baselines": []},
    )
    (folder / "recipe.toml").write_text(dump_recipe(recipe), encoding="utf-8")


def _train(folder: Path, out: str, processes: int, *options: str, kill_at: int = 0) -> RunRecord:
    """Train in several processes, of which one is killed after a step."""
    launcher = ("torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), "-m")
    command = [
        *(sys.executable, "-m", *(launcher if processes > 1 else ()), "pennyweight", "train"),
        *("recipe.toml", "--out", out, *options),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "src")}
    with subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None  # noqa: S101 - piped above
        for line in process.stdout:
            if line.startswith(("pennyweight: ", "resumed", f"{processes} processes")):
                print(f"  {line.rstrip()}", flush=True)
            if kill_at and line.startswith(f"step {kill_at}/"):
                _kill_one(process.pid, load_record(folder / out).process_id)
    return load_record(folder / out)


def _kill_one(launcher: int, main: int | None) -> None:
    """Kill one of the processes that do not write the run."""
    for process in psutil.Process(launcher).children(recursive=True):
        if process.pid != main and "train" in process.cmdline():
            process.kill()
            return


def main() -> None:
    """Train, and compare the losses."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=50)
    arguments = parser.parse_args()
    quiet_libraries()
    out, steps = arguments.out.absolute(), arguments.steps
    out.mkdir(parents=True)
    _write_recipe(out, steps)
    one = _train(out, "one", 1)
    records = {
        "2 processes": _train(out, "two", 2),
        "4 processes": _train(out, "four", 4),
    }
    _train(out, "resumed", 4, kill_at=steps // 2)
    records["4 processes, resumed by 2"] = _train(out, "resumed", 2, "--resume")
    worst = 0.0
    for name, record in records.items():
        pairs = list(zip(one.history, record.history, strict=True))
        difference = max(abs(first.loss - second.loss) for first, second in pairs)
        worst = max(worst, difference)
        exchanged = None if record.compute is None else record.compute.gradient_bytes
        print(
            f"{name}: {record.status}, {len(pairs)} steps, largest difference of a loss "
            f"{difference:.1e}, {exchanged} bytes of gradients per step"
        )
    if worst > _TOLERANCE:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
