"""A trained classifier, loaded from its run: the same cleaning and tokens as in training."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

import datasets
import numpy as np
from scipy.special import softmax
from transformers import PreTrainedModel

from pennyweight.base.locate import BaseModel
from pennyweight.budget.layout import layout_of
from pennyweight.budget.plan import FULL
from pennyweight.data.clean import cleaner
from pennyweight.engine.batch import Tokens
from pennyweight.engine.device import Compute, choose_compute
from pennyweight.engine.features import output_layer_of
from pennyweight.engine.feed import Feed, make_ready
from pennyweight.engine.onnx_backend import OnnxModel, export_onnx, require_onnx
from pennyweight.engine.predict import predict_both, predict_logits
from pennyweight.errors import RunError
from pennyweight.model import (
    load_adapter,
    load_tokenizer,
    load_whole,
    merge_adapter,
    save_merged,
)
from pennyweight.model.build import load_base
from pennyweight.model.quantize import plain_layers
from pennyweight.recipe import Recipe, resolve_recipe
from pennyweight.runs.correction import load_correction
from pennyweight.runs.planning import find_base
from pennyweight.runs.reading import tokens_of
from pennyweight.runs.record import RunRecord, artifact_of, load_record

__all__ = ["Backend", "Classifier", "load_ready"]

Backend = Literal["torch", "onnx"]


class Classifier:
    """A run's model, ready to predict."""

    def __init__(
        self,
        *,
        recipe: Recipe,
        record: RunRecord,
        base: BaseModel,
        adapter: Path,
        tokenizer: Any,
        compute: Compute,
        backend: Backend = "torch",
    ) -> None:
        self.recipe = recipe
        self.record = record
        self.compute = compute
        self._base = base
        self._adapter = adapter
        self._tokenizer = tokenizer
        self._correction = load_correction(adapter)
        self._logits = self._onnx() if backend == "onnx" else self._torch()

    @classmethod
    def load(cls, run: str | Path, *, backend: Backend = "torch") -> Classifier:
        """Load a finished run's best adapter on its base.

        Args:
            run: the run's directory.
            backend: "torch" in the run's precision, or "onnx": ONNX Runtime in float32, through
                a file that is exported into `RUN/onnx` when it is first needed.

        Raises:
            RunError: it is no run, or not a complete one.
            BaseModelError: the base cannot be found.
        """
        run = Path(run)
        record = load_record(run)
        if record.status != "complete":
            raise RunError(
                f"{run}: the run's status is {record.status}; only a complete run can be used"
                + (
                    f" (resume it with: pennyweight train {run} --out {run} --resume)"
                    if record.status != "failed"
                    else ""
                )
            )
        recipe = resolve_recipe(record.recipe, origin=f"{run}/record.json")
        base = _same_base(find_base(recipe, config_only=False), record)
        compute = choose_compute(
            precision=recipe.train.precision, attention=recipe.base.attention, config=base.config
        )
        adapter = artifact_of(run, method=recipe.adapter.method)
        tokenizer = load_tokenizer(base, tokenizer=str(adapter))
        return cls(
            recipe=recipe,
            record=record,
            base=base,
            adapter=adapter,
            tokenizer=tokenizer,
            compute=compute,
            backend=backend,
        )

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes' names in the order of their indices."""
        return self.recipe.data.labels

    def tokens(self, rows: datasets.Dataset) -> Tokens:
        """Tokenize cleaned rows as in training."""
        return tokens_of(rows, self._tokenizer, max_tokens=self.recipe.data.max_tokens)

    def logits(self, rows: datasets.Dataset) -> np.ndarray:
        """Logits, float32 `[rows, classes]`, of cleaned rows in their order."""
        return self._logits(self.tokens(rows))

    def both(self, rows: datasets.Dataset) -> tuple[np.ndarray, np.ndarray]:
        """`logits`, and what goes into the output layer, float32 `[rows, hidden]`, in one pass.

        In torch, whatever the backend.
        """
        return self._both(self.tokens(rows))

    def predict_probabilities(self, texts: Sequence[str]) -> np.ndarray:
        """Class probabilities, float64 `[texts, classes]`, of raw texts."""
        clean = cleaner(self.recipe.data.clean)
        table = datasets.Dataset.from_dict(
            {"text": [clean(text) for text in texts], "label": [-1] * len(texts)}
        )
        if len(table) == 0:
            return np.empty((0, len(self.labels)))
        with tempfile.TemporaryDirectory() as folder:
            tokens = tokens_of(
                table,
                self._tokenizer,
                max_tokens=self.recipe.data.max_tokens,
                cache=Path(folder),
            )
            logits = self._logits(tokens)
        probabilities: np.ndarray = softmax(logits.astype(np.float64), axis=1)
        return probabilities

    @cached_property
    def _ready(self) -> tuple[PreTrainedModel, dict[str, Any]]:
        """The merged model, and how it predicts."""
        model, feed = load_ready(self.recipe, self._base, self._adapter, compute=self.compute)
        size = self.recipe.train.evaluation_batch_rows
        return model, {"feed": feed, "compute": self.compute, "batch_rows": size}

    def _both(self, tokens: Tokens) -> tuple[np.ndarray, np.ndarray]:
        model, how = self._ready
        output = layout_of(model, labels=len(self.labels)).head_output.name
        logits, features = predict_both(model, tokens, output_layer=output, **how)
        if self._correction is not None:
            logits = self._correction.apply(logits, features)
        return logits, features

    def _torch(self) -> Callable[[Tokens], np.ndarray]:
        if self._correction is not None:
            return lambda tokens: self._both(tokens)[0]
        model, how = self._ready
        return partial(predict_logits, model, classes=len(self.labels), **how)

    def _onnx(self) -> Callable[[Tokens], np.ndarray]:
        require_onnx()
        correction = self._correction
        if correction is not None and correction.direction is not None:
            raise RunError(
                "--backend onnx: the run corrects the class shares of two groups, which are told "
                "apart by features that ONNX Runtime does not give; use --backend torch"
            )
        # By the adapter's own bytes, so that another adapter never meets an old export.
        whole = self._adapter / "model.safetensors"
        file = whole if whole.is_file() else self._adapter / "adapter_model.safetensors"
        weights = file.read_bytes()
        directory = self._adapter.parent / "onnx" / hashlib.sha256(weights).hexdigest()[:16]
        if not directory.is_dir():
            model = _load_merged(self.recipe, self._base, self._adapter, attention="eager")
            export_onnx(model, directory)
        plain = partial(
            OnnxModel(directory).logits,
            batch_rows=self.recipe.train.evaluation_batch_rows,
            classes=len(self.labels),
        )
        return plain if correction is None else lambda tokens: correction.apply(plain(tokens), None)

    def predict(self, texts: Sequence[str]) -> list[str]:
        """The most probable label of each raw text."""
        return [self.labels[index] for index in self.predict_probabilities(texts).argmax(axis=1)]

    def merge(self, directory: str | Path) -> None:
        """Write base and adapter as one plain transformers model, in fp32, labels included.

        A correction for one prior is folded into the output layer.

        Raises:
            RunError: the directory is not empty, or a correction has two groups.
        """
        directory = Path(directory)
        if directory.exists() and any(directory.iterdir()):
            raise RunError(f"{directory}: not empty; name a new directory")
        correction = self._correction
        if correction is not None and correction.direction is not None:
            raise RunError(
                f"{self._adapter}: corrects the class shares of two groups of texts, which no plain "
                'model can; train with --set \'transduction.prior.groups="one"\' to merge it'
            )
        model = _load_merged(self.recipe, self._base, self._adapter, attention="eager")
        if correction is not None:
            output = layout_of(model, labels=len(self.labels)).head_output.name
            correction.fold_into(output_layer_of(model, output))
        save_merged(model, directory, tokenizer=self._tokenizer)


def load_ready(
    recipe: Recipe, base: BaseModel, adapter: Path, *, compute: Compute
) -> tuple[PreTrainedModel, Feed]:
    """A saved adapter folded into its base, fast and ready for inference, and how to feed it.

    Raises:
        RunError: the adapter is missing, or does not fit the base.
        BaseModelError: the base's weights cannot be loaded.
    """
    model = _load_merged(recipe, base, adapter, attention=compute.attention)
    model.to(compute.device)
    return model, make_ready(model, compute, most_tokens=recipe.train.batch_tokens)


def _load_merged(
    recipe: Recipe, base: BaseModel, adapter: Path, *, attention: str
) -> PreTrainedModel:
    """In float32; where the base is quantized, with what its quantized weights stand for."""
    if recipe.adapter.method == FULL:
        return load_whole(adapter, attention=attention).requires_grad_(False).eval()
    model, _ = load_base(
        base,
        weights=recipe.base.weights,
        attention=attention,
        seed=recipe.seed,
        quantization=recipe.base.quantization,
    )
    merged = merge_adapter(load_adapter(plain_layers(model), adapter))
    return merged.requires_grad_(False).eval()


def _same_base(base: BaseModel, record: RunRecord) -> BaseModel:
    """The base at the revision that the run was trained on."""
    revision = record.base.get("revision")
    return replace(base, revision=revision) if base.origin == "hub" and revision else base
