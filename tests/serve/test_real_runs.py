"""Real runs in a real bank, through the command line."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx2
import numpy as np
import pytest

import pennyweight
from pennyweight.training.train import train
from serve.processes import SOURCE
from tiny import news, tiny_recipe, write_several_labels


@pytest.fixture(scope="module")
def runs(bert: Path, sets: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the runs one and other, which differ in rank, and tags for several labels."""
    folder = tmp_path_factory.mktemp("served")
    train(tiny_recipe(bert, sets), out=folder / "one")
    train(
        tiny_recipe(bert, sets, adapter={"rank": 4}, optimizer={"learning_rate": 0.02}),
        out=folder / "other",
    )
    (folder / "rows").mkdir()
    rows = write_several_labels(folder / "rows")
    recipe = tiny_recipe(bert, rows, data={"task": "multi-label", "label_separator": "|"})
    train(recipe, out=folder / "tags")
    return folder


@pytest.fixture
def address(runs: Path, tmp_path: Path) -> Iterator[str]:
    """The address of `pennyweight serve`, which must exit with 0 on SIGTERM."""
    command = [
        sys.executable,
        "-m",
        "pennyweight",
        "serve",
        str(runs / "one"),
        f"all={runs / 'tags'}",
    ]
    command += ["--port", "0", "--allow-loading-from", str(runs), "--drain-seconds", "0"]
    with (
        (tmp_path / "log").open("w") as log,
        subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env={**os.environ, "PYTHONPATH": str(SOURCE)},
        ) as process,
    ):
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert "serves one, all" in line, (tmp_path / "log").read_text()
            yield line.split()[0]
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0
        finally:
            process.kill()
    assert "minister" not in (tmp_path / "log").read_text()


def test_answers_are_those_of_each_run_alone(runs: Path, address: str) -> None:
    texts = [text for _, text in news(12, seed=9)]
    asyncio.run(_compare(runs, address, texts))


async def _compare(runs: Path, address: str, texts: list[str]) -> None:
    alone = {
        name: pennyweight.Classifier.load(runs / run)
        for name, run in (("one", "one"), ("all", "tags"), ("added", "other"))
    }
    async with httpx2.AsyncClient(base_url=address, timeout=30) as client:
        loaded = await client.post("/v1/classifiers", json={"directory": "other", "name": "added"})
        assert loaded.status_code == 200, loaded.text
        names = [list(alone)[row % 3] for row in range(len(texts))]
        # One request per text, and all at once, so that they meet in batches.
        answers = await asyncio.gather(
            *(
                client.post("/v1/classify", json={"texts": [text], "classifier": name})
                for text, name in zip(texts, names, strict=True)
            )
        )
        missing = await client.put("/v1/classifiers/no", json={"directory": "rows"})
        page = await client.get("/metrics")
    for text, name, answer in zip(texts, names, answers, strict=True):
        [result] = answer.json()["results"]
        given = {one["label"]: one["probability"] for one in result["probabilities"]}
        expected = alone[name].predict_probabilities([text])[0]
        assert (
            np.abs(np.array([given[label] for label in alone[name].labels]) - expected).max() < 1e-5
        )
        labels = alone[name].predict([text])[0]
        assert result["labels"] == ([labels] if isinstance(labels, str) else labels)
    assert missing.status_code == 422
    assert "rows" in json.loads(missing.text)["error"]
    assert 'pennyweight_rows_total{classifier="added"} 4.0' in page.text
