"""The `pennyweight export` command."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from pennyweight.cli.flatten import flatten_options
from pennyweight.cli.options import CheckedData, HubFolderOptions, OutDirectory, Run
from pennyweight.cli.output import quiet_libraries
from pennyweight.errors import RunError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["FormatName", "OnnxCommandOptions", "PrecisionName", "command"]


class FormatName(StrEnum):
    """The kinds of folders that a run can be exported to."""

    onnx = "onnx"
    hub = "hub"


class PrecisionName(StrEnum):
    """The precisions of an ONNX model."""

    fp32 = "fp32"
    int8_dynamic = "int8-dynamic"
    int8_static = "int8-static"


@dataclass(frozen=True, slots=True, kw_only=True)
class OnnxCommandOptions:
    """Options of an export to ONNX."""

    precision: Annotated[
        PrecisionName,
        typer.Option(
            "--precision",
            help="With --to onnx: float32, or 8 bits with ranges of activations that are computed "
            "for each batch (dynamic) or fixed on training rows (static).",
        ),
    ] = PrecisionName.fp32
    rows: Annotated[
        int,
        typer.Option(
            "--rows",
            min=1,
            metavar="N",
            help="The largest number of rows on which the model is compared with the run.",
        ),
    ] = 1000
    minimum_agreement: Annotated[
        float,
        typer.Option(
            "--minimum-agreement",
            min=0.0,
            max=1.0,
            metavar="SHARE",
            help="With --to onnx: the share of rows that must get the label of the float32 model.",
        ),
    ] = 0.99


@flatten_options
def command(
    run: Run,
    to: Annotated[FormatName, typer.Option("--to", help="What to write.")],
    out: OutDirectory,
    onnx: OnnxCommandOptions,
    hub: HubFolderOptions,
    data: CheckedData = None,
) -> None:
    """Write an ONNX model, or a folder for the hub.

    With --to onnx, the folder holds the model, its tokenizer, its labels, and a README.md with code
    that needs only onnxruntime and tokenizers. Size, speed, accuracy and agreement with PyTorch are
    measured on real rows, printed, and saved in export.json. An int8 model keeps as much in
    float32 as its labels need to agree.

    With --to hub, the folder holds the adapter in PEFT's format, or with --merged a transformers
    model, with the tokenizer and a model card, and can be pushed as it is.

    If the exported model's answers differ from the run's, nothing is written.
    """
    quiet_libraries()
    if to == FormatName.hub:
        _refuse_onnx_options(onnx)
        if not hub.merged and (data is not None or onnx.rows != OnnxCommandOptions().rows):
            raise RunError(
                "--data and --rows: an adapter is copied as it is, and not compared on rows; leave "
                "them out, or write a merged model with --merged"
            )
        _to_hub(run, out, hub, data=data, rows=onnx.rows)
        return
    if hub.merged:
        raise RunError("--merged: an ONNX model is always merged; leave it out, or use --to hub")
    if hub.base_id is not None or hub.datasets:
        raise RunError("--base-id and --dataset: for the hub only; leave them out")
    _to_onnx(run, out, onnx, data=data, license_id=hub.license_id)


def _refuse_onnx_options(given: OnnxCommandOptions) -> None:
    """Refuse options that only an ONNX model has.

    Raises:
        RunError: one is given.
    """
    usual = OnnxCommandOptions()
    if given.precision != usual.precision:
        raise RunError("--precision: only an ONNX model has one; leave it out, or use --to onnx")
    if given.minimum_agreement != usual.minimum_agreement:
        raise RunError("--minimum-agreement: is for an ONNX model; leave it out, or use --to onnx")


def _to_onnx(
    run: Path, out: Path, options: OnnxCommandOptions, *, data: str | None, license_id: str
) -> None:
    from pennyweight.export.onnx_folder import OnnxOptions, export_to_onnx

    report = export_to_onnx(
        run,
        out=out,
        options=OnnxOptions(
            precision=options.precision.value,
            data=data,
            rows=options.rows,
            minimum_agreement=options.minimum_agreement,
            license_id=license_id,
        ),
    )
    table = report.table()
    widths = [max(len(line[column]) for line in table) for column in range(len(table[0]))]
    for line in table:
        first, *others = (cell.rjust(width) for cell, width in zip(line, widths, strict=True))
        typer.echo("  ".join([first.strip().ljust(widths[0]), *others]).rstrip())
    typer.echo(
        f"{report.rows:,} rows of {report.source}, {report.threads} threads on {report.processor}"
    )
    if report.quantized:
        typer.echo(f"in 8 bits: {report.quantized}")
    typer.echo(f"{report.precision} ONNX model in {out}; how to use it is in {out / 'README.md'}")


def _to_hub(
    run: Path, out: Path, options: HubFolderOptions, *, data: str | None, rows: int
) -> None:
    from pennyweight.export.hub_folder import export_to_hub

    report = export_to_hub(run, out=out, options=options.plain(data=data, rows=rows))
    for file in report.files:
        typer.echo(f"{file.bytes:>12,}  {file.name}")
    if report.merge is not None:
        typer.echo(report.merge.describe())
    if report.parameters is not None:
        typer.echo(f"{report.parameters:,} trainable parameters counted in the adapter")
    typer.echo(f"folder for the hub in {out}")
