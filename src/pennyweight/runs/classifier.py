"""A trained classifier, loaded from its run: the same cleaning and tokens as in training."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from scipy.special import softmax

from pennyweight.base.locate import BaseModel
from pennyweight.data.clean import cleaner
from pennyweight.data.splits import fingerprint_of
from pennyweight.engine.batch import Tokens, tokenize
from pennyweight.engine.device import Compute, choose_compute
from pennyweight.engine.predict import predict_logits
from pennyweight.environment import cache_directory
from pennyweight.errors import RunError
from pennyweight.model import load_adapter, load_tokenizer, merge_adapter
from pennyweight.model.build import load_base
from pennyweight.recipe import Recipe, resolve_recipe
from pennyweight.runs.planning import find_base
from pennyweight.runs.record import RunRecord, load_record

__all__ = ["Classifier"]


class Classifier:
    """A run's model, ready to predict."""

    def __init__(
        self,
        *,
        recipe: Recipe,
        record: RunRecord,
        model: Any,
        tokenizer: Any,
        compute: Compute,
    ) -> None:
        self.recipe = recipe
        self.record = record
        self.compute = compute
        self._model = model
        self._tokenizer = tokenizer

    @classmethod
    def load(cls, run: str | Path) -> Classifier:
        """Load a finished run's best adapter on its base.

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
        compute = choose_compute(precision=recipe.train.precision, attention=recipe.base.attention)
        model, _ = load_base(
            base, weights=recipe.base.weights, attention=compute.attention, seed=recipe.seed
        )
        adapted = load_adapter(model, run / "adapter")
        tokenizer = load_tokenizer(base, tokenizer=str(run / "adapter"))
        return cls(
            recipe=recipe,
            record=record,
            model=adapted.to(compute.device),
            tokenizer=tokenizer,
            compute=compute,
        )

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes' names in the order of their indices."""
        return self.recipe.data.labels

    def tokens(self, rows: datasets.Dataset) -> Tokens:
        """Tokenize cleaned rows as in training."""
        return tokenize(
            rows,
            fingerprint=fingerprint_of(rows),
            tokenizer=self._tokenizer,
            max_tokens=self.recipe.data.max_tokens,
            cache=cache_directory() / "tokens",
        )

    def logits(self, rows: datasets.Dataset) -> np.ndarray:
        """Logits, float32 `[rows, classes]`, of cleaned rows in their order."""
        return predict_logits(
            self._model,
            self.tokens(rows),
            compute=self.compute,
            batch_rows=self.recipe.train.evaluation_batch_rows,
            classes=len(self.labels),
        )

    def predict_probabilities(self, texts: Sequence[str]) -> np.ndarray:
        """Class probabilities, float64 `[texts, classes]`, of raw texts."""
        clean = cleaner(self.recipe.data.clean)
        table = datasets.Dataset.from_dict(
            {"text": [clean(text) for text in texts], "label": [-1] * len(texts)}
        )
        if len(table) == 0:
            return np.empty((0, len(self.labels)))
        with tempfile.TemporaryDirectory() as folder:
            tokens = tokenize(
                table,
                fingerprint=fingerprint_of(table),
                tokenizer=self._tokenizer,
                max_tokens=self.recipe.data.max_tokens,
                cache=Path(folder),
            )
            logits = predict_logits(
                self._model,
                tokens,
                compute=self.compute,
                batch_rows=self.recipe.train.evaluation_batch_rows,
                classes=len(self.labels),
            )
        probabilities: np.ndarray = softmax(logits.astype(np.float64), axis=1)
        return probabilities

    def predict(self, texts: Sequence[str]) -> list[str]:
        """The most probable label of each raw text."""
        return [self.labels[index] for index in self.predict_probabilities(texts).argmax(axis=1)]

    def merge(self, directory: str | Path) -> None:
        """Write base and adapter as one plain transformers model, in fp32, labels included.

        The classifier cannot be used afterwards: its adapter is gone.

        Raises:
            RunError: the directory is not empty.
        """
        directory = Path(directory)
        if directory.exists() and any(directory.iterdir()):
            raise RunError(f"{directory}: not empty; name a new directory")
        merge_adapter(self._model, directory, tokenizer=self._tokenizer)


def _same_base(base: BaseModel, record: RunRecord) -> BaseModel:
    """The base at the revision that the run was trained on."""
    revision = record.base.get("revision")
    return replace(base, revision=revision) if base.origin == "hub" and revision else base
