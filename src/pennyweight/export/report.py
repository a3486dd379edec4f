"""The report of an ONNX export: sizes, rates, accuracies and agreements, on the same rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["Measured", "OnnxReport", "name_of"]


def name_of(precision: str) -> str:
    """Return what an exported model of a precision is called in a report."""
    return f"{precision}, ONNX Runtime"


@dataclass(frozen=True, slots=True)
class Measured:
    """A model on the rows of an `OnnxReport`.

    Attributes:
        bytes: size of its files, or of its weights in PyTorch; None where it is not known.
        rows_per_second: with tokenization, in one pass.
        rows_per_cpu_second: the same by the processor time of all threads, which other programs on
            the machine change less.
        accuracy: share of right answers; None for rows without labels.
        agrees_with_torch: share of rows with the same label as in PyTorch in float32.
        agrees_with_onnx: share of rows with the same label as in ONNX Runtime in float32.
        largest_difference: of logits, from those of PyTorch in float32.
        mean_difference: of logits, without their signs.
        relative_difference: the largest difference as a share of the largest logit.
    """

    bytes: int | None
    rows_per_second: float
    rows_per_cpu_second: float
    accuracy: float | None
    agrees_with_torch: float
    agrees_with_onnx: float
    largest_difference: float
    mean_difference: float
    relative_difference: float


@dataclass(frozen=True, slots=True)
class OnnxReport:
    """An ONNX export, and how it compares with its run; `export.json` holds it.

    Attributes:
        precision: of the exported model.
        quantized: what has 8-bit weights; empty for float32.
        rows: number of rows that everything was measured on.
        source: where they come from, without the folder.
        processor: that the rates were measured on.
        threads: number of threads of PyTorch and of ONNX Runtime.
        onnxruntime: its version.
        torch: its version.
        models: measurements by precision and library.
    """

    precision: str
    quantized: str
    rows: int
    source: str
    processor: str
    threads: int
    onnxruntime: str
    torch: str
    models: Mapping[str, Measured]

    @property
    def exported(self) -> Measured:
        """The measurements of the model in the folder."""
        return self.models[name_of(self.precision)]

    def table(self) -> list[list[str]]:
        """Return a header and a line for each model, as text."""
        header = ["model", "size (MB)", "rows/s", "accuracy", "as PyTorch fp32", "as ONNX fp32"]
        return [header, *(self._line(name, model) for name, model in self.models.items())]

    def _line(self, name: str, model: Measured) -> list[str]:
        return [
            name,
            "" if model.bytes is None else f"{model.bytes / 1e6:.1f}",
            f"{model.rows_per_second:.1f}",
            "" if model.accuracy is None else f"{model.accuracy:.2%}",
            f"{model.agrees_with_torch:.2%}",
            f"{model.agrees_with_onnx:.2%}",
        ]
