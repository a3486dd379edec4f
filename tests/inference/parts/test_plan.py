"""Cutting files into parts: each row is in one of them, whatever the file and the size."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pennyweight.data.ingest import ReadOptions
from pennyweight.data.source import Source
from pennyweight.inference.answers import Answers
from pennyweight.inference.parts import predictor as module
from pennyweight.inference.parts.files import find_files
from pennyweight.inference.parts.plan import PredictJob, parts_of
from pennyweight.inference.parts.predictor import PartPredictor

LABELS = ("odd", "even")


class Lengths:
    """Stands for a classifier: the probability of a text follows from its length alone."""

    def cleaned_probabilities(self, texts: list[str]) -> np.ndarray:
        odd = np.array([0.3 + 0.001 * (len(text) % 500) for text in texts]).reshape(-1)
        return np.stack([odd, 1 - odd], axis=1)


def as_csv(texts: list[str]) -> bytes:
    quoted = (text.replace('"', '""') for text in texts)
    return ("text\n" + "".join(f'"{text}"\n\n' for text in quoted)).encode()


def as_jsonl(texts: list[str]) -> bytes:
    return "".join(json.dumps({"text": text}) + "\n \n" for text in texts).encode()


def as_lines(texts: list[str]) -> bytes:
    lines = (" ".join(text.splitlines()).strip() or "-" for text in texts)
    return "\ufeff".encode() + "".join(f"{line}\r\n" for line in lines).encode()


def as_parquet(texts: list[str]) -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.table({"text": pa.array(texts, pa.string())}), file, row_group_size=7)
    return file.getvalue()


def zstd(content: bytes) -> bytes:
    return bytes(pa.compress(content, "zstd", asbytes=True))


FORMATS = {"csv": as_csv, "jsonl": as_jsonl, "lines": as_lines, "parquet": as_parquet}
ENDINGS = {"csv": ".csv", "jsonl": ".jsonl", "lines": ".txt", "parquet": ".parquet"}
COMPRESSIONS = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress, ".zst": zstd}
TEXTS = st.lists(
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1).filter(
        lambda text: bool(text.strip())
    ),
    min_size=1,
    max_size=30,
)


def job_of(folder: Path, data_format: str, rows: int, output_format: Any = "csv") -> PredictJob:
    return PredictJob(
        run="",
        out=str(folder / f"out-{rows}"),
        source=Source("", data_format),
        options=ReadOptions(LABELS, (), "stop", folder),
        answers=Answers(LABELS, None),
        copied={"text": "text"},
        copies_all=True,
        output_format=output_format,
        rows_per_part=rows,
        backend="torch",
    )


def predicted(job: PredictJob, path: Path, *, reuse: bool) -> list[bytes]:
    """Return the content of each part, computed by one worker, or by one worker each."""
    (file,) = find_files(str(path))
    predictor, contents = PartPredictor(job), []
    for part in parts_of(job, file):
        predictor = predictor if reuse else PartPredictor(job)
        done = predictor(part)
        assert (done.rows, done.end[0]) == (part.rows, part.end.row)
        contents.append(Path(job.out, done.path).read_bytes())
    return contents


@pytest.fixture(autouse=True)
def without_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.Classifier, "load", lambda run, backend: Lengths())


@pytest.mark.parametrize("data_format", FORMATS)
@settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(texts=TEXTS, rows=st.integers(1, 12), reuse=st.booleans(), data=st.data())
def test_any_split_gives_the_same_bytes(
    tmp_path_factory: pytest.TempPathFactory,
    data_format: str,
    texts: list[str],
    rows: int,
    reuse: bool,
    data: st.DataObject,
) -> None:
    folder = tmp_path_factory.mktemp("plan")
    content, name = FORMATS[data_format](texts), f"rows{ENDINGS[data_format]}"
    if data_format != "parquet":
        ending = data.draw(st.sampled_from(["", *COMPRESSIONS]))
        content, name = COMPRESSIONS.get(ending, bytes)(content), f"{name}{ending}"
    path = folder / name
    path.write_bytes(content)
    (whole,) = predicted(job_of(folder, data_format, 1000), path, reuse=True)
    parts = predicted(job_of(folder, data_format, rows), path, reuse=reuse)
    assert len(parts) == -(-len(texts) // rows)
    header = whole[: whole.index(b"\n") + 1]
    assert all(part.startswith(header) for part in parts)
    assert header + b"".join(part.removeprefix(header) for part in parts) == whole


def test_parts_begin_behind_rows_of_several_lines_and_behind_bad_ones(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(b'text\n"one\ntwo"\r\n\n"three\nfour\n"fi ve"\nsix,7\n\xff\neight\n')
    (file,) = find_files(str(path))
    parts = list(parts_of(job_of(tmp_path, "csv", 1), file))
    ends = [part.start.byte for part in parts][1:]
    content = path.read_bytes()
    assert [content[:end].count(b"\n") + 1 for end in ends] == [p.start.line for p in parts[1:]]
    assert [part.start.row for part in parts] == list(range(len(parts)))
    assert parts[-1].end.byte == len(content)
