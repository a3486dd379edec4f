"""Hostile files and requests: what each holds, and the function of Pennyweight that reads it.

Every case tries to execute code, to read a file outside its own directory, to use the network, or
to cost far more than its size. A case that runs code writes the file `marker`; one that reads
outside returns the content of the file `secret`, or makes an audit hook see it.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pennyweight.data.read import open_file
from pennyweight.recipe import load_recipe
from pennyweight.recipe.plan_file import read_plan_file
from pennyweight.recipe.study import load_study
from pennyweight.runs.directory import verify_artifact
from pennyweight.runs.predictions import load_predictions
from pennyweight.runs.record import load_record

SECRET = "the content of a file outside"


@dataclass(frozen=True)
class Place:
    """The place of a case: its own folder, and files that it must not touch."""

    folder: Path
    marker: Path
    secret: Path
    base: Path

    def write(self, name: str, content: str | bytes) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    @property
    def code(self) -> str:
        return f"open({str(self.marker)!r}, 'w').close()"


Attack = Callable[[Place], Any]


class Calls:
    """Pickles as a call of a function with arguments."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def _rows(path: Path) -> list[Any]:
    return [record.values for record in open_file(path).records(None)]


# Pickled data sets.


def _text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def _named(module: str, name: str, argument: str) -> bytes:
    return b"\x80\x04" + _text(module) + _text(name) + b"\x93" + _text(argument) + b"\x85R."


def _typed(names: Any) -> bytes:
    """A pickled data set whose class names are these values."""
    kind = datasets.ClassLabel(names=["a", "b"])
    features = datasets.Features({"text": datasets.Value("string"), "label": kind})
    rows = datasets.Dataset.from_dict({"text": ["x"], "label": [0]}).cast(features)
    rows.info.features["label"].names = names
    return pickle.dumps(rows)


def _doubling(levels: int) -> Any:
    value: Any = ("x",)
    for _ in range(levels):
        value = (value, value)
    return value


def _shared_blocks() -> bytes:
    """A data set of 400 blocks that each name the same 400 chunks."""
    chunk = pa.array(["x" * 10])
    column = pa.chunked_array([chunk] * 400)
    block = datasets.table.InMemoryTable(pa.table({"text": column}))
    rows = datasets.Dataset.from_dict({"text": ["x"]})
    rows._data = datasets.table.ConcatenationTable(block.table, [[block]] * 400)
    return pickle.dumps(rows)


PICKLES: dict[str, Callable[[Place], bytes]] = {
    "os.system": lambda p: pickle.dumps(Calls(os.system, f"touch {p.marker}")),
    "os.system, protocol 0": lambda p: pickle.dumps(Calls(os.system, f"touch {p.marker}"), 0),
    "eval": lambda p: pickle.dumps(Calls(eval, p.code)),
    "exec": lambda p: pickle.dumps(Calls(exec, p.code)),
    "getattr": lambda p: pickle.dumps(Calls(getattr, "text", "upper")),
    "opens a file": lambda p: pickle.dumps(Calls(open, str(p.secret))),
    "an attribute of an allowed module": lambda p: _named(
        "datasets.arrow_dataset", "os.system", f"touch {p.marker}"
    ),
    "a file of an allowed class": lambda p: _named(
        "datasets.arrow_dataset", "Dataset.from_csv", str(p.secret)
    ),
    "the opcode INST": lambda p: b"(S'touch " + str(p.marker).encode() + b"'\nios\nsystem\n.",
    "the opcode OBJ": lambda p: b"(cos\nsystem\n" + _text(f"touch {p.marker}") + b"o.",
    "a memory-mapped table": lambda p: _named("datasets.table", "MemoryMappedTable", str(p.secret)),
    "an array of objects": lambda p: pickle.dumps(np.array([Calls(exec, p.code)])),
    "a tensor": lambda p: _named("torch._utils", "_rebuild_tensor_v2", "x"),
    "an extension code": lambda p: b"\x80\x04\x82\xf0)R.",
    "class names that double": lambda p: _typed([_doubling(40)]),
    "class names nested deeply": lambda p: _typed([_nested_list(400)]),
    "blocks that share chunks": lambda p: _shared_blocks(),
}


def _nested_list(levels: int) -> Any:
    value: Any = "x"
    for _ in range(levels):
        value = [value]
    return value


# Recipes, plans and studies.


def _recipe(place: Place, text: str) -> Any:
    return load_recipe(place.write("recipe.toml", text))


def _pipe(place: Place, name: str = "pipe") -> Path:
    os.mkfifo(place.folder / name)
    return place.folder / name


def _plan(place: Place, text: str) -> Any:
    return read_plan_file(place.write("plan.toml", text))


_DEEP = "x = " + "[" * 5000 + "]" * 5000
RECIPES: dict[str, Attack] = {
    "extends an endless device": lambda p: _recipe(p, 'extends = "/dev/zero"'),
    "extends a pipe": lambda p: _recipe(p, f'extends = "{_pipe(p)}"'),
    "extends a private file": lambda p: _recipe(p, f'extends = "{p.secret}"'),
    "extends itself": lambda p: _recipe(p, 'extends = "recipe.toml"'),
    "a pipe": lambda p: load_recipe(_pipe(p)),
    "lists nested deeply": lambda p: _recipe(p, _DEEP),
    "keys nested deeply": lambda p: _recipe(p, ".".join("a" * 3000) + " = 1"),
    "an endless seed": lambda p: _recipe(p, "seed = 18446744073709551616"),
    "a number of 10,000 digits": lambda p: _recipe(p, "seed = " + "9" * 10_000),
    "a name with a NUL": lambda p: load_recipe("a\0b"),
    "not UTF-8": lambda p: load_recipe(p.write("recipe.toml", b"seed = \xff")),
    "a plan nested deeply": lambda p: _plan(p, _DEEP),
    "a plan that is a pipe": lambda p: read_plan_file(_pipe(p)),
    "a study of a billion rows": lambda p: load_study(
        p.write(
            "study.toml",
            'recipe = "demo"\n[grid]\n' + "\n".join(f"a{n} = {list(range(10))}" for n in range(9)),
        )
    ),
    "a study that is a pipe": lambda p: load_study(_pipe(p)),
}

# Records and what lies beside them.


def _record(place: Place, content: str | bytes) -> Any:
    return load_record(place.write("run/record.json", content).parent)


def _listed_file(place: Place, name: str) -> Any:
    from runs.records import example_record

    record = example_record()
    artifact = place.folder / "adapter"
    artifact.mkdir()
    facts = type(record.artifact)(directory="adapter", files={name: "0" * 64})
    return verify_artifact(place.folder, record.with_changes(artifact=facts), artifact)


def _arrays(place: Place, content: bytes) -> Any:
    return load_predictions(place.write("run/predictions.npz", content).parent, "test")


def _npz(*, compressed: bool, array: Any) -> bytes:
    buffer = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(buffer, test=array, **{"test.labels": array})
    return buffer.getvalue()


def _bomb() -> bytes:
    """A file of compressed arrays that unpack to 300 MiB."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(10):
            archive.writestr(f"{number}.npy", b"\0" * (30 * 2**20))
    return buffer.getvalue()


RECORDS: dict[str, Attack] = {
    "a list": lambda p: _record(p, "[]"),
    "a text": lambda p: _record(p, '"x"'),
    "null": lambda p: _record(p, "null"),
    "nested deeply": lambda p: _record(p, "[" * 100_000),
    "not UTF-8": lambda p: _record(p, b"\xff\xfe"),
    "a number of 10,000 digits": lambda p: _record(p, "9" * 10_000),
    "lists a file outside": lambda p: _listed_file(p, f"../{p.secret.name}"),
    "lists an absolute path": lambda p: _listed_file(p, str(p.secret)),
    "lists an endless device": lambda p: _listed_file(p, "/dev/zero"),
    "predictions that are objects": lambda p: _arrays(
        p, _npz(compressed=False, array=np.array([Calls(exec, p.code)], dtype=object))
    ),
    "predictions that unpack to gigabytes": lambda p: _arrays(p, _bomb()),
    "truncated predictions": lambda p: _arrays(
        p, _npz(compressed=False, array=np.zeros(100))[:300]
    ),
    "predictions of no bytes": lambda p: _arrays(p, b""),
}

# Archives and files of rows.


def _saved(place: Place, *, outside: str | None = None, **files: str) -> Any:
    directory = place.folder / "saved"
    datasets.Dataset.from_dict({"text": ["x"], "label": [0]}).save_to_disk(str(directory))
    if outside is not None:
        path = directory / "state.json"
        state = json.loads(path.read_text())
        path.write_text(json.dumps({**state, "_data_files": [{"filename": outside}]}))
    for name, text in files.items():
        (directory / f"{name}.json").write_text(text)
    return _rows(directory)


def _parquet(place: Place, text: str, *, rows: int = 1) -> Any:
    path = place.folder / "rows.parquet"
    texts = pa.array([text])
    if rows > 1:
        texts = pa.DictionaryArray.from_arrays(np.zeros(rows, dtype=np.int32), texts)
    table = pa.table({"text": texts, "label": [0] * rows})
    pq.write_table(table, path, compression="zstd", use_dictionary=rows > 1)
    return _rows(path)


def _one_long_row(place: Place) -> Any:
    rows = datasets.Dataset.from_dict({"text": ["x" * 2**21, "b"]}).select([0] * 2000)
    return _rows(place.write("rows.pkl", pickle.dumps(rows)))


ARCHIVES: dict[str, Attack] = {
    "a saved data set with rows outside": lambda p: _saved(
        p, outside=f"../../{p.secret.parent.name}/rows.arrow"
    ),
    "a saved data set with an absolute path": lambda p: _saved(
        p, outside=str(p.secret.parent / "rows.arrow")
    ),
    "a saved data set whose state is a list": lambda p: _saved(p, state="[]"),
    "a saved data set whose info is a list": lambda p: _saved(p, dataset_info="[1]"),
    "a split that leads outside": lambda p: open_file(
        p.write("saved/dataset_dict.json", '{"splits": ["../.."]}').parent, split="../.."
    ),
    "splits that are no list": lambda p: open_file(
        p.write("saved/dataset_dict.json", '{"splits": 3}').parent, split="train"
    ),
    "a dictionary of one long text": lambda p: _parquet(p, "x" * 2**19, rows=1000),
    "a compressed value": lambda p: _parquet(p, "x" * (65 * 2**20)),
    "a selection of one long text": _one_long_row,
    "an archive as rows": lambda p: _rows(p.write("rows.csv", b"PK\x03\x04" + b"x" * 100)),
    "100,000 columns": lambda p: _rows(
        p.write("rows.csv", ",".join(f"c{n}" for n in range(100_000)) + "\n")
    ),
    "a pipe as rows": lambda p: _rows(_pipe(p, "rows.csv")),
    "an endless device as rows": lambda p: _rows(Path("/dev/zero")),
}
