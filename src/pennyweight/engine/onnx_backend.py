"""ONNX Runtime as an alternative backend for inference: export once, then run padded batches."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from pennyweight.engine.batches.rows import TokenizedRows, collate
from pennyweight.engine.predictor import Predictions
from pennyweight.errors import RunError, first_line
from pennyweight.files import replace_directory, replacing
from pennyweight.quiet import quiet_logger

__all__ = ["ONNX_FILE", "OnnxModel", "export_onnx", "require_onnx", "strip_onnx"]

ONNX_FILE = "model.onnx"
# A file of Protocol Buffers holds 2 GB; larger weights are written beside it.
_MAX_SINGLE_FILE_BYTES = 1_800_000_000
_TYPES = "token_type_ids"
_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
_PROVIDERS = ("CUDAExecutionProvider", "CPUExecutionProvider")


def require_onnx(option: str = "--backend onnx") -> None:
    """Check that the packages of the extra are installed.

    Args:
        option: what needs them, for the message.

    Raises:
        RunError: a package is missing; the message says how to install it.
    """
    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        raise RunError(
            f"{option}: {', '.join(missing)} {verb} not installed; "
            "pip install 'pennyweight[onnx]', or use PyTorch"
        )


class _Logits(nn.Module):
    """A classifier with tensors as inputs and output, for the exporter."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        token_type_ids: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return the logits `[rows, classes]` of padded rows."""
        types = {} if token_type_ids is None else {_TYPES: token_type_ids}
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask, **types}
        logits: torch.Tensor = self.model(**inputs).logits
        return logits


def export_onnx(model: Any, directory: Path, *, token_types: bool = False) -> None:
    """Export a merged float32 classifier into a directory, completely or not at all.

    The file is stripped; see `strip_onnx`. Weights of more than 1.8 GB are in a file beside it.

    Args:
        model: a transformers sequence classifier without PEFT's layers, with "eager" attention.
        directory: the directory to write; it is replaced if it exists.
        token_types: whether the exported model reads token types, which tell the texts of a pair
            apart.

    Raises:
        RunError: the model cannot be exported.
    """
    require_onnx()
    # Sizes other than 0 and 1, which the exporter would treat as constants.
    ids = torch.full((2, 7), 5, dtype=torch.int64)
    rows, width = torch.export.Dim("rows"), torch.export.Dim("width", max=4096)
    shape = {0: rows, 1: width}
    names = ["input_ids", "attention_mask", *([_TYPES] if token_types else [])]
    arguments = (ids, torch.ones_like(ids), torch.zeros_like(ids))[: len(names)]

    def write(directory: Path) -> None:
        torch.onnx.export(
            _Logits(model).eval(),
            arguments,
            str(directory / ONNX_FILE),
            input_names=names,
            output_names=["logits"],
            dynamic_shapes=dict.fromkeys(names, shape),
            dynamo=True,
            verbose=False,
            external_data=_bytes_of(model) > _MAX_SINGLE_FILE_BYTES,
        )
        strip_onnx(directory / ONNX_FILE)

    with quiet_logger("torch.onnx"):
        try:
            replace_directory(directory, write)
        except Exception as error:  # noqa: BLE001 - the exporter raises many types
            raise RunError(
                f"this model cannot be exported to ONNX ({first_line(error)}); use PyTorch"
            ) from None


def strip_onnx(path: Path) -> None:
    """Remove what an exporter notes about its own machine and code from a file, in place.

    These are documentation strings and metadata of the model, its graphs and its nodes, such as
    stack traces with paths, and the shapes of intermediate results, which are inferred again when
    the model is loaded.
    """
    import onnx

    model = onnx.load(str(path), load_external_data=False)
    for part in (model, model.graph, *model.functions, *_parts(model.graph)):
        part.ClearField("doc_string")
        if hasattr(part, "metadata_props"):
            part.ClearField("metadata_props")
    for function in model.functions:
        for node in function.node:
            node.ClearField("doc_string")
            node.ClearField("metadata_props")
    model.graph.ClearField("value_info")
    with replacing(path) as part_file:
        onnx.save_model(model, str(part_file))


def _parts(graph: Any) -> Iterator[Any]:
    """Yield everything in a graph that has a documentation string, graphs inside it included."""
    yield from (*graph.initializer, *graph.input, *graph.output, *graph.node)
    for node in graph.node:
        for attribute in node.attribute:
            yield attribute
            for inner in (attribute.g, *attribute.graphs):
                if inner.node:
                    yield inner
                    yield from _parts(inner)


def _bytes_of(model: nn.Module) -> int:
    return sum(each.numel() * each.element_size() for each in model.parameters())


class OnnxModel:
    """An exported classifier in ONNX Runtime, on a GPU if its build supports one.

    Implements `engine.predictor.Backend`.

    Args:
        path: the file that `export_onnx` wrote, or its directory.
        batch_rows: number of rows that run at once.
        classes: number of classes.

    Raises:
        RunError: ONNX Runtime is not installed, or cannot read the file.
    """

    def __init__(self, path: Path, *, batch_rows: int, classes: int) -> None:
        require_onnx()
        import onnxruntime

        self._batch_rows = batch_rows
        self._classes = classes
        options = onnxruntime.SessionOptions()
        # As many as PyTorch's, which follow OMP_NUM_THREADS.
        options.intra_op_num_threads = torch.get_num_threads()
        available = onnxruntime.get_available_providers()
        try:
            self._session = onnxruntime.InferenceSession(
                str(path / ONNX_FILE if path.is_dir() else path),
                options,
                providers=[name for name in _PROVIDERS if name in available],
            )
        except Exception as error:  # noqa: BLE001 - ONNX Runtime raises its own types
            raise RunError(
                f"{path}: cannot be read by ONNX Runtime ({first_line(error)}); delete it to "
                "export the model again"
            ) from None

    def predict(self, rows: TokenizedRows, *, features: bool = False) -> Predictions:
        """Return the logits, float32 `[rows, classes]`, of all rows in order.

        Args:
            rows: tokenized rows.
            features: must be False, because the exported model returns logits only.

        Raises:
            RunError: features are requested, or only the rows or only the model have token types.
        """
        reads_types = any(each.name == _TYPES for each in self._session.get_inputs())
        if (rows.token_types is not None) != reads_types:
            raise RunError(
                f"--backend onnx: the exported model reads {'' if reads_types else 'no '}token "
                "types, unlike these rows; export it again for them, or use --backend torch"
            )
        if features:
            raise RunError(
                "--backend onnx: the exported model returns logits only, no features; "
                "use --backend torch"
            )
        logits = np.empty((len(rows), self._classes), dtype=np.float32)
        by_length = np.argsort(rows.lengths, kind="stable")
        for start in range(0, len(by_length), self._batch_rows):
            indices = by_length[start : start + self._batch_rows]
            inputs = {name: tensor.numpy() for name, tensor in collate(rows, indices).items()}
            (logits[indices],) = self._session.run(["logits"], inputs)
        return Predictions(logits)
