"""The trained classifier of a finished run, with the same cleaning and tokens as in training."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, overload

import datasets
import numpy as np
from transformers import PreTrainedModel

from pennyweight.budget.facts import write_artifact_facts
from pennyweight.data.ingest import OnBadRow, ReadOptions
from pennyweight.data.label import Task
from pennyweight.engine.batches.tokenize import has_token_types
from pennyweight.engine.device import choose_compute
from pennyweight.engine.onnx_backend import require_onnx
from pennyweight.engine.predictor import Backend, Predictions, Predictor
from pennyweight.errors import RunError
from pennyweight.evaluation.decisions import given_classes
from pennyweight.inference.abstention import check_abstention, confidence_for
from pennyweight.inference.load import SavedModel, open_run, plain_backend
from pennyweight.inference.model_card import write_merged_card
from pennyweight.inference.processing import processing_of
from pennyweight.inference.texts import (
    Text,
    batches_of,
    texts_of,
)
from pennyweight.model.artifact import read_artifact_facts
from pennyweight.model.build import load_tokenizer
from pennyweight.model.merge import save_merged
from pennyweight.quiet import quiet_libraries
from pennyweight.runs.directory import require_empty
from pennyweight.runs.record import RunRecord
from pennyweight.settings.values import Settings

__all__ = ["BackendName", "Classifier"]

BackendName = Literal["torch", "onnx"]


class Classifier:
    """A run's model, ready to predict; see `Classifier.load`.

    Attributes:
        record: of the run.
        settings: the run's recipe as plain values.
        tokenizer: of the run.
        precision: in which the model runs, such as "bf16".
    """

    def __init__(
        self,
        record: RunRecord,
        settings: Settings,
        saved: SavedModel,
        *,
        tokenizer: Any,
        backend: BackendName = "torch",
    ) -> None:
        self.record = record
        self.settings = settings
        self._saved = saved
        self.tokenizer = tokenizer
        self._processing = processing_of(record, settings, saved.artifact)
        self._facts = read_artifact_facts(saved.artifact)
        self.precision: str = "fp32"
        self._predictor = self._onnx() if backend == "onnx" else self._torch()

    @classmethod
    @quiet_libraries()
    def load(cls, run: str | Path, *, backend: BackendName = "torch") -> Classifier:
        """Load the best adapter of a finished run onto its base.

        Args:
            run: the run's directory.
            backend: "torch" in the run's precision, or "onnx": ONNX Runtime in float32, through a
                file that is exported into `RUN/onnx` when it is first needed.

        Raises:
            RunError: it is no run, is not complete, or its files were changed after training.
            BaseModelError: the base cannot be found.
        """
        record, settings, saved = open_run(Path(run))
        tokenizer = load_tokenizer(saved.base, tokenizer=str(saved.artifact))
        return cls(record, settings, saved, tokenizer=tokenizer, backend=backend)

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes' names in the order of their indices."""
        return self.settings.labels

    @property
    def task(self) -> Task:
        """Whether a text has exactly one label, or any number of them."""
        return self.settings.task

    @property
    def thresholds(self) -> np.ndarray | None:
        """The probability of each class from which a text is given it, float64 `[classes]`.

        They were fitted on the validation rows. None for a single-label task.
        """
        return self._processing.thresholds

    @property
    def temperature(self) -> float:
        """The number that logits are divided by, so that probabilities are calibrated.

        It was fitted on the validation rows, and changes no label; 1 if none was fitted.
        """
        correction = self._processing.correction
        return self._processing.temperature if correction is None else correction.temperature

    @property
    def pair_columns(self) -> tuple[str, str] | None:
        """The columns with the two texts of a pair; None if a row is a single text."""
        return self.record.pair_columns

    @property
    def classes_(self) -> np.ndarray:
        """`labels` as an array, under scikit-learn's name."""
        return np.array(self.labels, dtype=object)

    @overload
    def predict(self, texts: str) -> str | list[str]: ...  # type: ignore[overload-overlap]

    @overload
    def predict(self, texts: Iterable[Text]) -> list[str] | list[list[str]]: ...

    @overload
    def predict(  # type: ignore[overload-overlap]
        self, texts: str, *, abstain_below: float
    ) -> str | None: ...

    @overload
    def predict(self, texts: Iterable[Text], *, abstain_below: float) -> list[str | None]: ...

    def predict(
        self, texts: str | Iterable[Text], *, abstain_below: float | None = None
    ) -> str | list[str] | list[list[str]] | list[str | None] | None:
        """Return the most probable label of a raw text, or of each of several.

        For a multi-label run, return a list of labels for each text, most probable first.

        Args:
            texts: a text, or any iterable of texts: a list, a column of a pandas DataFrame, ...;
                for a run on pairs of texts, an iterable of tuples of two texts.
            abstain_below: give None instead of a label whose probability is lower; see
                `confidence_for`.

        Raises:
            RunError: `abstain_below` is not in 0..1, or is given for a multi-label run.
            DataError: an element is not a text, or not a pair of texts where one is expected.
            NonFiniteLogitsError: a logit is NaN or infinite.
        """
        if isinstance(texts, str):
            if abstain_below is None:
                return self.predict([texts])[0]
            return self.predict([texts], abstain_below=abstain_below)[0]
        if abstain_below is not None:
            check_abstention(self.task, abstain_below)
        probabilities = self.predict_probabilities(texts)
        labels = self.labels_of(probabilities)
        if abstain_below is None:
            return labels
        confident = probabilities.max(axis=1, initial=0.0) >= abstain_below
        return [
            str(label) if answered else None
            for label, answered in zip(labels, confident, strict=True)
        ]

    def confidence_for(self, coverage: float) -> float:
        """Return the confidence below which to abstain, so that a share of the rows is answered.

        It follows from the validation rows; on texts of another kind, the share will differ.

        Args:
            coverage: share of the rows to answer, above 0 and at most 1.

        Raises:
            RunError: the share is not in that range, the run is a multi-label one, or its record
                has no such curve.
        """
        return confidence_for(self.record, coverage)

    def labels_of(self, probabilities: np.ndarray) -> list[str] | list[list[str]]:
        """Return the label of each row, or a list of labels for each row of a multi-label run.

        Args:
            probabilities: float `[rows, classes]`.
        """
        given = given_classes(probabilities, self.thresholds)
        if self.task == "single-label":
            return [self.labels[index] for (index,) in given]
        return [[self.labels[index] for index in row] for row in given]

    def predict_probabilities(self, texts: Iterable[Text]) -> np.ndarray:
        """Return the class probabilities of raw texts, float64 `[texts, classes]`.

        Args:
            texts: any iterable of texts, or of tuples of two texts for a run on pairs.

        Raises:
            DataError: an element is not a text, or not a pair of texts where one is expected.
            NonFiniteLogitsError: a logit is NaN or infinite.
        """
        return self.cleaned_probabilities(self._processing.cleaned(texts))

    def cleaned_probabilities(self, texts: Sequence[str] | Sequence[tuple[str, str]]) -> np.ndarray:
        """Return the class probabilities of cleaned texts, float64 `[texts, classes]`.

        Args:
            texts: texts, or pairs of texts for a run on pairs, cleaned as the run's rows were.

        Raises:
            NonFiniteLogitsError: a logit is NaN or infinite.
        """
        predictions = self._predictor.texts(texts, features=self._processing.needs_features)
        return self._processing.probabilities(predictions, texts)

    predict_proba = predict_probabilities
    """`predict_probabilities` under scikit-learn's name."""

    def stream(self, rows: datasets.Dataset, *, features: bool = False) -> Iterator[Predictions]:
        """Yield the predictions of cleaned rows in their order, some thousand rows at a time.

        The logits are calibrated and corrected, as probabilities are.

        Args:
            rows: a table with the column `text`, and `text_pair` for a run on pairs of texts,
                cleaned as the run's training rows were.
            features: whether the input of the output layer is returned as well.

        Raises:
            DataError: the rows are pairs of texts and the run's are not, or the reverse.
        """
        for texts in batches_of(rows, are_pairs=self.pair_columns is not None):
            chunk = self._predictor.texts(
                texts, features=features or self._processing.needs_features
            )
            corrected = self._processing.corrected(chunk, texts)
            yield corrected if features else Predictions(corrected.logits)

    def outputs(self, rows: datasets.Dataset, *, features: bool = False) -> Predictions:
        """Return the predictions of cleaned rows in their order; see `stream`."""
        chunks = list(self.stream(rows, features=features))
        return Predictions.joined(chunks or [self._predictor.texts([], features=features)])

    @property
    def reads_token_types(self) -> bool:
        """Whether the model is given token types, which tell the texts of a pair apart."""
        return self.pair_columns is not None and has_token_types(self.tokenizer)

    @property
    def has_correction(self) -> bool:
        """Whether predictions are corrected for the class shares of a target."""
        return self._processing.correction is not None

    def groups(self, rows: datasets.Dataset) -> np.ndarray:
        """Return the group of cleaned rows whose class shares are corrected, int64 `[rows]`.

        They are all 0 where the run has no correction, or one for a single group.
        """
        if self._processing.correction is None:
            return np.zeros(len(rows), dtype=np.int64)
        features = (
            self.outputs(rows, features=True).features if self._processing.needs_features else None
        )
        return self._processing.correction.groups_of(texts_of(rows), features)

    def read_options(self, *, bad_rows: Path, on_bad_row: OnBadRow) -> ReadOptions:
        """Return how rows for this classifier are read: cleaned as in training."""
        return replace(
            self.settings.data.read,
            bad_rows=bad_rows,
            on_bad_row=on_bad_row,
            pairs=self.pair_columns is not None,
        )

    def merge(self, directory: str | Path) -> None:
        """Write base and adapter as one plain transformers model, in float32, labels included.

        The temperature, and a correction for one prior, are folded into the output layer. What the
        model does not do by itself, such as cleaning, is described in the README.md beside it. The
        thresholds of a multi-label run are written to `pennyweight.json`, as transformers has no
        place for them.

        Raises:
            RunError: the directory is not empty, or a correction has two groups.
        """
        directory = Path(directory)
        require_empty(directory)
        save_merged(self.plain_model(), directory, tokenizer=self.tokenizer)
        if self.task == "multi-label" and self._facts is not None:
            write_artifact_facts(directory, self._facts)
        write_merged_card(directory, self.record)

    def plain_model(self) -> PreTrainedModel:
        """Return base and adapter as one float32 model, temperature and correction folded in.

        Raises:
            RunError: a correction has two groups.
        """
        return self._saved.load_folded(self._processing.correction, temperature=self.temperature)

    def unmerged(self) -> Classifier:
        """Return the classifier in float32 with the adapter beside the base, as a reference."""
        model = self._saved.load_adapted()
        return self.with_backend(plain_backend(model, self.settings.inference))

    def with_backend(self, backend: Backend, *, is_folded: bool = False) -> Classifier:
        """Return a classifier that prepares rows as this one does and runs them with a backend.

        Args:
            backend: runs a model with the same tokens and classes in float32, or quantized.
            is_folded: whether its model has the temperature and the correction folded in.
        """
        other = copy.copy(self)
        other.precision = "fp32"
        other._predictor = self._saved.predictor_with(backend, tokenizer=self.tokenizer)
        if is_folded:
            other._processing = replace(self._processing, correction=None, temperature=1.0)
        return other

    def _torch(self) -> Predictor:
        compute = choose_compute(
            precision=self.settings.compute.precision,
            attention=self.settings.compute.attention,
            products=self.settings.compute.products,
            config=self._saved.base.config,
        )
        self.precision = compute.precision
        return self._saved.load_predictor(compute, tokenizer=self.tokenizer)

    def _onnx(self) -> Predictor:
        require_onnx()
        if self._processing.needs_features:
            raise RunError(
                "--backend onnx: the run corrects the class shares of two groups of texts, which "
                "are told apart by hidden states that ONNX Runtime does not return; use --backend "
                "torch"
            )
        return self._saved.load_onnx_predictor(
            tokenizer=self.tokenizer,
            classes=len(self.labels),
            token_types=self.reads_token_types,
        )
