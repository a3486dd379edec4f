"""From a saved classifier to a predictor: the same for users, final evaluations and teachers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from filelock import FileLock
from peft import PeftModel
from transformers import PreTrainedModel

from pennyweight.base import BaseModel
from pennyweight.budget.layout import layout_of
from pennyweight.budget.methods import METHODS, Method
from pennyweight.engine.batches.batcher import PaddedBatcher
from pennyweight.engine.calibration import calibration_for
from pennyweight.engine.device import Compute
from pennyweight.engine.features import output_layer_of
from pennyweight.engine.kernels.prepare import prepare_model
from pennyweight.engine.onnx_backend import OnnxModel, export_onnx
from pennyweight.engine.predictor import Backend, Predictor, TorchBackend
from pennyweight.errors import RunError
from pennyweight.files import hash_file
from pennyweight.inference.correction import Correction, fold_temperature
from pennyweight.model.artifact import read_artifact_facts
from pennyweight.model.build import BaseOptions
from pennyweight.model.merge import load_adapted, load_merged
from pennyweight.runs.directory import RunDirectory, verify_artifact
from pennyweight.runs.record import RunRecord, load_record
from pennyweight.settings import find_base
from pennyweight.settings.assemble import settings_of
from pennyweight.settings.values import InferenceSettings, Settings

__all__ = [
    "SavedModel",
    "open_run",
    "plain_backend",
    "predictor_of",
    "require_complete",
    "require_labels",
    "same_base",
]


@dataclass(frozen=True, slots=True)
class SavedModel:
    """A trained classifier on disk, with everything that is needed to load it.

    Attributes:
        base: the model that the adapter was trained on.
        artifact: the directory with the adapter, or with a whole model.
        method: the adapter method.
        options: how the base was loaded for training.
        inference: batch sizes and lengths.
    """

    base: BaseModel
    artifact: Path
    method: Method
    options: BaseOptions
    inference: InferenceSettings

    def load(self, *, attention: str) -> PreTrainedModel:
        """Return the classifier in float32 on the CPU, with the adapter folded into the base.

        Raises:
            RunError: the artifact is missing, or does not fit the base.
            BaseModelError: the base's weights cannot be loaded.
        """
        options = replace(self.options, attention=attention)
        return load_merged(self.base, self.artifact, method=self.method, options=options)

    def load_folded(self, correction: Correction | None, *, temperature: float) -> PreTrainedModel:
        """Return the classifier as `load` does, with a correction or temperature folded in.

        Args:
            correction: for class shares, calibration included; None for none.
            temperature: that logits are divided by where there is no correction.

        Raises:
            RunError: the correction has two groups, or the artifact cannot be loaded.
            BaseModelError: the base's weights cannot be loaded.
        """
        if correction is not None and correction.grouping is not None:
            raise RunError(
                f"{self.artifact}: corrects the class shares of two groups of texts, which a plain "
                "model cannot do; train with --set 'transduction.prior.groups=\"one\"' to merge "
                "or export it"
            )
        model = self.load(attention="eager")
        output = output_layer_of(model, _output_of(model))
        if correction is not None:
            correction.fold_into(output)
        elif temperature != 1.0:
            fold_temperature(output, temperature)
        return model

    def load_adapted(self) -> PeftModel | PreTrainedModel:
        """Return the classifier in float32 on the CPU, with the adapter beside the base.

        Raises:
            RunError: the artifact is missing, or does not fit the base.
            BaseModelError: the base's weights cannot be loaded.
        """
        options = replace(self.options, attention="eager")
        return load_adapted(self.base, self.artifact, method=self.method, options=options)

    def load_predictor(
        self, compute: Compute, *, tokenizer: Any, accelerator: Accelerator | None = None
    ) -> Predictor:
        """Return a predictor in the precision of `compute`; see `predictor_of`.

        Raises:
            RunError: the artifact is missing, or does not fit the base.
            BaseModelError: the base's weights cannot be loaded.
        """
        model = self.load(attention=compute.attention)
        return predictor_of(
            model, compute, self.inference, tokenizer=tokenizer, accelerator=accelerator
        )

    def load_onnx_predictor(self, *, tokenizer: Any, classes: int, token_types: bool) -> Predictor:
        """Return a predictor that runs ONNX Runtime; the model is exported when first needed.

        Args:
            tokenizer: of the model.
            classes: number of classes.
            token_types: whether the model is given them.

        Raises:
            RunError: the artifact is missing, or does not fit the base.
            BaseModelError: the base's weights cannot be loaded.
        """
        # Named by the weights' hash, so that another adapter never meets an old export.
        whole = self.artifact / "model.safetensors"
        weights = whole if whole.is_file() else self.artifact / "adapter_model.safetensors"
        digest = hash_file(weights)[:16]
        name = f"{digest}-pairs" if token_types else digest
        directory = self.artifact.parent / "onnx" / name
        directory.parent.mkdir(exist_ok=True)
        # Another process may be writing the same export.
        with FileLock(directory.parent / ".lock"):
            if not directory.is_dir():
                export_onnx(self.load(attention="eager"), directory, token_types=token_types)
        backend = OnnxModel(directory, batch_rows=self.inference.batch_rows, classes=classes)
        return self.predictor_with(backend, tokenizer=tokenizer)

    def predictor_with(self, backend: Backend, *, tokenizer: Any) -> Predictor:
        """Return a predictor that prepares rows for this model and runs them with a backend."""
        return Predictor(
            backend,
            tokenizer=tokenizer,
            max_tokens=self.inference.max_tokens,
            truncation=self.inference.truncation,
        )


def plain_backend(model: PeftModel | PreTrainedModel, settings: InferenceSettings) -> TorchBackend:
    """Return a backend that runs a float32 classifier on the CPU, unchanged, on padded rows.

    Args:
        model: a sequence classifier with "eager" attention, with PEFT's layers or without.
        settings: batch sizes.
    """
    return TorchBackend(
        model,
        PaddedBatcher("cpu", settings.batch_tokens),
        Compute("cpu", "fp32", "eager", why="as a reference"),
        batch_rows=settings.batch_rows,
        output_layer="",
    )


def _output_of(model: PreTrainedModel) -> str:
    return layout_of(model, labels=model.config.num_labels).head_output.name


def predictor_of(
    model: PreTrainedModel,
    compute: Compute,
    settings: InferenceSettings,
    *,
    tokenizer: Any,
    accelerator: Accelerator | None = None,
) -> Predictor:
    """Move a plain classifier to its device, make it fast in place, and wrap it as a predictor.

    Args:
        model: a sequence classifier without PEFT's layers, loaded with `compute.attention`.
        compute: device and precision.
        settings: batch sizes and lengths.
        tokenizer: of the model.
        accelerator: of several processes, which then share the rows.
    """
    model.requires_grad_(False).eval().to(compute.device)
    output = _output_of(model)
    batcher = prepare_model(
        model,
        compute,
        max_tokens=settings.batch_tokens,
        calibration=calibration_for(compute, tokenizer),
    )
    backend = TorchBackend(
        model,
        batcher,
        compute,
        batch_rows=settings.batch_rows,
        output_layer=output,
        accelerator=accelerator,
    )
    return Predictor(
        backend,
        tokenizer=tokenizer,
        max_tokens=settings.max_tokens,
        truncation=settings.truncation,
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
    base = same_base(find_base(record.recipe, config_only=False), record)
    method = METHODS[record.recipe.adapter.method]
    artifact = directory.artifact(method.artifact)
    verify_artifact(directory.path, record, artifact)
    require_labels(artifact, settings)
    options = BaseOptions(
        seed=settings.seed,
        weights=settings.base.weights,
        quantization=settings.base.quantization,
    )
    return record, settings, SavedModel(base, artifact, method, options, settings.inference)


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


def require_labels(artifact: Path, settings: Settings) -> None:
    """Refuse an artifact whose classes or task are not those of the run's record.

    Raises:
        RunError: they differ, or the artifact's facts cannot be read.
    """
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


def same_base(base: BaseModel, record: RunRecord) -> BaseModel:
    """Return the base at the revision that the run was trained on."""
    revision = record.base.revision if record.base is not None else None
    return replace(base, revision=revision) if base.origin == "hub" and revision else base
