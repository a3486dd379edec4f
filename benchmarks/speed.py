"""Compare the speed and memory of Pennyweight with its peers and with the floor of the machine.

    python benchmarks/speed.py --data train.csv --validation test.csv --tokenizer ROBERTA_DIR

Each measurement runs in a process of its own (`worker.py`). The systems of a comparison take turns,
round after round, and the medians are reported. This writes `results/speed.json` and
`results/speed.svg`, or with `--gpu` `results/speed-gpu.json`, or the file that `--out` names.

P1 is `Trainer` with `peft` as the published systems used it: fp32, random batches of 16, padded. P2
is the same with bf16, batches grouped by length, and the fastest of several batch sizes and
attention implementations, which are tried first. Where bf16 is slow, Pennyweight, P2 and the floor
run in fp32. To see on a newer processor what one with AVX2 alone would do, limit the instructions:

    ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 MKL_ENABLE_INSTRUCTIONS=AVX2 \
        python benchmarks/speed.py --only roberta embedded --out benchmarks/results/speed-avx2.json
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
# Batch sizes and attention implementations that are tried for P2.
TUNING = [(32, "sdpa"), (32, "eager"), (64, "eager")]


class Bench:
    """Runs measurements and collects their results."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.results: dict[str, Any] = {}

    def measure(self, what: str, **settings: Any) -> dict[str, Any]:
        """Run one measurement in a worker process and return its result."""
        options = self.options
        command = [sys.executable, str(HERE / "worker.py"), what, "--data", options.data]
        command += ["--validation", options.validation]
        if options.tokenizer:
            command += ["--tokenizer", options.tokenizer]
        for key, value in settings.items():
            flag = f"--{key.replace('_', '-')}"
            command += [flag] if value is True else [flag, str(value)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{' '.join(command)}\n{done.stderr[-2000:]}")
        result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
        log(f"{what} {settings}: {_short(result)}")
        return result

    def compare(self, name: str, contenders: dict[str, tuple[str, dict[str, Any]]]) -> None:
        """Measure all contenders in interleaved rounds, and save their medians."""
        runs: dict[str, list[dict[str, Any]]] = {key: [] for key in contenders}
        for _ in range(self.options.rounds):
            for key, (what, settings) in contenders.items():
                runs[key].append(self.measure(what, **settings))
        self.results[name] = {
            key: {
                "settings": contenders[key][1],
                "rows_per_second": statistics.median(r["rows_per_second"] for r in results),
                "all": [round(r["rows_per_second"], 2) for r in results],
                "peak_bytes": statistics.median(r["peak_bytes"] for r in results),
            }
            for key, results in runs.items()
        }
        self.save()

    def best(self, system: str, choices: list[dict[str, Any]], **settings: Any) -> dict[str, Any]:
        """Return the settings with which a system is fastest; each is measured once."""
        if system in self.options.settled:
            before = self.results[f"training {settings['model']}"][system.upper()]["settings"]
            return {key: before[key] for key in choices[0]}
        results = []
        for choice in choices:
            try:
                results.append((self.measure("train", system=system, **settings, **choice), choice))
            except SystemExit as error:
                # A system that needs more memory than there is is killed without a message.
                log(f"{system} {choice}: no result: {str(error).splitlines()[-1:]}")
        tried = self.results.setdefault("tuning", [])
        key = {"system": system, "model": settings["model"]}
        tried[:] = [entry for entry in tried if not key.items() <= entry.items()]
        tried += [
            {"system": system, **settings, **c, "rows_per_second": r["rows_per_second"]}
            for r, c in results
        ]
        return max(results, key=lambda pair: pair[0]["rows_per_second"])[1]

    def save(self) -> None:
        """Write all results so far."""
        text = json.dumps({"machine": machine(), **self.results}, indent=1) + "\n"
        self.options.out.write_text(text, encoding="utf-8")


def _short(result: dict[str, Any]) -> str:
    """Return the speed, or the duration, and the peak memory of a result in one line."""
    speed = result.get("rows_per_second")
    speed_text = f"{speed:.1f} rows/s" if speed else f"{result.get('seconds'):.1f} s"
    return f"{speed_text}, {result['peak_bytes'] / 1e9:.2f} GB"


def log(line: str) -> None:
    """Print a line of progress, with the time, to standard error."""
    print(time.strftime("%H:%M:%S"), line, file=sys.stderr, flush=True)


def machine() -> dict[str, Any]:
    """Return the machine and the library versions that the figures belong to."""
    import peft
    import torch
    import transformers

    from pennyweight.engine.device import choose_compute

    return {
        "date": time.strftime("%Y-%m-%d"),
        "processor": _processor(),
        "cores": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "capability": torch.backends.cpu.get_cpu_capability(),
        "precision": choose_compute(precision="auto", attention="auto").precision,
        "platform": platform.system(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "peft": peft.__version__,
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if not info.is_file():
        return platform.processor()
    text = info.read_text(encoding="utf-8")
    name = next((x.split(":")[1].strip() for x in text.splitlines() if "model name" in x), "?")
    return name + (", AMX bf16" if "amx_bf16" in text else "")


def training(bench: Bench, model: str, **settings: Any) -> None:
    """Compare the training speed of Pennyweight, both peers and the floor."""
    # A system reaches its full speed only once memory is allocated and most kernels are compiled.
    shared = {"model": model, "warm_up": 30 if model == "roberta" else 15, **settings}
    tuned = [{"batch": b, "attention": a} for b, a in bench.options.tuning]
    p2 = bench.best("p2", tuned, **shared)
    sizes = (256, 512, 1024) if bench.options.gpu else (64, 96)
    own = bench.best("ours", [{"batch": size} for size in sizes], **shared)
    integers = {}
    if not bench.options.gpu:
        settings = {"system": "ours", "products": "int8", **own, **shared}
        integers["ours, int8 products"] = "train", settings
    bench.compare(
        f"training {model}",
        {
            "ours": ("train", {"system": "ours", **own, **shared}),
            **integers,
            "P1": ("train", {"system": "p1", "batch": 16, **shared}),
            "P2": ("train", {"system": "p2", **p2, **shared}),
            "ours, P1's batch": ("train", {"system": "ours", "batch": 16, **shared}),
            "floor": ("floor", {"model": model, **own, "warm_up": 3}),
        },
    )


def memory(bench: Bench) -> None:
    """Measure the peak memory of one pass over 512 rows, so that every system meets the longest."""
    shared = {"model": "roberta", "batch": 16, "rows": 512}
    results = bench.results["memory of a pass"] = {}
    for name, system in (("ours", "ours"), ("P1", "p1")):
        result = bench.measure("pass", system=system, **shared)
        results[name] = {"settings": shared, **{k: result[k] for k in ("peak_bytes", "seconds")}}
    bench.save()


def prefix(bench: Bench) -> None:
    """Measure training with and without the prefix cache; adapters in the top 4 of 12 layers."""
    shared = {
        "model": "roberta",
        "layers": "8-11",
        "batch": 32,
        "dropout": 0.0,
        "rows": 2048,
        "warm_up": 20,
    }
    bench.compare(
        "prefix cache",
        {
            "without": ("train", {"system": "ours", **shared}),
            "with": ("train", {"system": "prefix", **shared}),
        },
    )


def inference(bench: Bench) -> None:
    """Measure inference from raw texts to labels, tokenization included."""
    contenders = {}
    precisions = ["fp32", "bf16"] if machine()["precision"] == "bf16" else ["fp32"]
    for model in ("roberta", "embedded"):
        contenders |= {
            f"ours, {model}": ("classify", {"system": "ours", "model": model, "rows": 16384}),
        }
        for precision in precisions:
            pipeline = {"system": "p1", "model": model, "precision": precision}
            contenders[f"pipeline {precision}, {model}"] = "classify", pipeline
    bench.compare("inference", contenders)


def growth(bench: Bench) -> None:
    """Measure how cost grows with batch, length, rank and number of adapters trained at once."""
    settled = bench.options.settled
    entries = [entry for entry in bench.results.get("growth", []) if entry["system"] in settled]
    for key, values in (
        ("batch", (8, 32, 64)),
        ("length", (16, 64, 128)),
        ("rank", (1, 64)),
        ("copies", (1, 2, 4)),
    ):
        for value in values:
            shared: dict[str, Any] = {"batch": 32, "warm_up": 10, "seconds": 8, key: value}
            peers = () if key in ("copies", "rank") else {"p2"}.difference(settled)
            for system in ("ours", *peers):
                try:
                    result = bench.measure("train", system=system, model="roberta", **shared)
                except SystemExit as error:
                    # A system that needs more memory than there is is killed without a message.
                    log(f"{system} {key}={value}: no result: {str(error).splitlines()[-1:]}")
                    continue
                figures = {k: result[k] for k in ("rows_per_second", "peak_bytes", "mean_tokens")}
                entries.append({"system": system, "grows": key, "value": value, **figures})
    bench.results["growth"] = entries
    bench.save()


def until(bench: Bench) -> None:
    """Measure the seconds of training to a validation accuracy, rank 16 on every linear layer."""
    shared = {
        "accuracy": bench.options.accuracy,
        "model": "embedded",
        "all_linear": True,
        "rank": 16,
        "rows": 60000,
        "seconds": 1500,
    }
    p2 = {k: bench.results["training embedded"]["P2"]["settings"][k] for k in ("attention",)}
    bench.results[f"until {bench.options.accuracy:.0%}"] = {
        "ours": bench.measure("until", system="ours", batch=32, **shared),
        "P2": bench.measure("until", system="p2", batch=32, **p2, **shared),
    }
    bench.save()


PARTS: dict[str, Callable[[Bench], None]] = {
    "roberta": lambda bench: training(bench, "roberta"),
    "embedded": lambda bench: training(bench, "embedded", all_linear=True, rank=16),
    "memory": memory,
    "prefix": prefix,
    "inference": inference,
    "growth": growth,
    "until": until,
}


def main() -> None:
    """Run all comparisons, or those that `--only` names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="sample:train")
    parser.add_argument("--validation", default="sample:validation")
    parser.add_argument("--tokenizer", help="a directory with RoBERTa's tokenizer")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--accuracy", type=float, default=0.92, help="the accuracy that `until` trains to"
    )
    parser.add_argument("--gpu", action="store_true", help="larger batches, training only")
    parser.add_argument("--out", type=Path, help="file for the results")
    parser.add_argument("--only", nargs="*", help="only these parts: " + " ".join(PARTS))
    parser.add_argument(
        "--settled",
        nargs="*",
        choices=("p2",),
        default=[],
        help="systems whose settings and growth are kept from the results file: p2",
    )
    options = parser.parse_args()
    options.tuning = [(64, "sdpa"), (256, "sdpa"), (512, "sdpa")] if options.gpu else TUNING
    bench = Bench(options)
    default = HERE / "results" / ("speed-gpu.json" if options.gpu else "speed.json")
    options.out = options.out or default
    if options.only and options.out.is_file():
        earlier = json.loads(options.out.read_text(encoding="utf-8"))
        bench.results = {key: value for key, value in earlier.items() if key != "machine"}
    for name, part in PARTS.items():
        if not options.only or name in options.only:
            part(bench)
    bench.save()
    if options.out.name == "speed.json":
        subprocess.run([sys.executable, str(HERE / "plot.py")], check=True)


if __name__ == "__main__":
    main()
