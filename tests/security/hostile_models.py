"""Hostile adapters, bases and tokenizers, and the function of Pennyweight that reads each."""

from __future__ import annotations

import io
import json
import shutil
import struct
import zipfile
from pathlib import Path
from typing import Any

import peft
import torch
from safetensors.torch import load_file, save_file

from pennyweight.base import locate
from pennyweight.budget.inspect import inspect_adapter
from pennyweight.model import BaseOptions, load_base, load_tokenizer
from pennyweight.model.artifact import load_adapter, load_whole_model
from security.hostile import Attack, Calls, Place

_LABELS = ("a", "b")

# Adapters.


def adapter(place: Place, **config: Any) -> Path:
    """Save a real adapter of the base, and change keys of its config."""
    model, _ = load_base(locate(str(place.base), labels=_LABELS), BaseOptions(seed=0))
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
    model, _ = load_base(locate(str(place.base), labels=_LABELS), BaseOptions(seed=0))
    return load_adapter(model, directory)


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
    located = locate(str(directory), labels=_LABELS)
    load_tokenizer(located, tokenizer=None)
    return load_base(located, BaseOptions(seed=0))


def _tokenizer(place: Place, content: str, *, name: str = "tokenizer_config.json") -> Any:
    directory = base(place)
    (directory / name).write_text(content)
    return load_tokenizer(locate(str(directory), labels=_LABELS), tokenizer=None)


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
