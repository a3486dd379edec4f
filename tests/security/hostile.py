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
import shutil
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import peft
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors.torch import load_file, save_file

from pennyweight.base import locate
from pennyweight.budget.inspect import inspect_adapter
from pennyweight.data.read import open_file
from pennyweight.model import BaseOptions, load_base, load_tokenizer
from pennyweight.model.artifact import load_adapter, load_whole_model
from pennyweight.recipe import load_recipe
from pennyweight.recipe.plan_file import read_plan_file
from pennyweight.recipe.study import load_study
from pennyweight.runs.directory import verify_artifact
from pennyweight.runs.predictions import load_predictions
from pennyweight.runs.record import load_record

SECRET = "the content of a file outside"
LABELS = ("a", "b")


@dataclass(frozen=True)
class Place:
    """Where a case is built: its own folder, and what it must not touch."""

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
    """A data set of 300 blocks that each name the same 300 chunks."""
    table = datasets.table.InMemoryTable(pa.table({"text": [pa.chunked_array([["x"]])[0]]}))
    chunk = pa.array(["x" * 10])
    column = pa.chunked_array([chunk] * 400)
    block = datasets.table.InMemoryTable(pa.table({"text": column}))
    del table
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


# Adapters.


def adapter(place: Place, **config: Any) -> Path:
    """Save a real adapter of the base, and change keys of its config."""
    model, _ = load_base(locate(str(place.base), labels=LABELS), BaseOptions(seed=0))
    adapted = peft.get_peft_model(
        model, peft.LoraConfig(task_type="SEQ_CLS", r=2, target_modules=["query", "value"])
    )
    directory = place.folder / "adapter"
    adapted.save_pretrained(str(directory), save_embedding_layers=False)
    path = directory / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **config}))
    return directory


def load(place: Place, directory: Path) -> Any:
    """Load an adapter onto the base, as inference does."""
    model, _ = load_base(locate(str(place.base), labels=LABELS), BaseOptions(seed=0))
    return load_adapter(model, directory)


def with_tensors(directory: Path, **tensors: torch.Tensor) -> Path:
    """Add tensors to an adapter's file."""
    path = directory / "adapter_model.safetensors"
    save_file({**load_file(path), **tensors}, path, metadata={"format": "pt"})
    return directory


def _pickled(place: Place, content: Any, *, deflated: bool = False) -> Path:
    directory = adapter(place)
    (directory / "adapter_model.safetensors").unlink()
    path = directory / "adapter_model.bin"
    torch.save(content, path)
    if deflated:
        buffer = io.BytesIO(path.read_bytes())
        with (
            zipfile.ZipFile(buffer) as old,
            zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new,
        ):
            for part in old.infolist():
                new.writestr(part.filename, old.read(part))
    return directory


def _module(place: Place) -> Path:
    place.write("evil_module.py", place.code)
    return adapter(place, megatron_config={"x": 1}, megatron_core="evil_module")


def _renamed(place: Place, name: str, content: bytes) -> Path:
    directory = adapter(place)
    (directory / name).write_bytes(content)
    return directory


def _without_a_tensor(place: Place) -> Path:
    path = adapter(place) / "adapter_model.safetensors"
    tensors = load_file(path)
    del tensors[sorted(tensors)[-1]]
    save_file(tensors, path, metadata={"format": "pt"})
    return path.parent


_SLOW = "(a*)*(a|b|ab)*(x+x+)+y"
ADAPTERS: dict[str, Attack] = {
    "names a module to import": lambda p: load(p, _module(p)),
    "names a parent library to import": lambda p: load(
        p, adapter(p, auto_mapping={"parent_library": "evil", "base_model_class": "x"})
    ),
    "pickled weights that run code": lambda p: inspect_adapter(_pickled(p, Calls(exec, p.code))),
    "pickled weights": lambda p: load(p, _pickled(p, {"a": torch.zeros(2)})),
    "pickled weights, compressed": lambda p: inspect_adapter(
        _pickled(p, {"a": torch.zeros(1000)}, deflated=True)
    ),
    "pickled weights with numbers as names": lambda p: inspect_adapter(
        _pickled(p, {1: torch.zeros(2)})
    ),
    "pickled weights of no bytes": lambda p: inspect_adapter(
        _renamed(p, "adapter_model.safetensors", b"")
    ),
    "targets that take forever to match": lambda p: load(p, adapter(p, target_modules=_SLOW)),
    "ranks whose pattern takes forever": lambda p: load(p, adapter(p, rank_pattern={_SLOW: 2})),
    "an unknown method": lambda p: load(p, adapter(p, peft_type="OWN")),
    "a list as method": lambda p: inspect_adapter(adapter(p, peft_type=["LORA"])),
    "a list as config": lambda p: load(p, _renamed(p, "adapter_config.json", b"[]")),
    "a config nested deeply": lambda p: inspect_adapter(
        _renamed(p, "adapter_config.json", b'{"peft_type":' + b"[" * 5000 + b"]" * 5000 + b"}")
    ),
    "truncated weights": lambda p: load(
        p, _renamed(p, "adapter_model.safetensors", struct.pack("<Q", 10**6) + b"{")
    ),
    "a header of exabytes": lambda p: inspect_adapter(
        _renamed(p, "adapter_model.safetensors", struct.pack("<Q", 2**62) + b"{}")
    ),
    "weights that lack a tensor": lambda p: load(p, _without_a_tensor(p)),
}

# Bases and tokenizers.

_OWN = {
    "AutoConfig": "own.OwnConfig",
    "AutoModelForSequenceClassification": "own.OwnModel",
    "AutoTokenizer": ["own.OwnTokenizer", None],
}


def base(place: Place, **config: Any) -> Path:
    """Copy the base, with code of its own beside it, and change keys of its config."""
    directory = Path(shutil.copytree(place.base, place.folder / "base"))
    (directory / "own.py").write_text(place.code)
    path = directory / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **config}))
    return directory


def load_model(directory: Path) -> Any:
    """Load a base with its tokenizer."""
    located = locate(str(directory), labels=LABELS)
    load_tokenizer(located, tokenizer=None)
    return load_base(located, BaseOptions(seed=0))


def _tokenizer(place: Place, content: str, *, name: str = "tokenizer_config.json") -> Any:
    directory = base(place)
    (directory / name).write_text(content)
    return load_tokenizer(locate(str(directory), labels=LABELS), tokenizer=None)


def without_encoder_weights(directory: Path) -> Path:
    """Rename the query matrices in a base's weights."""
    path = directory / "model.safetensors"
    tensors = {n.replace("query.weight", "x.weight"): t for n, t in load_file(path).items()}
    save_file(tensors, path, metadata={"format": "pt"})
    return directory


def _pickled_base(place: Place) -> Path:
    directory = base(place)
    (directory / "model.safetensors").unlink()
    torch.save(Calls(exec, place.code), directory / "pytorch_model.bin")
    return directory


def _adapter_as_base(place: Place) -> Path:
    directory = base(place)
    outside = place.secret.parent / "other-base"
    config = {"peft_type": "LORA", "base_model_name_or_path": str(outside)}
    (directory / "adapter_config.json").write_text(json.dumps(config))
    return directory


def _replaced(directory: Path, name: str, content: str) -> Path:
    (directory / name).write_text(content)
    return directory


BASES: dict[str, Attack] = {
    "a config with its own code": lambda p: load_model(base(p, auto_map=_OWN, model_type="own")),
    "a known config with code beside it": lambda p: load_model(base(p, auto_map=_OWN)),
    "weights that run code": lambda p: load_model(_pickled_base(p)),
    "an adapter that names a base outside": lambda p: load_model(_adapter_as_base(p)),
    "attention code from the hub": lambda p: load_model(
        base(p, attn_implementation="evil/kernel", _attn_implementation="evil/kernel")
    ),
    "a million layers": lambda p: load_model(base(p, num_hidden_layers=10**6)),
    "an endless width": lambda p: load_model(base(p, hidden_size=10**30)),
    "a number that is a text": lambda p: load_model(base(p, hidden_size="x")),
    "a dtype that is none": lambda p: load_model(base(p, dtype="system", torch_dtype="system")),
    "an unknown quantization": lambda p: load_model(
        base(p, quantization_config={"quant_method": "own"})
    ),
    "a list as config": lambda p: load_model(_replaced(base(p), "config.json", "[]")),
    "a config nested deeply": lambda p: load_model(
        _replaced(base(p), "config.json", "[" * 5000 + "]" * 5000)
    ),
    "weights that lack the encoder's": lambda p: load_model(without_encoder_weights(base(p))),
    "truncated weights": lambda p: load_model(_replaced(base(p), "model.safetensors", "{")),
    "a whole model with its own code": lambda p: load_whole_model(
        base(p, auto_map=_OWN, model_type="own"), attention="eager"
    ),
}
TOKENIZERS: dict[str, Attack] = {
    "its own code": lambda p: _tokenizer(
        p, json.dumps({"tokenizer_class": "OwnTokenizer", "auto_map": _OWN})
    ),
    "a known class with code beside it": lambda p: _tokenizer(
        p, json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "auto_map": _OWN})
    ),
    "a class that is a path": lambda p: _tokenizer(
        p, json.dumps({"tokenizer_class": "../../own.OwnTokenizer"})
    ),
    "a list as config": lambda p: _tokenizer(p, "[]"),
    "nested deeply": lambda p: _tokenizer(p, "[" * 5000 + "]" * 5000, name="tokenizer.json"),
    "not JSON": lambda p: _tokenizer(p, "{", name="tokenizer.json"),
}

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
    "predictions, compressed": lambda p: _arrays(
        p, _npz(compressed=True, array=np.zeros(10**6, dtype=np.int8))
    ),
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
    "a compressed value": lambda p: _parquet(p, "x" * 2**27),
    "a selection of one long text": _one_long_row,
    "an archive as rows": lambda p: _rows(p.write("rows.csv", b"PK\x03\x04" + b"x" * 100)),
    "100,000 columns": lambda p: _rows(
        p.write("rows.csv", ",".join(f"c{n}" for n in range(100_000)) + "\n")
    ),
    "a pipe as rows": lambda p: _rows(_pipe(p, "rows.csv")),
    "an endless device as rows": lambda p: _rows(Path("/dev/zero")),
}
