"""A folder that runs a classifier with ONNX Runtime and tokenizers alone, measured on real rows."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from tokenizers import Tokenizer

from pennyweight.data.source import Source
from pennyweight.engine.batches.rows import TokenizedRows
from pennyweight.engine.batches.tokenize import TokenOptions, tokenize_texts
from pennyweight.engine.onnx_backend import ONNX_FILE, OnnxModel, export_onnx, require_onnx
from pennyweight.environment import describe_environment
from pennyweight.errors import RunError
from pennyweight.evaluation.decisions import answers_of
from pennyweight.export.onnx_card import write_onnx_card
from pennyweight.export.quantization import SCHEMES, Precision, Scheme, quantize
from pennyweight.export.report import Measured, OnnxReport, name_of
from pennyweight.files import replace_directory
from pennyweight.inference.agreement import (
    CheckedRows,
    calibration_rows,
    compare_logits,
    rows_to_check,
)
from pennyweight.inference.classifier import Classifier
from pennyweight.inference.texts import batches_of
from pennyweight.quiet import quiet_libraries
from pennyweight.runs.directory import require_empty
from pennyweight.runs.record import write_text

__all__ = ["OnnxOptions", "export_to_onnx"]

# Rows that fix the ranges of activations, and others that choose what stays in float32.
_CALIBRATION_ROWS, _CHOICE_ROWS = 128, 512
# Of the largest logit; what differs more was not exported correctly.
_FP32_TOLERANCE = 1e-3
_TORCH, _ONNX = "fp32, PyTorch", name_of("fp32")


@dataclass(frozen=True, slots=True)
class OnnxOptions:
    """How a run is exported to ONNX.

    Attributes:
        precision: "fp32", "int8-dynamic" or "int8-static".
        data: the rows that the model is measured on; None for the run's own, see `rows_to_check`.
        rows: the largest number of them.
        minimum_agreement: share of the rows whose label must be that of the float32 model.
        license_id: the license's identifier on the hub, for the card.
    """

    precision: Precision = "fp32"
    data: str | Source | None = None
    rows: int = 1000
    minimum_agreement: float = 0.99
    license_id: str = "unknown"


def export_to_onnx(
    run: str | Path, *, out: str | Path, options: OnnxOptions | None = None
) -> OnnxReport:
    """Write a folder with an ONNX model, its tokenizer, its labels and code that runs it.

    The adapter and a correction for one group of texts are merged into the model, and the tokenizer
    truncates and pads. The model is measured on real rows beside the run and the float32 model; the
    folder appears only if its labels agree with theirs.

    Of an int8 model, rows of the training file choose which parts stay in float32; see `SCHEMES`.

    Args:
        run: the run's directory.
        out: the folder to write; it must be empty or missing.
        options: precision and rows; None for the defaults.

    Raises:
        RunError: it is no complete run, `out` is not empty, a package is missing, the model cannot
            be exported, or its answers differ from the run's too often.
        DataError: the rows cannot be read.
    """
    require_onnx("--to onnx")
    require_empty(Path(out))
    options = options or OnnxOptions()
    reports: list[OnnxReport] = []

    def write(directory: Path) -> None:
        reports.append(_write(Classifier.load(run), directory, options))

    replace_directory(Path(out), write)
    return reports[0]


@quiet_libraries()
def _write(classifier: Classifier, directory: Path, options: OnnxOptions) -> OnnxReport:
    rows = rows_to_check(classifier, options.data, limit=options.rows)
    with tempfile.TemporaryDirectory(prefix="pennyweight-") as folder:
        fp32 = Path(folder) / "fp32"
        model = classifier.plain_model()
        sizes = {_TORCH: sum(each.numel() * 4 for each in model.parameters())}
        export_onnx(model, fp32, token_types=classifier.reads_token_types)
        del model
        exported, scheme = fp32, None
        if options.precision != "fp32":
            exported = Path(folder) / "int8"
            exported.mkdir()
            scheme = _quantize(classifier, fp32, exported, options)
        paths = {_ONNX: fp32, name_of(options.precision): exported}
        sizes |= {name: _bytes_in(path) for name, path in paths.items()}
        models = _measure(classifier, rows, paths, sizes)
        for file in sorted(exported.iterdir()):
            shutil.copy2(file, directory / file.name)
    report = _report(rows, options, scheme, models)
    _require_agreement(report, options)
    _write_tokenizer(classifier, directory)
    _write_config(classifier, directory, options)
    write_text(directory / "export.json", json.dumps(asdict(report), indent=1) + "\n")
    write_onnx_card(directory, classifier, report, license_id=options.license_id)
    return report


def _quantize(classifier: Classifier, fp32: Path, out: Path, options: OnnxOptions) -> Scheme:
    """Write the int8 model of the first scheme that agrees with float32 on training rows.

    If none does, it is that of the last scheme, which keeps most in float32.
    """
    table = calibration_rows(classifier, limit=_CALIBRATION_ROWS + _CHOICE_ROWS).table
    every = np.arange(len(table))
    step = (_CALIBRATION_ROWS + _CHOICE_ROWS) // _CALIBRATION_ROWS
    calibration = _tokenized(classifier, table.select(every[::step]))
    choice = table.select(every[every % step > 0] if len(table) > 1 else every)
    reference = _onnx(classifier, fp32).outputs(choice).logits
    schemes = SCHEMES[options.precision]
    for scheme in schemes:
        quantize(
            fp32 / ONNX_FILE,
            out / ONNX_FILE,
            precision=options.precision,
            scheme=scheme,
            calibration=calibration,
        )
        logits = _onnx(classifier, out).outputs(choice).logits
        agreement = compare_logits(classifier, reference, logits).same_answers
        if agreement >= options.minimum_agreement:
            return scheme
    return schemes[-1]


def _tokenized(classifier: Classifier, table: datasets.Dataset) -> TokenizedRows:
    (texts,) = batches_of(table, are_pairs=classifier.pair_columns is not None)
    settings = classifier.settings.inference
    return tokenize_texts(
        texts,
        tokenizer=classifier.tokenizer,
        max_tokens=settings.max_tokens,
        options=TokenOptions(settings.truncation),
    )


def _onnx(classifier: Classifier, path: Path) -> Classifier:
    backend = OnnxModel(
        path, batch_rows=classifier.settings.inference.batch_rows, classes=len(classifier.labels)
    )
    return classifier.with_backend(backend, is_folded=True)


def _measure(
    classifier: Classifier,
    rows: CheckedRows,
    exported: Mapping[str, Path],
    sizes: Mapping[str, int],
) -> dict[str, Measured]:
    """Return the measurements of the run, of the float32 model in PyTorch, and of the exports."""
    models = {f"{classifier.precision}, Pennyweight": classifier, _TORCH: classifier.unmerged()}
    models |= {name: _onnx(classifier, path) for name, path in exported.items()}
    logits, seconds, cpu_seconds = {}, {}, {}
    for name, model in models.items():
        start, cpu_start = time.perf_counter(), time.process_time()
        logits[name] = model.outputs(rows.table).logits
        seconds[name] = time.perf_counter() - start
        cpu_seconds[name] = time.process_time() - cpu_start
    measured = {}
    for name in models:
        torch_fp32 = compare_logits(classifier, logits[_TORCH], logits[name])
        onnx_fp32 = compare_logits(classifier, logits[_ONNX], logits[name])
        measured[name] = Measured(
            bytes=sizes.get(name),
            rows_per_second=len(rows) / seconds[name],
            rows_per_cpu_second=len(rows) / cpu_seconds[name],
            accuracy=rows.accuracy(answers_of(logits[name], classifier.thresholds)),
            agrees_with_torch=torch_fp32.same_answers,
            agrees_with_onnx=onnx_fp32.same_answers,
            largest_difference=torch_fp32.largest_difference,
            mean_difference=torch_fp32.mean_difference,
            relative_difference=torch_fp32.relative_difference,
        )
    return measured


def _bytes_in(directory: Path) -> int:
    return sum(file.stat().st_size for file in directory.iterdir())


def _report(
    rows: CheckedRows,
    options: OnnxOptions,
    scheme: Scheme | None,
    models: Mapping[str, Measured],
) -> OnnxReport:
    environment: Mapping[str, Any] = describe_environment()
    import onnxruntime

    return OnnxReport(
        precision=options.precision,
        quantized="" if scheme is None else scheme.summary,
        rows=len(rows),
        source=Path(rows.source).name,
        processor=str(environment["processor"]),
        threads=torch.get_num_threads(),
        onnxruntime=onnxruntime.__version__,
        torch=torch.__version__,
        models=dict(models),
    )


def _require_agreement(report: OnnxReport, options: OnnxOptions) -> None:
    """Refuse an exported model whose answers are not those of the run.

    Raises:
        RunError: the float32 model's logits differ, or an int8 model's labels do too often.
    """
    fp32 = report.models[_ONNX]
    if fp32.relative_difference > _FP32_TOLERANCE:
        raise RunError(
            f"--to onnx: not written: logits of the run and the exported model differ by up to "
            f"{fp32.largest_difference:.2g} on {report.rows:,} rows of {report.source}; this model "
            "cannot be exported correctly, use pennyweight merge"
        )
    agreement = report.exported.agrees_with_onnx
    if agreement < options.minimum_agreement:
        raise RunError(
            f"--precision {options.precision}: not written: only {agreement:.2%} of "
            f"{report.rows:,} rows of {report.source} get the label of the float32 model, and "
            f"{options.minimum_agreement:.2%} are required; use --precision fp32, or lower "
            "--minimum-agreement"
        )


def _write_tokenizer(classifier: Classifier, directory: Path) -> None:
    """Write the tokenizer with the run's truncation and padding as one file."""
    tokenizer = Tokenizer.from_str(classifier.tokenizer.backend_tokenizer.to_str())
    tokenizer.enable_truncation(classifier.settings.inference.max_tokens)
    tokenizer.enable_padding(
        pad_id=classifier.tokenizer.pad_token_id, pad_token=classifier.tokenizer.pad_token
    )
    tokenizer.save(str(directory / "tokenizer.json"))


def _write_config(classifier: Classifier, directory: Path, options: OnnxOptions) -> None:
    thresholds = classifier.thresholds
    values = {
        "labels": list(classifier.labels),
        "task": classifier.task,
        "thresholds": None if thresholds is None else thresholds.tolist(),
        "max_tokens": classifier.settings.inference.max_tokens,
        "precision": options.precision,
    }
    text = json.dumps(values, indent=1, ensure_ascii=False)
    write_text(directory / "config.json", f"{text}\n")
