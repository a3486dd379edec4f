"""Change the files of a run in ways that inference must notice, or must still read."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from pennyweight.runs.directory import hash_artifact
from pennyweight.runs.record import load_record, save_record


def flip_a_byte(path: Path) -> None:
    """Change one bit in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def make_weights_nan(run: Path) -> None:
    """Put a NaN into the adapter, and update the recorded hashes as if it had been trained so."""
    path = run / "adapter" / "adapter_model.safetensors"
    weights = load_file(path)
    head = next(name for name in weights if "classifier" in name and name.endswith("weight"))
    weights[head] = torch.full_like(weights[head], torch.nan)
    save_file(weights, path, metadata={"format": "pt"})
    record_hashes(run)


def record_hashes(run: Path) -> None:
    """Record the hashes of an adapter's files as they are now."""
    record = load_record(run)
    save_record(run, record.with_changes(artifact=hash_artifact(run / "adapter")))


def downgrade(run: Path) -> None:
    """Rewrite a run in the format of version 1: `labels.json`, and a record of plain values.

    That version had no temperature.
    """
    record = load_record(run)
    (run / "adapter" / "pennyweight.json").unlink()
    labels = json.dumps(list(record.recipe.data.labels))
    (run / "adapter" / "labels.json").write_text(labels)
    values = record.model_dump(mode="json")
    del values["artifact"], values["process_id"], values["calibration"]
    values["schema_version"] = 1
    values["recipe"] = record.recipe.model_dump(mode="json", exclude_none=True)
    for matrix in values["plan"]["matrices"]:
        del matrix["layer"], matrix["role"]
    values["plan"] |= {"recipe": record.recipe.name, "base": record.recipe.base.name}
    values["data"]["lab"] = values["data"].pop("training")
    best = values["best"]
    values["best"] = {"step": best["step"], best["metric"]: best["value"]}
    values |= {"target": {}, "correction": {}}
    (run / "record.json").write_text(json.dumps(values))
