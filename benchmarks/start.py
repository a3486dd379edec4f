"""Measure how long commands take that have little to do, so mostly to start.

    python benchmarks/start.py runs/demo [--rounds 5] [--out results/start.json]

The commands are `--help`, the plan of a recipe for RoBERTa-base, and the prediction of ten rows by
a run. They take turns with a Python process that only imports PyTorch, transformers' classes and
PEFT, which plans and predictions cannot do without. Medians are given, by the clock and of
processor time, which is what to compare on a machine that is not idle.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from pennyweight.environment import describe_environment

_IMPORTS = "from transformers import AutoModelForSequenceClassification, AutoTokenizer; import peft"
_ROWS = 10


def commands(run: Path, folder: Path) -> dict[str, list[str]]:
    """Return the command lines that are measured, by name; the rows to predict are written."""
    rows = folder / "rows.csv"
    rows.write_text("text\n" + "Oil prices rose again on Thursday\n" * _ROWS, encoding="utf-8")
    pennyweight = [sys.executable, "-m", "pennyweight"]
    predict = ["predict", str(run), "--data", str(rows), "--out", str(folder / "out.csv")]
    return {
        "imports of the libraries": [sys.executable, "-c", _IMPORTS],
        "--help": [*pennyweight, "--help"],
        "plan spar-lora": [*pennyweight, "plan", "spar-lora"],
        f"predict of {_ROWS} rows": [*pennyweight, *predict],
    }


def measure(command: list[str]) -> tuple[float, float]:
    """Run a command, and return its seconds by the clock and of processor time."""
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise SystemExit(f"{' '.join(command)}: exit code {process.returncode}")
    return seconds, usage.ru_utime + usage.ru_stime


def summarize(measured: dict[str, list[tuple[float, float]]]) -> dict[str, Any]:
    """Return the medians of each command, and their ratio to the imports."""
    medians = {
        name: [statistics.median(column) for column in zip(*rounds, strict=True)]
        for name, rounds in measured.items()
    }
    imports = next(iter(medians.values()))
    return {
        name: {
            "seconds": round(seconds, 2),
            "processor_seconds": round(processor, 2),
            "processor_ratio": round(processor / imports[1], 2),
        }
        for name, (seconds, processor) in medians.items()
    }


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="a finished run")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, help="write the result to this JSON file too")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        given = commands(arguments.run, Path(folder))
        # The first round brings the files into memory and is not counted.
        measured = {name: [measure(command)] for name, command in given.items()}
        for _ in range(arguments.rounds):
            for name, command in given.items():
                measured[name].append(measure(command))
    result = {
        "machine": describe_environment()["processor"],
        "rounds": arguments.rounds,
        "commands": summarize({name: rounds[1:] for name, rounds in measured.items()}),
    }
    text = json.dumps(result, indent=1)
    print(text)
    if arguments.out is not None:
        arguments.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
