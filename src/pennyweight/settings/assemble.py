"""The one door from a recipe to plain values.

`settings_of` takes a whole `Recipe` apart into frozen values, one for each stage of training and
inference; the stages never see the recipe itself.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, TypeVar

from pennyweight.data.ingest import ReadOptions
from pennyweight.data.label import Task
from pennyweight.data.source import Source
from pennyweight.data.splits import OverlapPolicy, SourceSet, SplitOptions
from pennyweight.engine.train.objective import ObjectiveOptions
from pennyweight.engine.train.optimizer import OptimizerOptions, ScheduleOptions
from pennyweight.engine.train.progress import TrainOptions
from pennyweight.environment import cache_directory
from pennyweight.errors import RecipeError
from pennyweight.recipe import Recipe
from pennyweight.recipe.data import SourceTable
from pennyweight.recipe.losses import Focal, LogitAdjusted
from pennyweight.recipe.train import EarlyStopping
from pennyweight.recipe.transduction import ConfidentSelfTraining, Transduction
from pennyweight.settings.generation import generation_of
from pennyweight.settings.task import selection_metric, task_of
from pennyweight.settings.values import (
    Augmentation,
    BalancedRows,
    BaseSettings,
    ComputeSettings,
    ConfidentRows,
    DataSettings,
    DensityRatioSettings,
    DistillationSettings,
    Filter,
    FitSettings,
    InferenceSettings,
    PriorSettings,
    RowSettings,
    SelfTrainingSettings,
    Settings,
)

_Value = TypeVar("_Value")

__all__ = ["read_options", "settings_of", "source_of"]


def settings_of(recipe: Recipe) -> Settings:
    """Take a recipe apart into plain values.

    Raises:
        RecipeError: the training rows or the labels are not set, or a key does not fit the task.
    """
    base, train, task = recipe.base, recipe.train, task_of(recipe)
    return Settings(
        labels=recipe.data.label_names,
        task=task,
        seed=recipe.seed,
        base=BaseSettings(base.weights, base.tokenizer, base.quantization),
        compute=ComputeSettings(
            train.precision, base.attention, train.compile, train.frozen_products
        ),
        data=_data(recipe),
        rows=_rows(recipe),
        distillation=_distillation(recipe),
        fit=_fit(recipe, task),
        baselines=recipe.evaluate.baselines,
        inference=InferenceSettings(
            max_tokens=_settled(recipe.data.max_tokens, "data.max_tokens"),
            batch_tokens=train.batch_tokens,
            batch_rows=train.evaluation_batch_rows,
            calibration_bins=recipe.evaluate.calibration_bins,
            truncation=recipe.data.truncation,
        ),
        prior=_prior(recipe.transduction, recipe.data.label_names),
    )


def _data(recipe: Recipe) -> DataSettings:
    data, evaluate = recipe.data, recipe.evaluate
    if data.train is None:
        raise RecipeError(
            "data.train: missing; name the labelled training rows, for example "
            "--set data.train=train.csv"
        )
    held_out = {"test": evaluate.test} if evaluate.test is not None else {}
    return DataSettings(
        sources=SourceSet(
            train=source_of(data.train),
            validation=None if data.validation is None else source_of(data.validation),
            held_out={name: source_of(table) for name, table in (held_out | evaluate.also).items()},
            target=None if data.target is None else source_of(data.target),
        ),
        read=read_options(recipe),
        split=SplitOptions(
            validation_fraction=_settled(data.validation_fraction, "data.validation_fraction"),
            train_rows=data.train_rows,
            seed=recipe.seed,
            method=data.split,
        ),
        overlap=OverlapPolicy(rule=data.overlap, similarity=data.near_duplicate_similarity),
    )


def read_options(recipe: Recipe) -> ReadOptions:
    """Return how the rows of a recipe are read, whose labels and task are settled."""
    data = recipe.data
    return ReadOptions(
        labels=data.label_names,
        clean=data.clean,
        on_bad_row=data.on_bad_row,
        cache=cache_directory() / "rows",
        task="multi-label" if data.task == "multi-label" else "single-label",
        label_separator=data.label_separator,
        pairs=_pairs(data.train),
        like=None if data.train is None else source_of(data.train),
    )


def _pairs(train: SourceTable | None) -> bool | None:
    """Return whether the rows are pairs of texts; None where the training file decides."""
    if train is None or (train.pair_columns is None and train.text_columns is None):
        return None
    return train.pair_columns is not None


def source_of(table: SourceTable) -> Source:
    """Return a recipe's source of rows as a plain value."""
    return Source(**dict(table))


def _rows(recipe: Recipe) -> RowSettings:
    data, use = recipe.data, recipe.transduction
    return RowSettings(
        filters=tuple(
            Filter(step.method, step.model_dump(exclude={"method"})) for step in data.filters
        ),
        augmentations=tuple(
            Augmentation(step.method, step.copies, step.model_dump(exclude={"method", "copies"}))
            for step in data.augmentations
        ),
        extra=data.extra,
        generation=None if recipe.generate is None else generation_of(recipe.generate, recipe.seed),
        self_training=_self_training(use, data.label_names),
        consistency_rows=use.consistency_rows if use is not None and use.consistency > 0.0 else 0,
        density_ratio=_density_ratio(use),
        label_smoothing=recipe.train.label_smoothing,
    )


def _self_training(
    use: Transduction | None, labels: tuple[str, ...]
) -> SelfTrainingSettings | None:
    if use is None or use.self_training is None:
        return None
    given = use.self_training
    rows: ConfidentRows | BalancedRows
    if isinstance(given, ConfidentSelfTraining):
        rows = ConfidentRows(given.confidence, given.by_class, given.most_per_class)
    else:
        rows = BalancedRows(
            given.share,
            given.second_view == "tf-idf",
            given.rounds,
            soft=given.labels == "soft",
            weighted=given.weights == "confidence",
            copies=given.copies,
        )
    prior = _prior(use, labels)
    return SelfTrainingSettings(given.teachers, given.label_smoothing, rows, prior)


def _density_ratio(use: Transduction | None) -> DensityRatioSettings | None:
    if use is None or use.density_ratio is None:
        return None
    return DensityRatioSettings(**dict(use.density_ratio))


def _prior(use: Transduction | None, labels: tuple[str, ...]) -> PriorSettings | None:
    if use is None or use.prior is None:
        return None
    values = dict(use.prior)
    if values["stated"] == "uniform":
        values["stated"] = dict.fromkeys(labels, 1.0 / len(labels))
    return PriorSettings(**values)


def _distillation(recipe: Recipe) -> DistillationSettings | None:
    section = recipe.distillation
    if section is None:
        return None
    return DistillationSettings(section.teachers, section.hidden > 0.0)


def _fit(recipe: Recipe, task: Task) -> FitSettings:
    train = recipe.train
    return FitSettings(
        options=_train_options(recipe, task),
        optimizer=_optimizer(recipe),
        objective=_objective(recipe),
        average=None if train.average == "off" else train.average,
        interpolate=None if train.interpolate == 1.0 else train.interpolate,
        start_from=None if train.start_from is None else Path(train.start_from),
        starts_head=train.head_start == "logistic" and train.start_from is None,
        refits_head=train.head_end == "logistic",
        seconds=None if train.minutes is None else 60.0 * train.minutes,
        prefix_cache=_settled(train.prefix_cache, "train.prefix_cache"),
        log_every=train.log_every,
        trackers=train.trackers,
    )


def _train_options(recipe: Recipe, task: Task) -> TrainOptions:
    train = recipe.train
    keep_within = _settled(train.keep_within, "train.keep_within")
    learns_from_target = recipe.transduction is not None and recipe.transduction.self_training
    stopping = train.early_stopping if isinstance(train.early_stopping, EarlyStopping) else None
    return TrainOptions(
        epochs=_settled(train.epochs, "train.epochs"),
        max_steps=train.max_steps,
        batch_rows=_settled(train.batch_rows, "train.batch_rows"),
        accumulation_steps=train.accumulation_steps,
        batch_order=_settled(train.batch_order, "train.batch_order"),
        max_gradient_norm=None if train.max_gradient_norm == "off" else train.max_gradient_norm,
        evaluate_every=None
        if train.evaluate_every == "epoch"
        else _settled(train.evaluate_every, "train.evaluate_every"),
        keep_best=selection_metric(recipe, task),
        patience=stopping.patience if stopping else None,
        threshold=stopping.threshold if stopping else 0.0,
        seed=recipe.seed,
        sampling=train.sampling,
        keep_within=keep_within,
        # What a target teaches does not show on validation, where it may only do no harm.
        below_start=keep_within if learns_from_target else 0.0,
    )


def _settled(value: _Value | Literal["auto"], key: str) -> _Value:
    """Return the value of a key that `pennyweight.defaults` has settled."""
    if value == "auto":
        raise RecipeError(f'{key}: "auto" has not been settled; call pennyweight.defaults.complete')
    return value


def _optimizer(recipe: Recipe) -> OptimizerOptions:
    _settled(recipe.optimizer.learning_rate, "optimizer.learning_rate")
    values = recipe.optimizer.model_dump()
    schedule = values.pop("schedule")
    shared = ("method", "learning_rate", "weight_decay", "b_ratio", "layer_decay")
    return OptimizerOptions(
        **{name: values.pop(name) for name in shared},
        schedule=ScheduleOptions(**schedule),
        extra=values,
    )


def _objective(recipe: Recipe) -> ObjectiveOptions:
    teachers, use, loss = recipe.distillation, recipe.transduction, recipe.train.loss
    return ObjectiveOptions(
        label_smoothing=recipe.train.label_smoothing,
        r_drop=recipe.train.r_drop,
        consistency=use.consistency if use else 0.0,
        mixup=recipe.train.mixup,
        temperature=teachers.temperature if teachers else 1.0,
        soft=teachers.soft if teachers else 0.0,
        hidden=teachers.hidden if teachers else 0.0,
        contrastive=_settled(recipe.train.contrastive, "train.contrastive"),
        focal_gamma=loss.gamma if isinstance(loss, Focal) else 0.0,
        logit_adjustment=loss.tau if isinstance(loss, LogitAdjusted) else 0.0,
        balance=recipe.train.class_weights == "balanced",
    )
