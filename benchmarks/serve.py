"""Compare `pennyweight serve` with FastAPI around a transformers pipeline, and overload it.

    python benchmarks/serve.py RUN [--rounds 3] [--seconds 10] [--clients 32] [--data FILE]

The peer is what services commonly do: the merged model in `pipeline("text-classification",
batch_size=32)` behind a route of FastAPI. Both servers run in processes of their own, and take
turns. Clients send one text in a request, or 32, as soon as they have their last answer. Measured
are:

- texts per second of both, and the median and 99th percentile of the duration of a request; also
  texts per second of processor time, which other work on the machine changes less;
- the duration of one text at idle, in turn with the forward pass of the bare merged model;
- answers, memory and recovery under ten times as many requests as can be computed.

The texts are those of the bundled test set, or of `--data`. The pipeline runs in float32, as
transformers loads a model, and pads each batch to its longest text in the order of the request;
`pennyweight serve` runs in the run's precision. Both are in the results.

Writes `results/serve.json`. Needs pennyweight[serve].
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil

OUT = Path(__file__).parent / "results" / "serve.json"
SIZES = (1, 32)
_IDLE_REQUESTS = 60


@dataclass(frozen=True)
class Server:
    """A server that is running."""

    process: subprocess.Popen[str]
    port: int
    # The route, and the key of the texts in a request.
    path: str
    key: str

    def request(self, texts: list[str]) -> bytes:
        """Return the bytes of a request."""
        body = json.dumps({self.key: texts}).encode()
        head = f"POST {self.path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


class Client:
    """A connection that is kept open; a plain one, which leaves the core to the servers."""

    def __init__(self, server: Server) -> None:
        self.server = server

    async def __aenter__(self) -> Client:
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.server.port)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.close()

    async def ask(self, texts: list[str]) -> int:
        """Send a request, and return the status of its answer."""
        self.writer.write(self.server.request(texts))
        head = await self.reader.readuntil(b"\r\n\r\n")
        lines = head.decode().lower().split("\r\n")
        length = next(int(line[15:]) for line in lines if line.startswith("content-length:"))
        await self.reader.readexactly(length)
        return int(lines[0].split()[1])


async def press(
    server: Server, texts: list[str], *, size: int, clients: int, seconds: float
) -> Any:
    """Return the texts per second, and the duration of each request."""
    durations: list[float] = []
    until = time.perf_counter() + seconds

    async def one(number: int) -> None:
        async with Client(server) as client:
            start = number * 17
            while (began := time.perf_counter()) < until:
                rows = [texts[(start + row) % len(texts)] for row in range(size)]
                status = await client.ask(rows)
                if status != 200:
                    raise SystemExit(f"{server.path}: status {status}")
                durations.append(time.perf_counter() - began)
                start += size

    began = time.perf_counter()
    await asyncio.gather(*(one(number) for number in range(clients)))
    return len(durations) * size / (time.perf_counter() - began), durations


async def compare(servers: dict[str, Server], texts: list[str], options: Any) -> dict[str, Any]:
    """Return texts per second and durations of both servers, by texts in a request."""
    results: dict[str, Any] = {}
    for size in SIZES:
        clients = max(2, options.clients // size)
        rates: dict[str, list[float]] = {name: [] for name in servers}
        processor: dict[str, list[float]] = {name: [] for name in servers}
        durations: dict[str, list[float]] = {name: [] for name in servers}
        for _ in range(options.rounds):
            for name, server in servers.items():
                await press(server, texts, size=size, clients=clients, seconds=1)
                before = processor_seconds(server)
                rate, each = await press(
                    server, texts, size=size, clients=clients, seconds=options.seconds
                )
                used = processor_seconds(server) - before
                rates[name].append(rate)
                processor[name].append(len(each) * size / used)
                durations[name] += each
        results[f"texts per request: {size}"] = {
            "clients": clients,
            **{
                name: {
                    "texts_per_second": [round(rate, 1) for rate in rates[name]],
                    "texts_per_processor_second": [round(rate, 1) for rate in processor[name]],
                    "p50_ms": _ms(durations[name], 50),
                    "p99_ms": _ms(durations[name], 99),
                }
                for name in servers
            },
            "ratio": ratio_of(rates),
            "processor_ratio": ratio_of(processor),
        }
    return results


def ratio_of(rates: dict[str, list[float]]) -> float:
    """Return the median over the rounds of how much faster Pennyweight is."""
    pairs = zip(rates["pennyweight"], rates["pipeline"], strict=True)
    return round(statistics.median(ours / theirs for ours, theirs in pairs), 2)


def processor_seconds(server: Server) -> float:
    """Return the processor time that a server has used."""
    times = psutil.Process(server.process.pid).cpu_times()
    return float(times.user + times.system)


async def idle(server: Server, texts: list[str], model: Any) -> dict[str, Any]:
    """Return the duration of one text at idle, and of the bare model's forward pass."""
    requests, forwards = [], []
    async with Client(server) as client:
        for number in range(_IDLE_REQUESTS + 5):
            text = texts[number % len(texts)]
            began = time.perf_counter()
            await client.ask([text])
            between = time.perf_counter()
            model(text)
            requests.append(between - began)
            forwards.append(time.perf_counter() - between)
            await asyncio.sleep(0.02)
    requests, forwards = requests[5:], forwards[5:]
    return {
        "request_p50_ms": _ms(requests, 50),
        "request_p99_ms": _ms(requests, 99),
        "bare_forward_p50_ms": _ms(forwards, 50),
        "ratio": round(statistics.median(requests) / statistics.median(forwards), 2),
    }


async def overload(server: Server, texts: list[str], *, rate: float, seconds: float) -> Any:
    """Return what happens under ten times the texts per second that can be computed."""
    size = 32
    process = psutil.Process(server.process.pid)
    statuses: Counter[int] = Counter()
    memory: list[int] = []
    pace = size / (10 * rate)
    began = time.perf_counter()
    sent = 0

    async def one() -> None:
        nonlocal sent
        while time.perf_counter() - began < seconds:
            # Requests are due at a fixed pace, whatever becomes of the ones before.
            due = began + sent * pace
            sent += 1
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            async with Client(server) as client:
                statuses[await client.ask([texts[sent % len(texts)]] * size)] += 1

    async def watch() -> None:
        while time.perf_counter() - began < seconds:
            memory.append(process.memory_info().rss)
            await asyncio.sleep(0.5)

    await asyncio.gather(watch(), *(one() for _ in range(128)))
    ended = time.perf_counter()
    async with Client(server) as client:
        while await client.ask([texts[0]]) != 200:
            await asyncio.sleep(0.05)
    settled = memory[len(memory) // 4 :]
    return {
        "seconds": seconds,
        "sent_over_capacity": round(sum(statuses.values()) * size / seconds / rate, 1),
        "statuses": {str(status): count for status, count in sorted(statuses.items())},
        "memory_mb_first_last_max": [
            round(value / 2**20, 1) for value in (settled[0], settled[-1], max(settled))
        ],
        "recovery_seconds": round(time.perf_counter() - ended, 3),
    }


def _ms(durations: list[float], percentile: int) -> float:
    return round(1000 * float(np.percentile(durations, percentile)), 2)


@contextmanager
def running(command: list[str], *, path: str, key: str) -> Iterator[Server]:
    """Yield a server once it has printed its port at the end of an address."""
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        try:
            line = process.stdout.readline() if process.stdout else ""
            if not line:
                raise SystemExit(f"{' '.join(command)}: ended before it answered")
            yield Server(process, int(line.split()[0].rpartition(":")[2]), path, key)
        finally:
            process.terminate()


def load_pipeline(merged: str) -> Any:
    """Return the merged model as a pipeline with the usual batches."""
    from transformers import pipeline

    return pipeline(
        "text-classification",
        model=merged,
        tokenizer=merged,
        batch_size=32,
        device="cpu",
        # The class of a pooled head lies beside it; it was written by `pennyweight merge`.
        trust_remote_code=True,
    )


def serve_pipeline(merged: str) -> None:
    """Serve the pipeline, as tutorials show it."""
    import socket

    import fastapi
    import uvicorn

    classify = load_pipeline(merged)
    # A pipeline is not made for several threads.
    lock = threading.Lock()
    app = fastapi.FastAPI()

    @app.post("/classify")
    def answer(body: dict[str, list[str]]) -> list[dict[str, Any]]:
        with lock:
            return classify(body["texts"], truncation=True)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
        uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listener])


def bare_forward(merged: str) -> Any:
    """Return a function from a text to the logits of the plain model, as simple as can be."""
    import torch

    pipe = load_pipeline(merged)

    def forward(text: str) -> Any:
        with torch.inference_mode():
            inputs = pipe.tokenizer(text, truncation=True, return_tensors="pt")
            return pipe.model(**inputs).logits

    return forward


def read_texts(labels: tuple[str, ...], *, source: str = "sample:test") -> list[str]:
    """Return the texts of a file, or of the bundled test set."""
    from pennyweight.data.ingest import ReadOptions, read_rows
    from pennyweight.data.source import Source
    from pennyweight.environment import cache_directory

    options = ReadOptions(labels, (), "stop", cache_directory() / "rows")
    return read_rows("texts", Source(source), options, labelled=False).table["text"][:]


def measure(run: str, options: argparse.Namespace) -> dict[str, Any]:
    """Start both servers, and return all results."""
    import pennyweight
    from pennyweight.environment import describe_environment

    classifier = pennyweight.Classifier.load(run)
    texts = read_texts(classifier.labels, source=options.data)
    precision = classifier.precision
    with tempfile.TemporaryDirectory() as folder:
        merged = str(Path(folder) / "merged")
        classifier.merge(merged)
        del classifier
        ours = [sys.executable, "-m", "pennyweight", "serve", run, "--port", "0"]
        peer = [sys.executable, __file__, "--peer", merged]
        with (
            running(ours, path="/v1/classify", key="texts") as pennyweight_server,
            running(peer, path="/classify", key="texts") as peer_server,
        ):
            servers = {"pennyweight": pennyweight_server, "pipeline": peer_server}
            throughput = asyncio.run(compare(servers, texts, options))
            bulk = throughput[f"texts per request: {SIZES[-1]}"]["pennyweight"]
            rate = statistics.median(bulk["texts_per_second"])
            under_load = asyncio.run(
                overload(pennyweight_server, texts, rate=rate, seconds=options.overload_seconds)
            )
            at_idle = asyncio.run(idle(pennyweight_server, texts, bare_forward(merged)))
    return {
        "machine": describe_environment()["processor"],
        "precision": {"pennyweight": precision, "pipeline": "fp32"},
        "texts": options.data if options.data.startswith("sample:") else Path(options.data).name,
        "mean_characters": round(statistics.mean(map(len, texts)), 1),
        "threads": int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1),
        "throughput": throughput,
        "idle": at_idle,
        "overload": under_load,
    }


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", nargs="?", help="directory of a complete run")
    parser.add_argument("--peer", metavar="MERGED", help=argparse.SUPPRESS)
    parser.add_argument("--data", default="sample:test", help="texts to classify")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--overload-seconds", type=float, default=60)
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    if options.peer:
        serve_pipeline(options.peer)
        return
    if not options.run:
        parser.error("name a run")
    results = measure(options.run, options)
    options.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
