"""Many clients at once, and signals, against a server in a process of its own."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest

from serve.planted import expected, plant
from serve.processes import ServerProcess, serving

_CLIENTS = 50
_NAMES = ("a", "b", "c", "d")


def client_of(server: ServerProcess) -> httpx2.AsyncClient:
    limits = httpx2.Limits(max_connections=200, max_keepalive_connections=200)
    return httpx2.AsyncClient(base_url=server.address, timeout=30, limits=limits)


@dataclass
class Versions:
    """The versions of each classifier that may answer: from `oldest` to `newest`."""

    oldest: Counter[str] = field(default_factory=Counter)
    newest: Counter[str] = field(default_factory=Counter)
    swaps: int = 0


async def swap(
    client: httpx2.AsyncClient, folder: Path, versions: Versions, *, until: float
) -> None:
    """Replace classifiers by ones with other labels, and now and then add and remove one."""
    while time.monotonic() < until:
        name = random.choice(_NAMES)
        version = versions.newest[name] + 1
        plant(folder / f"{name}-{version}", f"{name}-{version}", classes=2 + version % 4)
        versions.newest[name] = version
        body = {"directory": f"{name}-{version}"}
        answer = await client.put(f"/v1/classifiers/{name}", json=body)
        assert answer.status_code == 200, answer.text
        versions.oldest[name] = version
        versions.swaps += 1
        if version % 5 == 0:
            added = await client.put("/v1/classifiers/extra", json=body)
            removed = await client.delete("/v1/classifiers/extra")
            assert (added.status_code, removed.status_code) == (200, 204)


async def ask(client: httpx2.AsyncClient, versions: Versions, *, until: float) -> int:
    """Classify texts by random classifiers, check every answer, and return their number."""
    requests = 0
    while time.monotonic() < until:
        names = random.choices(_NAMES, k=random.randint(1, 3))
        texts = [f"text {random.random()}" for _ in names]
        oldest = versions.oldest.copy()
        body = {"texts": texts, "classifier": names}
        answer = await client.post("/v1/classify", json=body)
        assert answer.status_code == 200, answer.text
        for text, name, result in zip(texts, names, answer.json()["results"], strict=True):
            given = {one["label"]: one["probability"] for one in result["probabilities"]}
            [tag] = {label.rpartition("-")[0] for label in given}
            assert tag.partition("-")[0] == result["classifier"] == name
            assert oldest[name] <= int(tag.partition("-")[2]) <= versions.newest[name]
            values = expected(tag, text, len(given)).tolist()
            assert given == {f"{tag}-{index}": value for index, value in enumerate(values)}
        requests += 1
    return requests


async def _swap_under_load(server: ServerProcess, folder: Path, seconds: float) -> tuple[int, int]:
    versions = Versions()
    until = time.monotonic() + seconds
    async with client_of(server) as client:
        clients = (ask(client, versions, until=until) for _ in range(_CLIENTS))
        *requests, _ = await asyncio.gather(*clients, swap(client, folder, versions, until=until))
    return sum(map(int, requests)), versions.swaps


@pytest.mark.parametrize("seconds", [3, pytest.param(60, marks=pytest.mark.slow)])
def test_swapping_classifiers_under_50_clients_drops_and_mixes_nothing(
    tmp_path: Path, seconds: float
) -> None:
    folder = tmp_path / "runs"
    for name in _NAMES:
        plant(folder / name, f"{name}-0")
    with serving(folder, log=tmp_path / "log", seconds=0.002) as server:
        requests, swaps = asyncio.run(_swap_under_load(server, folder, seconds))
        assert requests >= 10 * seconds
        assert swaps >= seconds / 2
        log = [json.loads(line) for line in server.log.read_text().splitlines()]
    assert {line["status"] for line in log if line["event"] == "request"} <= {200, 204}


async def _press(client: httpx2.AsyncClient, until: float, answers: list[httpx2.Response]) -> None:
    while time.monotonic() < until:
        body = {"texts": ["x" * 1000] * 16}
        answers.append(await client.post("/v1/classify", json=body))
        await asyncio.sleep(0.05)


async def _overload(server: ServerProcess, seconds: float) -> tuple[list[httpx2.Response], float]:
    """Return the answers under overload, and the seconds of an answer right after it."""
    answers: list[httpx2.Response] = []
    async with client_of(server) as client:
        until = time.monotonic() + seconds
        await asyncio.gather(*(_press(client, until, answers) for _ in range(_CLIENTS)))
        began = time.monotonic()
        recovered = await client.post("/v1/classify", json={"texts": ["x"]})
        assert recovered.status_code == 200
        return answers, time.monotonic() - began


@pytest.mark.parametrize("seconds", [3, pytest.param(60, marks=pytest.mark.slow)])
def test_overload_is_refused_in_flat_memory_and_is_over_at_once(
    tmp_path: Path, seconds: float
) -> None:
    plant(tmp_path / "runs" / "a", "a")
    # 200 texts a second can be computed.
    with serving(
        tmp_path / "runs", log=tmp_path / "log", seconds_per_row=0.005, queue_rows=64
    ) as server:
        process = psutil.Process(server.process.pid)
        asyncio.run(_overload(server, 1))
        before = process.memory_info().rss
        answers, recovery = asyncio.run(_overload(server, seconds))
        grown = process.memory_info().rss - before
    statuses = Counter(answer.status_code for answer in answers)
    assert set(statuses) == {200, 429}
    assert statuses[429] > statuses[200]
    assert all(
        int(answer.headers["Retry-After"]) >= 1 for answer in answers if answer.status_code == 429
    )
    assert statuses[200] * 16 >= 100 * seconds
    assert grown < 16 << 20
    assert recovery < 1


async def _stop_under_load(server: ServerProcess) -> tuple[list[int], int]:
    """Return the statuses of accepted requests, and that of /readyz after the signal."""
    async with client_of(server) as client:
        assert (await client.get("/readyz")).status_code == 200
        body: dict[str, Any] = {"texts": ["x"] * 8}
        requests = [asyncio.create_task(client.post("/v1/classify", json=body)) for _ in range(20)]
        await asyncio.sleep(0.3)
        server.process.send_signal(signal.SIGTERM)
        await asyncio.sleep(0.2)
        ready = (await client.get("/readyz")).status_code
        # Until the server closes its socket, new requests are still accepted.
        requests.append(asyncio.create_task(client.post("/v1/classify", json=body)))
        return [answer.status_code for answer in await asyncio.gather(*requests)], ready


def test_on_sigterm_the_server_answers_what_it_accepted_and_exits_with_0(tmp_path: Path) -> None:
    plant(tmp_path / "runs" / "a", "a")
    with serving(tmp_path / "runs", log=tmp_path / "log", seconds=0.3) as server:
        statuses, ready = asyncio.run(_stop_under_load(server))
        assert statuses == [200] * 21
        assert ready == 503
        assert server.process.wait(10) == 0
        events = [json.loads(line)["event"] for line in server.log.read_text().splitlines()]
    assert events[0] == "listening"
    assert events[-1] == "stopped"
    assert events.count("stopping") == 1


def test_on_sigint_an_idle_server_stops_at_once(tmp_path: Path) -> None:
    plant(tmp_path / "runs" / "a", "a")
    with serving(tmp_path / "runs", log=tmp_path / "log") as server:
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(5) == 0


async def _interrupt_twice(server: ServerProcess) -> int:
    """Return the exit status after two signals while a batch is computed."""
    async with client_of(server) as client:
        request = asyncio.create_task(client.post("/v1/classify", json={"texts": ["x"]}))
        await asyncio.sleep(0.5)
        for _ in range(2):
            server.process.send_signal(signal.SIGINT)
            await asyncio.sleep(0.2)
        status = await asyncio.to_thread(server.process.wait, 5)
        with pytest.raises(httpx2.HTTPError):
            await request
    return status


def test_a_second_signal_ends_the_server_in_the_middle_of_a_batch(tmp_path: Path) -> None:
    plant(tmp_path / "runs" / "a", "a")
    with serving(tmp_path / "runs", log=tmp_path / "log", seconds=60.0, timeout=60.0) as server:
        assert asyncio.run(_interrupt_twice(server)) == 130
        last = json.loads(server.log.read_text().splitlines()[-1])
    assert (last["event"], last["forced"]) == ("stopped", True)


def test_a_client_that_never_ends_its_request_holds_nothing(tmp_path: Path) -> None:
    plant(tmp_path / "runs" / "a", "a")
    with serving(tmp_path / "runs", log=tmp_path / "log", timeout=0.5) as server:
        answer = asyncio.run(_send_half(server))
    assert answer.startswith(b"HTTP/1.1 408")
    assert b"was not received within 0.5 s" in answer


async def _send_half(server: ServerProcess) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", httpx2.URL(server.address).port)
    writer.write(b"POST /v1/classify HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{")
    await writer.drain()
    answer = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    return answer
