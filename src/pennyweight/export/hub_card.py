"""The model card of a folder for the hub: use, limits, training, and how to load it."""

from __future__ import annotations

from pathlib import Path

from pennyweight.inference.card_usage import (
    artifact_notes,
    code_block,
    is_pooled,
    pennyweight_use,
    plain_use,
)
from pennyweight.inference.model_card import CardMetadata, merged_sections, write_card
from pennyweight.recipe import dump_recipe
from pennyweight.runs.record import RunRecord
from pennyweight.runs.results import ordered_sets

__all__ = ["write_hub_card"]

_NO_HEADS = (
    "vLLM cannot load this adapter: it refuses adapters with a trained head (`modules_to_save` in "
    "`adapter_config.json`)."
)


def write_hub_card(
    folder: Path, record: RunRecord, metadata: CardMetadata, *, is_merged: bool
) -> None:
    """Write the README.md of a folder for the hub.

    Args:
        folder: with the files that the card describes.
        record: of the run, without what concerns this machine.
        metadata: for the front matter.
        is_merged: whether the folder holds a whole model and no adapter.

    Raises:
        RunError: the file cannot be written.
    """
    write_card(
        folder,
        record,
        metadata,
        [
            "## Intended use and limits",
            "\n".join(f"- {line}" for line in _limits(record)),
            *(merged_sections(record) if is_merged else _adapter_use(folder, record)),
            "## Use with vLLM",
            _vllm(record, is_merged=is_merged),
            "## Training",
            *_training(record),
        ],
    )


def _adapter_use(folder: Path, record: RunRecord) -> list[str]:
    return [
        "## Use with Pennyweight",
        pennyweight_use(record, directory="DIRECTORY"),
        "`DIRECTORY` is the path of this folder, such as what "
        '`huggingface_hub.snapshot_download("OWNER/NAME")` returns. `record.json` is the record of '
        "the run, from which cleaning, truncation and corrections are taken.",
        "## Use with PEFT",
        plain_use(folder, record),
        *artifact_notes(record, folder),
    ]


def _limits(record: RunRecord) -> list[str]:
    data = record.recipe.data
    lines = [
        "Intended for texts like the training rows, in their language, and for the classes above.",
        "Every text gets one of the classes, also if none fits it."
        if not record.is_multi_label
        else "Labels that were not trained are never given.",
        f"Only {data.max_tokens} tokens of a text are read.",
    ]
    if record.metrics:
        first = ordered_sets(record)[0]
        lines.append(
            f"The expected calibration error on {first} is {record.metrics[first].ece:.2%}; "
            "on texts of another kind, both the labels and the probabilities are worse."
        )
    lines.append(
        "Neither the base nor the training rows were examined for bias. Do not let it decide about "
        "people without a person who checks."
    )
    return lines


def _vllm(record: RunRecord, *, is_merged: bool) -> str:
    if is_pooled(record):
        start = "" if is_merged else f"{_NO_HEADS} "
        return (
            f"{start}vLLM has no class for a linear head on pooled hidden states, so it does not "
            "serve the merged model either. Use Pennyweight, transformers or an ONNX export."
        )
    serve = (
        "vLLM serves merged models of the architectures in its list of classification models:\n\n"
        f"{code_block('vllm serve DIRECTORY --runner pooling', '')}\n\n"
        "This follows vLLM's documentation, and was not tried with this model."
    )
    if is_merged:
        return serve
    merge = code_block("pennyweight export RUN --to hub --merged --out DIRECTORY", "")
    return f"{_NO_HEADS} Merge it first:\n\n{merge}\n\n{serve}"


def _training(record: RunRecord) -> list[str]:
    lines = []
    counts = record.parameters
    if counts is not None:
        proof = (
            f"Planned by formula: {counts.planned:,}; counted in the model: {counts.model:,}; "
            f"counted in the saved file: {counts.file:,}; allowed: {counts.budget:,}."
        )
        lines.append(f"Trainable parameters. {proof}")
    if record.data is not None:
        sets = ", ".join(
            f"{name}: {facts.rows:,} rows of `{facts.source}`"
            for name, facts in record.data.sets.items()
        )
        lines.append(f"Rows: {sets}.")
    environment = record.environment
    if environment is not None:
        versions = environment.packages
        named = ("pennyweight", "torch", "transformers", "peft")
        lines.append(
            f"Trained in {record.seconds:.0f} seconds on {environment.processor}, with "
            + ", ".join(f"{name} {versions[name]}" for name in named if name in versions)
            + "."
        )
    lines.append("The complete recipe:")
    lines.append(code_block(dump_recipe(record.recipe).rstrip(), "toml"))
    return lines
