"""The parsers that are fuzzed: each reads bytes, and may raise `PennyweightError` alone."""

from __future__ import annotations

import io
import json
import pickle
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.numpy import save

from pennyweight.budget.inspect import inspect_adapter
from pennyweight.data.read import open_file
from pennyweight.errors import PennyweightError
from pennyweight.inference.correction import load_correction
from pennyweight.recipe import load_recipe
from pennyweight.recipe.plan_file import read_plan_file
from pennyweight.recipe.study import load_study
from pennyweight.runs.predictions import load_predictions
from pennyweight.runs.record import RunRecord, load_record
from runs.records import example_record

__all__ = ["TARGETS", "Target"]

_MOST_ROWS = 200
# One for all inputs: making and removing one for each would take most of the time.
_FOLDER = tempfile.TemporaryDirectory()


@dataclass(frozen=True)
class Target:
    """A parser.

    Attributes:
        name: of the file that the bytes are written to.
        read: reads that file.
        seeds: valid inputs, which are mutated.
    """

    name: str
    read: Callable[[Path], object]
    seeds: tuple[bytes, ...]

    def run(self, content: bytes) -> str:
        """Read some bytes; return the message of a declared error, or "".

        Raises:
            Exception: any error that is not declared.
        """
        path = Path(_FOLDER.name) / self.name / self.name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        try:
            self.read(path)
        except PennyweightError as error:
            return str(error)
        return ""


def _rows(path: Path) -> None:
    for record in open_file(path).records(None):
        if record.number > _MOST_ROWS:
            return


def _inspect_config(path: Path) -> None:
    weights = save({"base_model.model.x.lora_A.weight": np.zeros((2, 3), dtype=np.float32)})
    (path.parent / "adapter_model.safetensors").write_bytes(weights)
    inspect_adapter(path.parent)


def _inspect_weights(path: Path) -> None:
    config = {"peft_type": "LORA", "alpha_pattern": {"a.*": 2}}
    (path.parent / "adapter_config.json").write_text(json.dumps(config))
    inspect_adapter(path.parent)


def _table() -> pa.Table:
    return pa.table({"text": ["one", "zwei", None], "label": [0, 1, 0]})


def _parquet() -> bytes:
    buffer = io.BytesIO()
    pq.write_table(_table(), buffer)
    return buffer.getvalue()


def _npz() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, test=np.arange(3), **{"test.labels": np.arange(3)})
    return buffer.getvalue()


def _pickles() -> tuple[bytes, ...]:
    rows = datasets.Dataset(_table())
    kind = datasets.ClassLabel(names=["a", "b"])
    typed = rows.cast(datasets.Features({"text": datasets.Value("string"), "label": kind}))
    return pickle.dumps(rows, 2), pickle.dumps(typed.select([2, 0])), pickle.dumps(rows, 0)


def _record() -> bytes:
    record: RunRecord = example_record()
    return record.model_dump_json().encode()


_RECIPE = b"""name = "x"\nseed = 3\n[data]\ntrain = "sample:train"\nlabels = ["a", "b"]
[adapter]\nmethod = "lora"\ntargets = ["query", "*.va*e"]\nrank = { query = 2 }\nalpha = "auto"\n"""
_PLAN = b"""[head]\nkind = "full"\n[matrices]\n"a.b" = { rank = 2, alpha = 4.0 }
"c" = { rank = 0 }
"""
_STUDY = b"""recipe = "demo"\nseeds = [1, 2]\n[grid]\n"adapter.rank" = [2, 4]\n"""
_CORRECTION = b'{"temperature": 1.5, "source": [0.5, 0.5], "priors": [[0.2, 0.8]], "groups": null}'

TARGETS: dict[str, Target] = {
    "recipe": Target("recipe.toml", load_recipe, (_RECIPE,)),
    "study": Target("study.toml", load_study, (_STUDY,)),
    "plan": Target("plan.toml", read_plan_file, (_PLAN,)),
    "record": Target("record.json", lambda path: load_record(path.parent), (_record(),)),
    "adapter-config": Target(
        "adapter_config.json",
        _inspect_config,
        (b'{"peft_type": "LORA", "lora_alpha": 2, "alpha_pattern": {"(x|y)+": 3}}',),
    ),
    "safetensors": Target(
        "adapter_model.safetensors",
        _inspect_weights,
        (save({"a.lora_A.weight": np.zeros((2, 3)), "a.modules_to_save.x": np.zeros(3)}),),
    ),
    "correction": Target(
        "correction.json", lambda path: load_correction(path.parent), (_CORRECTION,)
    ),
    "predictions": Target(
        "predictions.npz", lambda path: load_predictions(path.parent, "test"), (_npz(),)
    ),
    "pickle": Target("rows.pkl", _rows, _pickles()),
    "csv": Target("rows.csv", _rows, (b'text,label\n"a ""b"" c",1\nd,2\n', b'"1","a","b"\n')),
    "tsv": Target("rows.tsv", _rows, (b"text\tlabel\na\t1\n",)),
    "jsonl": Target("rows.jsonl", _rows, (b'{"text": "a", "label": 1}\n{"text": null}\n',)),
    "parquet": Target("rows.parquet", _rows, (_parquet(),)),
}


def _warm_up() -> None:
    for target in TARGETS.values():
        for seed in target.seeds:
            with suppress(PennyweightError):
                target.run(seed)


_warm_up()
