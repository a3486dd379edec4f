"""The README of an ONNX export: code that needs ONNX Runtime and tokenizers alone, and figures."""

from __future__ import annotations

from pathlib import Path

from pennyweight.export.report import OnnxReport
from pennyweight.inference.card_usage import code_block, usage_notes
from pennyweight.inference.classifier import Classifier
from pennyweight.inference.model_card import CardMetadata, write_card

__all__ = ["write_onnx_card"]

_CODE = """\
import json
import numpy as np
from onnxruntime import InferenceSession
from tokenizers import Tokenizer

config = json.load(open("config.json"))
rows = Tokenizer.from_file("tokenizer.json").encode_batch({texts})
inputs = {{"input_ids": np.array([row.ids for row in rows])}}
inputs["attention_mask"] = np.array([row.attention_mask for row in rows])
{token_types}(logits,) = InferenceSession("model.onnx").run(["logits"], inputs)
{answer}"""
_TYPES = 'inputs["token_type_ids"] = np.array([row.type_ids for row in rows])\n'
_ONE_LABEL = 'print([config["labels"][index] for index in logits.argmax(axis=1)])'
_SEVERAL_LABELS = """\
given = 1 / (1 + np.exp(-logits)) >= np.array(config["thresholds"])
print([[config["labels"][index] for index in np.flatnonzero(row)] for row in given])"""


def write_onnx_card(
    directory: Path, classifier: Classifier, report: OnnxReport, *, license_id: str
) -> None:
    """Write the README.md of an ONNX export.

    Raises:
        RunError: the file cannot be written.
    """
    record = classifier.record
    metadata = CardMetadata(
        "onnx", license_id, relation="finetune" if report.precision == "fp32" else "quantized"
    )
    sections = [
        "The adapter is merged into the weights of the base, and the model is exported to ONNX.",
        "## Use with ONNX Runtime",
        "In this folder, after `pip install onnxruntime tokenizers`:",
        code_block(_code(classifier), "python"),
        "\n".join(f"- {note}" for note in _notes(classifier)),
        "## Sizes, rates and agreement",
        _table(report),
        _measurement(report),
    ]
    write_card(directory, record, metadata, sections)


def _code(classifier: Classifier) -> str:
    pairs = classifier.pair_columns is not None
    return _CODE.format(
        texts='[("A text.", "Another text.")]' if pairs else '["A text.", "Another text."]',
        token_types=_TYPES if classifier.reads_token_types else "",
        answer=_SEVERAL_LABELS if classifier.task == "multi-label" else _ONE_LABEL,
    )


def _notes(classifier: Classifier) -> list[str]:
    notes = list(usage_notes(classifier.record, truncates=False))
    notes.append(
        f"`tokenizer.json` truncates to {classifier.settings.inference.max_tokens} tokens and pads."
    )
    if classifier.has_correction:
        notes.append(
            "The run's correction for class shares and its temperature are part of the model."
        )
    return notes


def _table(report: OnnxReport) -> str:
    header, *lines = report.table()
    rows = [header, ["---"] * len(header), *lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _measurement(report: OnnxReport) -> str:
    text = (
        f"Measured on {report.rows:,} rows of `{report.source}`, with tokenization, on "
        f"{report.processor} with {report.threads} threads, by PyTorch {report.torch} and ONNX "
        f"Runtime {report.onnxruntime}. The last two columns are the share of rows with the same "
        "label. `export.json` has all figures."
    )
    if report.quantized:
        text += f" In 8 bits: {report.quantized}; the rest is in float32."
    return text
