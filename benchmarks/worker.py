"""Run one measurement in a process of its own, and print one JSON object.

    python benchmarks/worker.py train --system ours --model roberta --data train.csv

`rows_per_second` is tokens per second, without padding, divided by the mean length of a text. A
part of a pass over the rows therefore counts the same whatever lengths it has.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from pennyweight.engine.batches.rows import TokenizedRows, TokenStore


def main() -> None:
    """Run the measurement that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("train", "pass", "until", "classify", "floor"))
    parser.add_argument("--system", choices=("p1", "p2", "ours", "prefix"), default="ours")
    parser.add_argument("--model", choices=("roberta", "embedded"), default="roberta")
    parser.add_argument("--data", default="sample:train")
    parser.add_argument("--validation", default="sample:validation")
    parser.add_argument("--tokenizer")
    parser.add_argument("--rows", type=int, default=4096)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--copies", type=int, default=1, help="number of adapters trained at once")
    parser.add_argument("--rank", type=int, default=4)
    parser.add_argument("--all-linear", action="store_true")
    parser.add_argument("--layers", help="first and last adapted layer, as in 8-11")
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--attention", default="sdpa")
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--products", choices=("float", "int8"), default="float")
    parser.add_argument(
        "--warm-up", type=float, default=6.0, help="seconds before the clock starts"
    )
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--accuracy", type=float, default=0.92)
    options = parser.parse_args()
    measures = {
        "train": _train,
        "pass": _pass,
        "until": _until,
        "classify": _classify,
        "floor": _floor,
    }
    result = measures[options.what](options)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
        1 if sys.platform == "darwin" else 1024
    )
    if torch.cuda.is_available():
        peak = torch.cuda.max_memory_allocated()
    print(json.dumps({**vars(options), **result, "peak_bytes": peak}))


def _workload(options: argparse.Namespace) -> Any:
    from workload import LINEAR, Workload

    layers = None
    if options.layers:
        first, last = map(int, options.layers.split("-"))
        layers = tuple(range(first, last + 1))
    targets = LINEAR if options.all_linear else ("query", "value")
    return Workload(options.model, targets, options.rank, options.dropout, layers)


def _tokens(options: argparse.Namespace, location: str, rows: int) -> TokenizedRows:
    from workload import ids_of, texts_of, tokenizer_of

    tokenizer = tokenizer_of(_workload(options), options.tokenizer)
    texts, labels = texts_of(location, rows=rows)
    ids = ids_of(texts, tokenizer, longest=options.length)
    store = TokenStore(pa.chunked_array([pa.array(ids, pa.list_(pa.int32()))]))
    lengths = np.array([len(row) for row in ids], dtype=np.int64)
    return TokenizedRows(
        store, lengths, labels, int(tokenizer.pad_token_id), fingerprint="benchmark"
    )


class _Clock:
    """Counts tokens after the warm-up; calling it returns whether the time is up."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.began = time.perf_counter()
        self.started: float | None = None
        self.ended = 0.0
        self.tokens = 0
        self.losses = 0

    def __call__(self, _: Any, rows: int, tokens: int) -> bool:
        import ours

        now = time.perf_counter()
        if self.started is None:
            if now - self.began >= self.options.warm_up:
                ours.synchronize()
                self.started = time.perf_counter()
            return False
        self.tokens += tokens
        if now - self.started < self.options.seconds:
            return False
        ours.synchronize()
        self.ended = time.perf_counter()
        return True

    def rate(self, mean: float) -> dict[str, float]:
        assert self.started is not None  # noqa: S101 - the clock has run
        speed = self.tokens / (self.ended - self.started)
        return {"tokens_per_second": speed, "rows_per_second": speed / mean, "mean_tokens": mean}


def _run(options: argparse.Namespace, tokens: TokenizedRows, on_step: Any) -> None:
    workload = _workload(options)
    if options.copies > 1:
        import ours

        ours.train_copies(
            workload, tokens, batch=options.batch, copies=options.copies, on_step=on_step
        )
    elif options.system in ("ours", "prefix"):
        import ours

        ours.train(
            workload,
            tokens,
            batch=options.batch,
            prefix=options.system == "prefix",
            products=options.products,
            on_step=on_step,
        )
    else:
        import peers

        peers.train(
            workload,
            tokens,
            batch=options.batch,
            tuned=options.system == "p2",
            attention=options.attention,
            on_step=on_step,
        )


def _train(options: argparse.Namespace) -> dict[str, Any]:
    tokens = _tokens(options, options.data, options.rows)
    clock = _Clock(options)
    _run(options, tokens, clock)
    return clock.rate(float(tokens.lengths.mean()))


def _pass(options: argparse.Namespace) -> dict[str, Any]:
    """Return the seconds of one pass over the rows."""
    seen = [0]

    def on_step(_: Any, rows: int, __: int) -> bool:
        seen[0] += rows
        return seen[0] >= options.rows

    tokens = _tokens(options, options.data, options.rows)
    began = time.perf_counter()
    _run(options, tokens, on_step)
    return {"seconds": time.perf_counter() - began}


def _until(options: argparse.Namespace) -> dict[str, Any]:
    """Return the seconds of training, without evaluation, until an accuracy on validation rows."""
    tokens = _tokens(options, options.data, options.rows)
    held_out = _tokens(options, options.validation, 2000)
    curve: list[dict[str, float]] = []
    state = {"seconds": 0.0, "rows": 0, "mark": time.perf_counter(), "next": 1024}

    def on_step(model: Any, rows: int, _: int) -> bool:
        state["seconds"] += time.perf_counter() - state["mark"]
        state["rows"] += rows
        if state["rows"] >= state["next"]:
            state["next"] += 1024
            if options.system == "p2":
                import peers

                accuracy = peers.accuracy(model, held_out)
            else:
                accuracy = model(held_out)
            curve.append({"seconds": state["seconds"], "rows": state["rows"], "accuracy": accuracy})
            print(json.dumps(curve[-1]), file=sys.stderr, flush=True)
        state["mark"] = time.perf_counter()
        return bool(curve) and (
            curve[-1]["accuracy"] >= options.accuracy or state["seconds"] > options.seconds
        )

    _run(options, tokens, on_step)
    return {"curve": curve, "seconds": curve[-1]["seconds"], "reached": curve[-1]["accuracy"]}


def _classify(options: argparse.Namespace) -> dict[str, Any]:
    from workload import texts_of, tokenizer_of

    workload = _workload(options)
    tokenizer = tokenizer_of(workload, options.tokenizer)
    texts, _ = texts_of(options.data, rows=options.rows)
    if options.system == "ours":
        import ours

        rows, seconds = ours.classify(workload, texts, tokenizer, seconds=options.seconds)
    else:
        import peers

        dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[options.precision]
        rows, seconds = peers.classify(
            workload, texts, tokenizer, seconds=options.seconds, dtype=dtype
        )
    return {"rows_per_second": rows / seconds}


def _floor(options: argparse.Namespace) -> dict[str, Any]:
    """Measure only the frozen encoder's matrix products, forward and for the input's gradient.

    They are the products of a batch of `batch` texts of mean length, in the precision in which
    Pennyweight trains here, without attention, adapters and biases, and without saving anything
    for the backward pass.
    """
    from pennyweight.engine.device import DTYPES, choose_compute

    device = "cuda" if torch.cuda.is_available() else "cpu"
    tokens = _tokens(options, options.data, options.rows)
    mean = float(tokens.lengths.mean())
    width, layers = (768, 12) if options.model == "roberta" else (384, 6)
    count = round(options.batch * mean)
    precision = choose_compute(precision="auto", attention="auto").precision
    kind: dict[str, Any] = {"dtype": DTYPES[precision], "device": device}
    shapes = [(width, width)] * 4 + [(4 * width, width), (width, 4 * width)]
    weights = [[torch.randn(shape, **kind) for shape in shapes] for _ in range(layers)]
    inputs = {size: torch.randn(count, size, **kind) for size in (width, 4 * width)}

    def products() -> None:
        for layer in weights:
            for weight in layer:
                torch.nn.functional.linear(inputs[weight.shape[1]], weight)
        for layer in reversed(weights):
            for weight in reversed(layer):
                torch.mm(inputs[weight.shape[0]], weight)

    clock = _Clock(options)
    while not clock(None, options.batch, count):
        products()
    return clock.rate(mean)


if __name__ == "__main__":
    main()
