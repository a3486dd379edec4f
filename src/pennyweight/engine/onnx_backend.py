"""ONNX Runtime as an alternative backend for inference: export once, then run padded batches."""

from __future__ import annotations

import importlib.util
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from pennyweight.engine.batches.rows import TokenizedRows, collate
from pennyweight.engine.predictor import Predictions
from pennyweight.errors import RunError
from pennyweight.files import replace_directory

__all__ = ["OnnxModel", "export_onnx", "require_onnx"]

_FILE = "model.onnx"
_TYPES = "token_type_ids"
_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
_PROVIDERS = ("CUDAExecutionProvider", "CPUExecutionProvider")


def require_onnx() -> None:
    """Check that the packages of the extra are installed.

    Raises:
        RunError: a package is missing; the message says how to install it.
    """
    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        raise RunError(
            f"--backend onnx: {', '.join(missing)} {verb} not installed; "
            "pip install 'pennyweight[onnx]', or use --backend torch"
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
            str(directory / _FILE),
            input_names=names,
            output_names=["logits"],
            dynamic_shapes=dict.fromkeys(names, shape),
            dynamo=True,
            verbose=False,
        )

    with _silent_exporter():
        try:
            replace_directory(directory, write)
        except Exception as error:  # noqa: BLE001 - the exporter raises many types
            raise RunError(
                f"--backend onnx: this model cannot be exported ({_first_line(error)}); "
                "use --backend torch"
            ) from None


@contextmanager
def _silent_exporter() -> Iterator[None]:
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


class OnnxModel:
    """An exported classifier in ONNX Runtime, on a GPU if its build supports one.

    Implements `engine.predictor.Backend`.

    Args:
        directory: the directory that `export_onnx` wrote.
        batch_rows: number of rows that run at once.
        classes: number of classes.

    Raises:
        RunError: ONNX Runtime is not installed, or cannot read the file.
    """

    def __init__(self, directory: Path, *, batch_rows: int, classes: int) -> None:
        require_onnx()
        import onnxruntime

        self._batch_rows = batch_rows
        self._classes = classes
        available = onnxruntime.get_available_providers()
        try:
            self._session = onnxruntime.InferenceSession(
                str(directory / _FILE),
                providers=[name for name in _PROVIDERS if name in available],
            )
        except Exception as error:  # noqa: BLE001 - ONNX Runtime raises its own types
            raise RunError(
                f"{directory}: cannot be read by ONNX Runtime ({_first_line(error)}); delete it to "
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
