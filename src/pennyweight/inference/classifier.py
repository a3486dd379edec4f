"""The trained classifier of a finished run, with the same cleaning and tokens as in training."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, overload

import datasets
import numpy as np

from pennyweight.base import BaseModel
from pennyweight.budget.facts import write_artifact_facts
from pennyweight.budget.layout import layout_of
from pennyweight.budget.methods import METHODS
from pennyweight.data.ingest import OnBadRow, ReadOptions
from pennyweight.data.label import Task
from pennyweight.engine.batches.tokenize import has_token_types
from pennyweight.engine.device import choose_compute
from pennyweight.engine.features import output_layer_of
from pennyweight.engine.onnx_backend import OnnxModel, export_onnx, require_onnx
from pennyweight.engine.predictor import Predictions, Predictor
from pennyweight.errors import DataError, RunError
from pennyweight.evaluation.thresholds import decide
from pennyweight.files import hash_file
from pennyweight.inference.load import SavedModel
from pennyweight.inference.model_card import write_merged_card
from pennyweight.inference.processing import processing_of
from pennyweight.inference.texts import Text, texts_of
from pennyweight.model.artifact import read_artifact_facts
from pennyweight.model.build import BaseOptions, load_tokenizer
from pennyweight.model.merge import save_merged
from pennyweight.quiet import quiet_libraries
from pennyweight.runs.directory import RunDirectory, verify_artifact
from pennyweight.runs.record import RunRecord, load_record
from pennyweight.settings import find_base
from pennyweight.settings.assemble import settings_of
from pennyweight.settings.values import Settings

__all__ = ["BackendName", "Classifier", "open_run", "require_complete"]

BackendName = Literal["torch", "onnx"]
# Rows that are tokenized and sorted by length together where rows are streamed.
_ROWS_PER_CHUNK = 4096


class Classifier:
    """A run's model, ready to predict; see `Classifier.load`.

    Attributes:
        record: of the run.
        settings: the run's recipe as plain values.
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
        self._tokenizer = tokenizer
        self._processing = processing_of(record, settings, saved.artifact)
        self._facts = read_artifact_facts(saved.artifact)
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
    def pair_columns(self) -> tuple[str, str] | None:
        """The columns with the two texts of a pair; None if a row is a single text."""
        return self.record.pair_columns

    @overload
    def predict(self, texts: str) -> str | list[str]: ...  # type: ignore[overload-overlap]

    @overload
    def predict(self, texts: Iterable[Text]) -> list[str] | list[list[str]]: ...

    def predict(self, texts: str | Iterable[Text]) -> str | list[str] | list[list[str]]:
        """Return the most probable label of a raw text, or of each of several.

        For a multi-label run, return a list of labels for each text, most probable first.

        Args:
            texts: a text, or any iterable of texts: a list, a column of a pandas DataFrame, ...;
                for a run on pairs of texts, an iterable of tuples of two texts.

        Raises:
            DataError: an element is not a text, or not a pair of texts where one is expected.
            NonFiniteLogitsError: a logit is NaN or infinite.
        """
        if isinstance(texts, str):
            return self.predict([texts])[0]
        return self.labels_of(self.predict_probabilities(texts))

    def labels_of(self, probabilities: np.ndarray) -> list[str] | list[list[str]]:
        """Return the label of each row, or a list of labels for each row of a multi-label run.

        Args:
            probabilities: float `[rows, classes]`.
        """
        if self.task == "single-label":
            return [self.labels[index] for index in probabilities.argmax(axis=1)]
        given = decide(probabilities, self.thresholds)
        order = np.argsort(-probabilities, axis=1, kind="stable")
        return [
            [self.labels[index] for index in ranked if row[index]]
            for row, ranked in zip(given, order, strict=True)
        ]

    def predict_probabilities(self, texts: Iterable[Text]) -> np.ndarray:
        """Return the class probabilities of raw texts, float64 `[texts, classes]`.

        Args:
            texts: any iterable of texts, or of tuples of two texts for a run on pairs.

        Raises:
            DataError: an element is not a text, or not a pair of texts where one is expected.
            NonFiniteLogitsError: a logit is NaN or infinite.
        """
        cleaned = self._processing.cleaned(texts)
        predictions = self._predictor.texts(cleaned, features=self._processing.needs_features)
        return self._processing.probabilities(predictions, cleaned)

    def stream(self, rows: datasets.Dataset, *, features: bool = False) -> Iterator[Predictions]:
        """Yield the predictions of cleaned rows in their order, some thousand rows at a time.

        Args:
            rows: a table with the column `text`, and `text_pair` for a run on pairs of texts,
                cleaned as the run's training rows were.
            features: whether the input of the output layer is returned as well.

        Raises:
            DataError: the rows are pairs of texts and the run's are not, or the reverse.
        """
        for texts in _batches(rows, are_pairs=self.pair_columns is not None):
            chunk = self._predictor.texts(
                texts, features=features or self._processing.needs_features
            )
            corrected = self._processing.corrected(chunk, texts)
            yield corrected if features else Predictions(corrected.logits)

    def outputs(self, rows: datasets.Dataset, *, features: bool = False) -> Predictions:
        """Return the predictions of cleaned rows in their order; see `stream`."""
        chunks = list(self.stream(rows, features=features))
        if not chunks:
            return self._predictor.texts([], features=features)
        logits = np.concatenate([chunk.logits for chunk in chunks])
        if not features:
            return Predictions(logits)
        return Predictions(
            logits, np.concatenate([c.features for c in chunks if c.features is not None])
        )

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

        A correction for one prior is folded into the output layer. What the model does not do by
        itself, such as cleaning, is described in the README.md beside it. The thresholds of a
        multi-label run are written to `pennyweight.json`, as transformers has no place for them.

        Raises:
            RunError: the directory is not empty, or a correction has two groups.
        """
        directory = Path(directory)
        if directory.exists() and any(directory.iterdir()):
            raise RunError(f"{directory}: not empty; name a new directory")
        correction = self._processing.correction
        if correction is not None and correction.grouping is not None:
            raise RunError(
                f"{self._saved.artifact}: corrects the class shares of two groups of texts, which "
                "a plain model cannot do; train with --set 'transduction.prior.groups=\"one\"' to "
                "merge it"
            )
        model = self._saved.load(attention="eager")
        if correction is not None:
            output = layout_of(model, labels=len(self.labels)).head_output.name
            correction.fold_into(output_layer_of(model, output))
        save_merged(model, directory, tokenizer=self._tokenizer)
        if self.task == "multi-label" and self._facts is not None:
            write_artifact_facts(directory, self._facts)
        write_merged_card(directory, self.record)

    def _torch(self) -> Predictor:
        compute = choose_compute(
            precision=self.settings.compute.precision,
            attention=self.settings.compute.attention,
            config=self._saved.base.config,
        )
        return self._saved.load_predictor(compute, tokenizer=self._tokenizer)

    def _onnx(self) -> Predictor:
        require_onnx()
        if self._processing.needs_features:
            raise RunError(
                "--backend onnx: the run corrects the class shares of two groups of texts, which "
                "are told apart by hidden states that ONNX Runtime does not return; use --backend "
                "torch"
            )
        # Named by the weights' hash, so that another adapter never meets an old export.
        artifact = self._saved.artifact
        whole = artifact / "model.safetensors"
        weights = whole if whole.is_file() else artifact / "adapter_model.safetensors"
        digest = hash_file(weights)[:16]
        types = self.pair_columns is not None and has_token_types(self._tokenizer)
        directory = artifact.parent / "onnx" / (f"{digest}-pairs" if types else digest)
        if not directory.is_dir():
            export_onnx(self._saved.load(attention="eager"), directory, token_types=types)
        backend = OnnxModel(
            directory, batch_rows=self._saved.inference.batch_rows, classes=len(self.labels)
        )
        inference = self._saved.inference
        return Predictor(
            backend,
            tokenizer=self._tokenizer,
            max_tokens=inference.max_tokens,
            truncation=inference.truncation,
        )


def open_run(run: Path) -> tuple[RunRecord, Settings, SavedModel]:
    """Return the record of a complete run, its recipe as plain values, and its model on disk.

    Raises:
        RunError: it is no run, is not complete, or its files were changed after training.
        BaseModelError: the base cannot be found.
    """
    directory = RunDirectory(run)
    record = load_record(directory.path)
    require_complete(directory.path, record)
    settings = settings_of(record.recipe)
    base = _same_base(find_base(record.recipe, config_only=False), record)
    method = METHODS[record.recipe.adapter.method]
    artifact = directory.artifact(method.artifact)
    verify_artifact(directory.path, record, artifact)
    _require_labels(artifact, settings)
    options = BaseOptions(
        seed=settings.seed,
        weights=settings.base.weights,
        quantization=settings.base.quantization,
    )
    return record, settings, SavedModel(base, artifact, method, options, settings.inference)


def _batches(
    rows: datasets.Dataset, *, are_pairs: bool
) -> Iterator[list[str] | list[tuple[str, str]]]:
    if ("text_pair" in rows.column_names) != are_pairs:
        expected, given = ("pairs of texts", "single texts")[:: 1 if are_pairs else -1]
        raise DataError(f"the run classifies {expected}, and these rows are {given}")
    if not are_pairs:
        yield from (batch["text"] for batch in rows.select_columns("text").iter(_ROWS_PER_CHUNK))
        return
    for batch in rows.select_columns(["text", "text_pair"]).iter(_ROWS_PER_CHUNK):
        yield list(zip(batch["text"], batch["text_pair"], strict=True))


def require_complete(run: Path, record: RunRecord) -> None:
    """Refuse a run that is unfinished.

    Raises:
        RunError: the run's status is not "complete".
    """
    if record.status == "complete":
        return
    hint = f"; resume it with: pennyweight train {run} --out {run} --resume"
    raise RunError(
        f"{run}: the run's status is {record.status}; only a complete run can be used"
        + ("" if record.status == "failed" else hint)
    )


def _require_labels(artifact: Path, settings: Settings) -> None:
    facts = read_artifact_facts(artifact)
    if facts is None:
        return
    if tuple(facts.labels) != settings.labels:
        raise RunError(
            f"{artifact}: its classes are {', '.join(facts.labels)}, and the run's record names "
            f"{', '.join(settings.labels)}; the adapter is of another run"
        )
    if facts.task != settings.task:
        raise RunError(
            f"{artifact}: its task is {facts.task}, and that of the run's record is "
            f"{settings.task}; the adapter is of another run"
        )


def _same_base(base: BaseModel, record: RunRecord) -> BaseModel:
    """Return the base at the revision that the run was trained on."""
    revision = record.base.revision if record.base is not None else None
    return replace(base, revision=revision) if base.origin == "hub" and revision else base
