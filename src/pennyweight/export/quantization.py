"""int8 versions of an exported ONNX model, made by ONNX Runtime.

Weights are quantized per output channel, and to 7 bits, because products of 8-bit weights and
activations overflow on processors without VNNI. Two kinds of products stay in float32: those of two
activations, as in attention, and that of the output layer. Which others do is a `Scheme`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import numpy as np

from pennyweight.engine.batches.rows import TokenizedRows, collate
from pennyweight.engine.onnx_backend import strip_onnx
from pennyweight.quiet import quiet_logger

__all__ = ["SCHEMES", "Precision", "Scheme", "quantize"]

Precision = Literal["fp32", "int8-dynamic", "int8-static"]

_OPERATORS = ("MatMul", "Gemm", "Gather")
# Rows that run at once while activations are observed; all of their activations are in memory.
_CALIBRATION_BATCH_ROWS = 8


@dataclass(frozen=True, slots=True)
class Scheme:
    """Which matrix products are quantized besides the embeddings.

    Attributes:
        summary: for the export's README and JSON.
        skips_contracting: whether products with more inputs than outputs stay in float32. They read
            the activations of the feed-forward blocks, whose few large values leave little
            precision to the others.
        skips_expanding: whether those with more outputs than inputs stay in float32 as well.
    """

    summary: str
    skips_contracting: bool = False
    skips_expanding: bool = False

    def includes(self, shape: Sequence[int]) -> bool:
        """Return whether the product with a weight `[inputs, outputs]` is quantized."""
        inputs, outputs = shape
        if inputs > outputs:
            return not self.skips_contracting
        return inputs == outputs or not self.skips_expanding


_EVERY = Scheme("embeddings and all matrix products with weights except the output layer")
_WITHOUT_CONTRACTING = Scheme(
    "embeddings, attention, and the first layers of the feed-forward blocks", skips_contracting=True
)
_ATTENTION = Scheme("embeddings and attention", skips_contracting=True, skips_expanding=True)
# Of each kind of quantization, what is tried in turn until the answers agree with float32. With
# ranges that are fixed in advance, the feed-forward blocks' second layers change too many answers
# on AG News; see docs/lab-log.md.
SCHEMES: Mapping[Precision, tuple[Scheme, ...]] = MappingProxyType(
    {
        "int8-dynamic": (_EVERY, _WITHOUT_CONTRACTING, _ATTENTION),
        "int8-static": (_WITHOUT_CONTRACTING, _ATTENTION),
    }
)


def quantize(
    source: Path,
    target: Path,
    *,
    precision: Precision,
    scheme: Scheme,
    calibration: TokenizedRows,
) -> None:
    """Write an int8 version of an exported model.

    Args:
        source: the float32 model.
        target: the file to write, stripped as `strip_onnx` says.
        precision: "int8-dynamic" computes the range of activations for each batch, "int8-static"
            fixes them in advance.
        scheme: what is quantized.
        calibration: rows whose activations set the fixed ranges.
    """
    from onnxruntime import quantization

    options: dict[str, Any] = {
        "op_types_to_quantize": list(_OPERATORS),
        "nodes_to_exclude": _float32_nodes(source, scheme),
        "per_channel": True,
        "reduce_range": True,
        "weight_type": quantization.QuantType.QInt8,
        "use_external_data_format": source.with_name(f"{source.name}.data").is_file(),
    }
    with quiet_logger():
        if precision == "int8-dynamic":
            quantization.quantize_dynamic(str(source), str(target), **options)
        else:
            quantization.quantize_static(
                str(source),
                str(target),
                _Batches(calibration),
                activation_type=quantization.QuantType.QUInt8,
                calibration_providers=["CPUExecutionProvider"],
                **options,
            )
    strip_onnx(target)


def _float32_nodes(source: Path, scheme: Scheme) -> list[str]:
    """Return the names of the matrix products that stay in float32."""
    import onnx

    graph = onnx.load(str(source), load_external_data=False).graph
    shapes = {each.name: tuple(each.dims) for each in graph.initializer}
    outputs = _last_product(graph)
    names = []
    for node in graph.node:
        if node.op_type not in ("MatMul", "Gemm"):
            continue
        shape = shapes.get(node.input[1], ())
        if node.op_type == "Gemm" and any(a.name == "transB" and a.i for a in node.attribute):
            shape = shape[::-1]
        if node.name == outputs or len(shape) != 2 or not scheme.includes(shape):
            # The quantizer first replaces a Gemm by a product of this second name.
            names += [node.name, f"{node.name}_MatMul"]
    return names


def _last_product(graph: Any) -> str:
    """Return the name of the product that computes the logits: the last one in the graph."""
    products = [node.name for node in graph.node if node.op_type in ("MatMul", "Gemm")]
    return str(products[-1])


class _Batches:
    """Yields padded batches to ONNX Runtime's calibration, as a `CalibrationDataReader`."""

    def __init__(self, rows: TokenizedRows) -> None:
        self._rows = rows
        order = np.argsort(rows.lengths, kind="stable")
        starts = range(0, len(order), _CALIBRATION_BATCH_ROWS)
        self._batches = iter([order[start : start + _CALIBRATION_BATCH_ROWS] for start in starts])

    def get_next(self) -> dict[str, np.ndarray] | None:
        """Return the inputs of the next batch, or None at the end."""
        indices = next(self._batches, None)
        if indices is None:
            return None
        return {name: tensor.numpy() for name, tensor in collate(self._rows, indices).items()}
