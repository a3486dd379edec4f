"""Which matrix products of an ONNX model become int8, and that the file stays clean."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from engine.families import rows_of
from pennyweight.export.quantization import SCHEMES, Precision, Scheme, quantize

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

EVERY = {"square", "expanding", "contracting"}


def write_model(path: Path) -> None:
    """Write a model with products of each shape, one of two activations, and an output layer."""
    draw = np.random.default_rng(0)
    shapes = {
        "embeddings.w": (99, 4),
        "square.w": (4, 4),
        "expanding.w": (4, 8),
        "contracting.w": (8, 4),
        "output.w": (3, 4),
    }
    helper, real = onnx.helper, onnx.TensorProto.FLOAT
    weights = [
        onnx.numpy_helper.from_array(draw.normal(size=shape).astype(np.float32), name)
        for name, shape in shapes.items()
    ]
    nodes = [
        helper.make_node("Gather", ["embeddings.w", "input_ids"], ["a"], "embeddings"),
        helper.make_node("MatMul", ["a", "square.w"], ["b"], "square"),
        helper.make_node("MatMul", ["b", "expanding.w"], ["c"], "expanding"),
        helper.make_node("MatMul", ["c", "contracting.w"], ["d"], "contracting"),
        helper.make_node("Transpose", ["d"], ["e"], "transposed", perm=[0, 2, 1]),
        helper.make_node("MatMul", ["d", "e"], ["f"], "scores"),
        helper.make_node("MatMul", ["f", "d"], ["g"], "values"),
        helper.make_node("ReduceMean", ["g", "axis"], ["h"], "mean", keepdims=0),
        helper.make_node("Gemm", ["h", "output.w"], ["logits"], "output", transB=1),
    ]
    weights.append(onnx.numpy_helper.from_array(np.array([1]), "axis"))
    inputs = [
        helper.make_tensor_value_info(name, onnx.TensorProto.INT64, ["rows", "width"])
        for name in ("input_ids", "attention_mask")
    ]
    output = helper.make_tensor_value_info("logits", real, ["rows", 3])
    graph = helper.make_graph(nodes, "classifier", inputs, [output], weights, "from /home/alice")
    opset = helper.make_opsetid("", 18)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=10), str(path))


@pytest.mark.parametrize(
    ("scheme", "in_float32"),
    [
        (Scheme("every"), set()),
        (Scheme("no contracting", skips_contracting=True), {"contracting"}),
        (
            Scheme("square", skips_contracting=True, skips_expanding=True),
            {"contracting", "expanding"},
        ),
    ],
)
def test_a_scheme_chooses_products_by_the_shape_of_their_weights(
    scheme: Scheme, in_float32: set[str], tmp_path: Path
) -> None:
    write_model(tmp_path / "model.onnx")
    target = tmp_path / "int8.onnx"
    quantize(
        tmp_path / "model.onnx",
        target,
        precision="int8-dynamic",
        scheme=scheme,
        calibration=rows_of(4),
    )
    model = onnx.load(str(target))
    products = [node for node in model.graph.node if node.op_type in ("MatMul", "Gemm")]
    left = {node.name.removesuffix("_MatMul") for node in products}
    # Products of two activations and the output layer are never quantized.
    assert left == in_float32 | {"scores", "values", "output"}
    stored = {each.name: each.data_type for each in model.graph.initializer}
    quantized = {"embeddings", *(EVERY - in_float32)}
    for name in quantized:
        assert f"{name}.w" not in stored
        assert stored[f"{name}.w_quantized"] in (onnx.TensorProto.INT8, onnx.TensorProto.UINT8)
    assert b"alice" not in target.read_bytes()


@pytest.mark.parametrize("precision", SCHEMES)
def test_every_scheme_gives_nearly_the_logits_of_float32(
    precision: Precision, tmp_path: Path
) -> None:
    import onnxruntime

    source, target = tmp_path / "model.onnx", tmp_path / "int8.onnx"
    write_model(source)
    ids = np.arange(40).reshape(8, 5)
    logits = []
    for scheme in SCHEMES[precision]:
        quantize(source, target, precision=precision, scheme=scheme, calibration=rows_of(32))
        for path in (source, target):
            session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
            (out,) = session.run(None, {each.name: ids for each in session.get_inputs()})
            logits.append(out)
        reference, quantized = logits[-2:]
        error = np.abs(quantized - reference).mean() / np.abs(reference).mean()
        assert 0.0 < error < 0.2
