r"""Predict many rows in parts: memory, speed, and what is left after kills.

    python benchmarks/predict_at_scale.py --rows 5000000 --kills 5
    python benchmarks/predict_at_scale.py --rows 1000000 --engine ray
    python benchmarks/predict_at_scale.py --rows 4000 --base embedded

Draws short rows from the words of the bundled sample, with a seed, and classifies them with the
command line: in one process without a break, and then again

- with `--kills N`, killing the process with SIGKILL at N random moments and starting it again;
- with `--engine ray`, on a cluster of two nodes on this machine, of which one worker is killed, or
  with `--kill node` a whole node, when half of the parts are done.

Prints one JSON object: the peak memory of the process or of each worker, rows per second with and
without the time that one row takes, and whether every row is there once and all files have the
bytes of the first run. Exits with 1 if they have not. The files are deleted afterwards.

The model is a BERT of two layers of 32 units, whose own cost is small beside that of reading,
tokenizing and writing; `--base embedded` and `--run RUN` take others.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil

from pennyweight.data.ingest import ReadOptions, read_rows
from pennyweight.data.source import Source
from pennyweight.files import hash_file

LABELS = ("World", "Sports", "Business", "Sci/Tech")
MEBIBYTE = 2**20
# Rows are combinations of this many half sentences, because drawing every word is slow.
HALVES = 5000
MANIFEST = "_manifest.json"
ACTOR = "ray::_Actor"


@dataclass(slots=True)
class Measured:
    """A command that has ended: its exit code, its duration, and its largest resident memory."""

    code: int
    seconds: float
    peak_mebibytes: float


@dataclass(slots=True)
class Memory:
    """The resident memory of each worker of a cluster, once a second."""

    mebibytes: dict[int, list[float]] = field(default_factory=lambda: defaultdict(list))

    def watch(self, ended: threading.Event) -> None:
        """Sample until the event is set."""
        while not ended.wait(1.0):
            for pid in workers():
                try:
                    resident = psutil.Process(pid).memory_info().rss
                except psutil.Error:
                    continue
                self.mebibytes[pid].append(round(resident / MEBIBYTE, 1))

    def report(self) -> list[dict[str, float]]:
        """Return for each worker its memory in the second and in the last quarter, and its peak."""
        rows = []
        for samples in self.mebibytes.values():
            quarter = max(1, len(samples) // 4)
            early, late = samples[quarter : 2 * quarter] or samples, samples[-quarter:]
            rows.append(
                {
                    "seconds": len(samples),
                    "early_mebibytes": round(sum(early) / len(early), 1),
                    "late_mebibytes": round(sum(late) / len(late), 1),
                    "peak_mebibytes": max(samples),
                }
            )
        return rows


def workers() -> list[int]:
    """Return the process ids of the actors that predict."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        line = process.info["cmdline"] or [""]
        if line[0].startswith(ACTOR):
            found.append(process.pid)
    return found


def sample_texts(cache: Path) -> list[str]:
    """Return the texts of the bundled training set."""
    options = ReadOptions(LABELS, (), "stop", cache)
    texts: list[str] = read_rows("texts", Source("sample:train"), options).table["text"][:]
    return texts


def write_rows(path: Path, words: list[str], *, rows: int, seed: int) -> None:
    """Write a CSV with an id and a text of 6 to 14 words in each row."""
    draw = random.Random(seed)  # noqa: S311 - a load test, no secret
    halves = [" ".join(draw.choices(words, k=draw.randint(3, 7))) for _ in range(HALVES)]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("id", "text"))
        for number in range(rows):
            writer.writerow((number, f"{draw.choice(halves)} {draw.choice(halves)}"))


def train_run(folder: Path, texts: list[str], base: str) -> Path:
    """Train for two steps, and return the run; what it has learned plays no part."""
    import pennyweight
    from pennyweight.recipe import resolve_recipe

    name = str(save_tiny_base(folder / "base", texts)) if base == "tiny" else base
    rows = [(LABELS[place % 4], text) for place, text in enumerate(texts[:80])]
    for part, values in (("train", rows[:60]), ("validation", rows[60:])):
        with (folder / f"{part}.csv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([("label", "text"), *values])
    recipe = resolve_recipe(
        {
            "base": {"name": name},
            "data": {
                "train": str(folder / "train.csv"),
                "validation": str(folder / "validation.csv"),
                "labels": list(LABELS),
                "max_tokens": 32,
            },
            "adapter": {"targets": ["query", "value"], "rank": 2},
            "train": {"max_steps": 2, "batch_rows": 16, "trackers": []},
            "evaluate": {"baselines": []},
        }
    )
    pennyweight.train(recipe, out=folder / "run")
    return folder / "run"


def save_tiny_base(folder: Path, texts: list[str]) -> Path:
    """Save a BERT of two small layers with a vocabulary of the texts."""
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    names = ["[UNK]", "[PAD]", "[CLS]", "[SEP]", "[MASK]"]
    backend = Tokenizer(models.WordPiece(unk_token=names[0]))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.train_from_iterator(
        texts, trainers.WordPieceTrainer(vocab_size=4000, special_tokens=names)
    )
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B [SEP]",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        unk_token=names[0],
        pad_token=names[1],
        cls_token=names[2],
        sep_token=names[3],
        mask_token=names[4],
    )
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
        pad_token_id=1,
        initializer_range=0.2,
    )
    BertModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


class Command:
    """`pennyweight predict` on the rows, in a process of its own."""

    def __init__(self, run: Path, data: Path, *, rows_per_part: int, form: str) -> None:
        self._arguments = [
            *("predict", str(run), "--data", str(data), "--format-out", form),
            *("--rows-per-part", str(rows_per_part)),
        ]

    def start(self, out: Path, *more: str, address: str = "") -> subprocess.Popen[bytes]:
        """Start the command."""
        environment = {**os.environ, "RAY_ADDRESS": address}
        arguments = [*self._arguments, "--out", f"{out}/", *more]
        return subprocess.Popen([sys.executable, "-m", "pennyweight", *arguments], env=environment)

    def measure(self, out: Path, *more: str, kill_after: float | None = None) -> Measured:
        """Run the command to its end, or kill it."""
        began = time.perf_counter()
        process = self.start(out, *more)
        timer = threading.Timer(kill_after or 0.0, process.kill)
        if kill_after is not None:
            timer.start()
        _, status, usage = os.wait4(process.pid, 0)
        timer.cancel()
        process.returncode = os.waitstatus_to_exitcode(status)
        # The unit is a kibibyte on Linux, and a byte on macOS.
        unit = MEBIBYTE if sys.platform == "darwin" else 1024
        seconds = time.perf_counter() - began
        return Measured(process.returncode, round(seconds, 1), round(usage.ru_maxrss / unit, 1))


def hashes(out: Path) -> dict[str, str]:
    """Return the SHA-256 of each file of predictions, which must be that of the manifest."""
    parts = json.loads((out / MANIFEST).read_text(encoding="utf-8"))["parts"]
    found = {part["path"]: hash_file(out / part["path"]) for part in parts}
    if found != {part["path"]: part["sha256"] for part in parts}:
        raise SystemExit(f"{out}: the manifest has other hashes than the files")
    return found


def missing_or_repeated(out: Path, rows: int) -> int:
    """Return how many ids from 0 on are not there exactly once, in order (CSV only)."""
    expected = wrong = 0
    parts = json.loads((out / MANIFEST).read_text(encoding="utf-8"))["parts"]
    for part in parts:
        with (out / part["path"]).open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                wrong += int(row["id"]) != expected
                expected += 1
    return wrong + abs(rows - expected)


def killed_and_resumed(
    command: Command, out: Path, *, kills: int, start: float, seconds: float, seed: int
) -> dict[str, Any]:
    """Kill the command at random moments until it has been killed often enough, and finish it.

    Args:
        command: the command.
        out: the folder for its output.
        kills: how often it is killed.
        start: seconds until it begins to predict.
        seconds: how long it predicts without a break.
        seed: of the moments.
    """
    draw = random.Random(seed)  # noqa: S311 - a load test, no secret
    attempts = []
    for _ in range(kills):
        attempts.append(
            command.measure(out, kill_after=start + draw.uniform(0.0, 1.6 / kills) * seconds)
        )
        if attempts[-1].code == 0:
            break
    last = command.measure(out)
    attempts.append(last)
    return {
        "kills": sum(each.code == -signal.SIGKILL for each in attempts),
        "seconds": round(sum(each.seconds for each in attempts), 1),
        "peak_mebibytes": max(each.peak_mebibytes for each in attempts),
        "exit_code": last.code,
    }


def on_ray(command: Command, out: Path, *, parts: int, kill: str) -> dict[str, Any]:
    """Predict on two nodes of this machine, and kill a worker or a node midway."""
    # Ray's workers are polite by default, and the process that they are compared with is not.
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}
    from ray.cluster_utils import Cluster

    cores = max(1, psutil.cpu_count() // 2)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": cores})
    second = cluster.add_node(num_cpus=cores)
    memory, ended = Memory(), threading.Event()
    watcher = threading.Thread(target=memory.watch, args=(ended,), daemon=True)
    watcher.start()
    began = time.perf_counter()
    process = command.start(out, "--engine", "ray", address=cluster.address)
    try:
        killed = ""
        while process.poll() is None and not killed:
            time.sleep(0.2)
            if len(list(out.glob("*.part-*"))) >= parts // 2 and (found := workers()):
                if kill == "node":
                    cluster.remove_node(second, allow_graceful=False)
                    cluster.add_node(num_cpus=cores)
                    killed = "a node"
                else:
                    os.kill(found[-1], signal.SIGKILL)
                    killed = f"worker {found[-1]}"
        code = process.wait()
    finally:
        process.kill()
        seconds = time.perf_counter() - began
        ended.set()
        watcher.join()
        cluster.shutdown()
    return {
        "killed": killed,
        "seconds": round(seconds, 1),
        "exit_code": code,
        "workers": memory.report(),
    }


def rates(rows: int, seconds: float, start: float) -> dict[str, int]:
    """Return the rows per second, with and without the time that one row takes."""
    return {
        "rows_per_second": round(rows / seconds),
        "rows_per_second_after_start": round(rows / max(seconds - start, 0.1)),
    }


def main() -> None:
    """Measure, and print the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--rows-per-part", type=int, default=50_000)
    parser.add_argument("--engine", choices=("local", "ray"), default="local")
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--kill", choices=("worker", "node"), default="worker")
    parser.add_argument("--base", default="tiny", help='"tiny", "embedded" or another base')
    parser.add_argument("--run", type=Path, help="a finished run, instead of --base")
    parser.add_argument("--format", choices=("csv", "jsonl", "parquet"), default="csv")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", type=Path, help="a file for the result")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pennyweight-") as name:
        result = measure(arguments, Path(name))
    text = json.dumps(result, indent=1)
    print(text)
    if arguments.write is not None:
        arguments.write.write_text(f"{text}\n", encoding="utf-8")
    if not result["is_identical"]:
        raise SystemExit(1)


def measure(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Return the measurements; all files are written into a folder."""
    texts = sample_texts(folder / "cache")
    run = arguments.run or train_run(folder, texts, arguments.base)
    data, one = folder / "rows.csv", folder / "one.csv"
    words = " ".join(texts).split()
    for path, rows in ((one, 1), (data, arguments.rows)):
        write_rows(path, words, rows=rows, seed=arguments.seed)
    options = {"rows_per_part": arguments.rows_per_part, "form": arguments.format}
    command = Command(run, data, **options)
    start = Command(run, one, **options).measure(folder / "one")
    whole = command.measure(folder / "whole")
    result: dict[str, Any] = {
        "rows": arguments.rows,
        "rows_per_part": arguments.rows_per_part,
        "data_mebibytes": round(data.stat().st_size / MEBIBYTE, 1),
        "base": str(arguments.run or arguments.base),
        "one_row": asdict(start),
        "one_process": asdict(whole) | rates(arguments.rows, whole.seconds, start.seconds),
    }
    expected, checked = hashes(folder / "whole"), [folder / "whole"]
    if arguments.kills:
        checked.append(folder / "killed")
        result["killed"] = killed_and_resumed(
            command,
            folder / "killed",
            kills=arguments.kills,
            start=start.seconds,
            seconds=whole.seconds - start.seconds,
            seed=arguments.seed,
        )
    if arguments.engine == "ray":
        checked.append(folder / "ray")
        ray = on_ray(command, folder / "ray", parts=len(expected), kill=arguments.kill)
        result["ray"] = ray | rates(arguments.rows, ray["seconds"], start.seconds)
    result["is_identical"] = all(hashes(out) == expected for out in checked)
    if arguments.format == "csv":
        wrong = sum(missing_or_repeated(out, arguments.rows) for out in checked)
        result["missing_or_repeated_rows"] = wrong
        result["is_identical"] = result["is_identical"] and not wrong
    return result


if __name__ == "__main__":
    main()
