"""ONNX Runtime as an alternative back end for inference: export once, then run padded batches."""

from __future__ import annotations

import importlib.util
import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from pennyweight.engine.batch import Tokens, collate
from pennyweight.engine.checkpoint import replace_directory
from pennyweight.errors import RunError

__all__ = ["OnnxModel", "export_onnx", "require_onnx"]

_FILE = "model.onnx"
_NEEDED = ("onnx", "onnxscript", "onnxruntime")


def require_onnx() -> None:
    """Refuse early where the extra is not installed.

    Raises:
        RunError: a package is missing; the text says how to get it.
    """
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise RunError(
            f"--backend onnx: {', '.join(missing)} not installed; "
            "pip install 'pennyweight[onnx]', or use --backend torch"
        )


class _Logits(nn.Module):
    """A classifier that takes and gives plain tensors."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Logits `[rows, classes]` of padded rows."""
        logits: torch.Tensor = self.model(input_ids=input_ids, attention_mask=attention_mask).logits
        return logits


def export_onnx(model: Any, directory: Path) -> None:
    """Write a merged float32 classifier into `directory`, whole or not at all.

    Args:
        model: transformers' sequence classifier without PEFT's layers, with "eager" attention.
        directory: is replaced.

    Raises:
        RunError: the model cannot be exported.
    """
    require_onnx()
    # Sizes other than 0 and 1, which the exporter would take for constants.
    ids = torch.full((2, 7), 5, dtype=torch.int64)
    rows, width = torch.export.Dim("rows"), torch.export.Dim("width", max=4096)
    shape = {0: rows, 1: width}

    def write(new: Path) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                _Logits(model).eval(),
                (ids, torch.ones_like(ids)),
                str(new / _FILE),
                input_names=["input_ids", "attention_mask"],
                output_names=["logits"],
                dynamic_shapes={"input_ids": shape, "attention_mask": shape},
                dynamo=True,
                verbose=False,
            )

    level = logging.getLogger("torch.onnx").level
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        replace_directory(directory, write)
    except Exception as error:  # noqa: BLE001 - the exporter raises many kinds
        reason = str(error).strip().splitlines()[0]
        raise RunError(
            f"--backend onnx: this model cannot be exported ({reason}); use --backend torch"
        ) from None
    finally:
        logging.getLogger("torch.onnx").setLevel(level)


class OnnxModel:
    """An exported classifier in ONNX Runtime, on the GPU where its build has one, else on the CPU.

    Raises:
        RunError: ONNX Runtime is not installed, or cannot read the file.
    """

    def __init__(self, directory: Path) -> None:
        require_onnx()
        import onnxruntime

        wanted = ("CUDAExecutionProvider", "CPUExecutionProvider")
        there = onnxruntime.get_available_providers()
        try:
            self._session = onnxruntime.InferenceSession(
                str(directory / _FILE), providers=[name for name in wanted if name in there]
            )
        except Exception as error:  # noqa: BLE001 - ONNX Runtime raises kinds of its own
            reason = str(error).splitlines()[0]
            raise RunError(f"{directory}: cannot be read by ONNX Runtime: {reason}") from None

    @property
    def device(self) -> str:
        """The provider that runs it, in ONNX Runtime's words."""
        return str(self._session.get_providers()[0])

    def logits(self, tokens: Tokens, *, batch_rows: int, classes: int) -> np.ndarray:
        """Logits, float32 `[rows, classes]`, of every row in order."""
        found = np.empty((len(tokens), classes), dtype=np.float32)
        by_length = np.argsort(tokens.lengths, kind="stable")
        for start in range(0, len(by_length), batch_rows):
            rows = by_length[start : start + batch_rows]
            inputs = {name: value.numpy() for name, value in collate(tokens, rows).items()}
            (found[rows],) = self._session.run(["logits"], inputs)
        return found
