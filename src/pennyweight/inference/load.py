"""From a saved classifier to a predictor: the same for users, final evaluations and teachers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from peft import PeftModel
from transformers import PreTrainedModel

from pennyweight.base import BaseModel
from pennyweight.budget.layout import layout_of
from pennyweight.budget.methods import Method
from pennyweight.engine.batches.batcher import PaddedBatcher
from pennyweight.engine.device import Compute
from pennyweight.engine.kernels.prepare import prepare_model
from pennyweight.engine.predictor import Predictor, TorchBackend
from pennyweight.errors import RunError
from pennyweight.model.artifact import read_artifact_facts
from pennyweight.model.build import BaseOptions
from pennyweight.model.merge import load_adapted, load_merged
from pennyweight.settings.values import InferenceSettings, Settings

__all__ = ["SavedModel", "plain_backend", "predictor_of", "require_same_labels"]


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
    output = layout_of(model, labels=model.config.num_labels).head_output.name
    batcher = prepare_model(model, compute, max_tokens=settings.batch_tokens)
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


def require_same_labels(artifact: Path, settings: Settings) -> None:
    """Refuse an artifact whose classes or task are not those of its run.

    Raises:
        RunError: they differ.
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
