"""A server writes texts by instruction: repeatably, in parts, and with the target as examples."""

from __future__ import annotations

import hashlib
import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lab.stub_server import Reply, answer_with, serve
from pennyweight.errors import DataError
from pennyweight.lab.endpoint import Endpoint
from pennyweight.lab.instructions import (
    ImitatedTexts,
    InstructedGeneration,
    load_instructions,
    write_instructed,
)
from tiny import LABELS, news

TARGET = [text for _, text in news(30, seed=5)]
IMITATED = ImitatedTexts(TARGET, np.array([len(text.split()) for text in TARGET]))
GENERATION = InstructedGeneration(
    per_class=10, lengths="empirical", longest=20, examples=3, temperature=0.7, top_p=0.9, seed=3
)
INSTRUCTIONS = {label: f"{label}: {{label}}, {{words}} words.\n{{examples}}" for label in LABELS}


def _hashed(request: dict[str, Any]) -> Reply:
    """Answer with words that depend on the whole request."""
    digest = hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()
    return answer_with(f'"a {digest[:8]}   text"')


def _endpoint(url: str, **changes: Any) -> Endpoint:
    plain = Endpoint(url, "small", api_key_env=None, concurrency=4, timeout_seconds=10.0)
    return replace(plain, **changes)


def _write(
    endpoint: Endpoint, parts: Path, generation: InstructedGeneration = GENERATION
) -> tuple[list[dict[str, Any]], list[str]]:
    lines: list[str] = []
    table = write_instructed(
        endpoint, INSTRUCTIONS, IMITATED, generation, parts=parts, log=lines.append
    )
    return table.to_pylist(), lines


def test_texts_have_their_provenance_and_the_same_requests_give_the_same_texts(
    tmp_path: Path,
) -> None:
    with serve(_hashed) as stub:
        rows, lines = _write(_endpoint(stub.url), tmp_path / "a")
        again, _ = _write(_endpoint(stub.url, concurrency=1), tmp_path / "b")
    assert rows == again
    assert [row["label"] for row in rows] == [0, 1, 2, 3] * 10
    assert len({row["text"] for row in rows}) == 40
    for row in rows:
        assert len(row["text"].split()) == 3
        assert '"' not in row["text"]
        assert len(row["examples"]) == 3
        assert (row["temperature"], row["top_p"]) == (0.7, 0.9)
    assert lines[0] == (
        f"endpoint {stub.url}: 40 texts from the model small, 4 requests at a time; each request "
        "sends 3 texts of data.target to this server"
    )
    assert lines[-1].startswith("generated 40 of 40 texts, ")


def test_a_request_holds_the_instruction_of_its_class_and_the_recorded_examples(
    tmp_path: Path,
) -> None:
    with serve(_hashed) as stub:
        rows, _ = _write(_endpoint(stub.url), tmp_path)
    requests = {request["seed"]: request for request in stub.requests}
    assert len(requests) == 40
    for row in rows:
        request, label = requests[row["seed"]], LABELS[row["label"]]
        (message,) = request["messages"]
        first, *examples = message["content"].split("\n")
        assert first == f"{label}: {label}, {row['words']} words."
        assert [TARGET[index] for index in row["examples"]] == examples[1::3]
        assert request["max_tokens"] >= 4 * row["words"]


def test_so_many_requests_run_at_a_time_and_no_more(tmp_path: Path) -> None:
    # Nobody is answered before three have asked.
    together = threading.Barrier(3)

    def wait_for_others(request: dict[str, Any]) -> Reply:
        together.wait(timeout=10.0)
        return _hashed(request)

    with serve(wait_for_others) as stub:
        generation = replace(GENERATION, per_class=6)
        _write(_endpoint(stub.url, concurrency=3), tmp_path, generation)
    assert stub.most_at_once == 3


def test_an_interrupted_generation_goes_on_with_the_parts_that_are_missing(tmp_path: Path) -> None:
    with serve(_hashed) as stub:
        whole, _ = _write(_endpoint(stub.url), tmp_path / "whole")

        def fail_late(request: dict[str, Any]) -> Reply:
            return _hashed(request) if len(stub.requests) <= 34 else Reply(404, {"error": "gone"})

        stub.requests.clear()
        stub.reply = fail_late
        with pytest.raises(DataError, match="status 404"):
            _write(_endpoint(stub.url), tmp_path / "cut")
        stub.requests.clear()
        stub.reply = _hashed
        rows, lines = _write(_endpoint(stub.url), tmp_path / "cut")
    assert rows == whole
    # Of the part that failed, all texts are asked for again.
    assert 8 <= len(stub.requests) < 16
    assert lines[1] == "generation: continuing after 32 of 40 texts"


def test_a_failure_ends_the_other_requests_before_it_is_raised(tmp_path: Path) -> None:
    # The first request would be made again a minute later, the second one is refused.
    is_waiting = threading.Event()

    def refuse(request: dict[str, Any]) -> Reply:
        if request is stub.requests[0]:
            is_waiting.set()
            return Reply(503, headers={"retry-after": "60"})
        is_waiting.wait(timeout=10.0)
        return Reply(404)

    before = set(threading.enumerate())
    with serve(refuse) as stub:
        with pytest.raises(DataError, match="status 404"):
            _write(_endpoint(stub.url, concurrency=2), tmp_path)
        left = set(threading.enumerate()) - before
    assert not [thread for thread in left if thread.name.startswith("ThreadPoolExecutor")]
    assert len(stub.requests) < len(LABELS) * GENERATION.per_class


def test_texts_and_examples_are_cut_to_the_longest_length(tmp_path: Path) -> None:
    with serve(lambda _: answer_with("one two three four five six")) as stub:
        rows, _ = _write(_endpoint(stub.url), tmp_path, replace(GENERATION, per_class=1, longest=4))
    assert {row["text"] for row in rows} == {"one two three four"}
    for request in stub.requests:
        examples = request["messages"][0]["content"].split("\n")[2::3]
        assert len(examples) == 3
        assert all(len(text.split()) <= 4 for text in examples)


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ('"quoted"', "quoted"),
        ("\u201cquoted\u201d", "quoted"),
        ('"One," he said, "two"', '"One," he said, "two"'),
        ("it's", "it's"),
    ],
)
def test_quotation_marks_around_a_whole_answer_are_removed(
    answer: str, text: str, tmp_path: Path
) -> None:
    with serve(lambda _: answer_with(answer)) as stub:
        rows, _ = _write(_endpoint(stub.url), tmp_path, replace(GENERATION, per_class=1))
    assert {row["text"] for row in rows} == {text}


def test_instructions_come_from_a_file_or_are_the_default(tmp_path: Path) -> None:
    assert set(load_instructions("default", LABELS)) == set(LABELS)
    assert all("{examples}" in text for text in load_instructions("default", LABELS).values())
    file = tmp_path / "instructions.toml"
    file.write_text('spam = "Write {words} words like {examples}"\nham = "Write a text."\n')
    assert load_instructions(str(file), ["spam"]) == {"spam": "Write {words} words like {examples}"}
    with pytest.raises(DataError, match=r'no instruction with \{examples\} for the class "ham"'):
        load_instructions(str(file), ["spam", "ham"])
    with pytest.raises(DataError, match=r"generate\.instructions: .*none\.toml: cannot be read"):
        load_instructions(str(tmp_path / "none.toml"), ["spam"])
