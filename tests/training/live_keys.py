"""For each key of the schema, a change that a run must show.

A key inside a section that is not there by default is changed in a recipe that has the section, and
the run that shows that the section itself is live is the run to compare with. So there is about one
training per key. In values, "{sets}" and the like stand for files; see `places` in
`test_live_keys.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tiny import LABELS

__all__ = ["CHANGES", "Change", "Settings"]

Settings = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Change:
    """A change of one key.

    Attributes:
        value: the key's other value; None removes the key.
        besides: keys that both runs have, in the order in which they are set.
        element: of a list of tables, the one whose key is changed.
    """

    value: Any
    besides: Settings = field(default_factory=dict)
    element: int = 0


_ADALORA: Settings = {
    "adapter": {
        "method": "adalora",
        "rank": 3,
        "target_rank": 1,
        "start_steps": 1,
        "final_steps": 2,
        "every": 1,
    },
    "train.epochs": 3,
}
_VERA: Settings = {"adapter": {"method": "vera", "rank": 4}}
# So few parameters that not every matrix gets a rank.
_ALLOCATED: Settings = {
    "adapter.rank": "allocate",
    "adapter.alpha": "auto",
    "adapter.targets": ["*"],
    "adapter.head": "output-only",
    "budget.trainable_parameters": 1000,
}


def _allocated(**keys: Any) -> Settings:
    return {**_ALLOCATED, "adapter.allocate": keys}


_PILOT: Settings = _allocated(method="adalora", rows=40, steps=4, batch_rows=8)
_LOW_RANK: Settings = {"adapter.head": "low-rank"}


def _optimizer(method: str) -> Settings:
    return {"optimizer": {"method": method, "learning_rate": 0.01}}


_FILTERS: Settings = {
    "data.filters": [
        {"method": "length", "shortest": 5},
        {"method": "near-duplicates", "similarity": 0.9},
        {"method": "agreement", "folds": 2},
        {"method": "perplexity", "model": "{lm}", "share": 0.3},
    ]
}
_AUGMENTATIONS: Settings = {
    "data.augmentations": [
        {"method": "deletion"},
        {"method": "swap"},
        {
            "method": "synonyms",
            "wordnet": "{wordnet}",
            "probability": 0.99,
            "part_of_speech": "any",
            "spare_names": True,
        },
    ]
}
_SPLIT_OFF: Settings = {"data.validation": None}
_BAD_ROWS: Settings = {"data.train.location": "{sets}/bad.csv"}
_LARGE_BATCHES: Settings = {
    "train.batch_rows": 96,
    "data.augmentations": [{"method": "swap"}],
    "data.max_tokens": 30,
    "base.attention": "packed",
    "adapter.targets": ["layer.1.attention.self.value"],
}
_BY_LIKELIHOOD: Settings = {"train.keep_best": "nll"}
_FOCAL: Settings = {"train.loss": {"method": "focal"}}
_LOGIT_ADJUSTED: Settings = {"train.loss": {"method": "logit-adjusted"}}
_LONG: Settings = {**_BY_LIKELIHOOD, "train.epochs": 3}
_EARLY: Settings = {**_LONG, "train.early_stopping": {"patience": 1, "threshold": 0.9}}
_DISTILLATION: Settings = {"distillation": {"teachers": ["{teacher}"]}}
_TARGET: Settings = {"data.target": "{sets}/target.csv"}
_GENERATE: Settings = {
    **_TARGET,
    "generate": {
        "model": "{lm}",
        "prompts": "{prompts}",
        "per_class": 6,
        "epochs": 2.0,
        "learning_rate": 0.001,
        "longest": 12,
        "batch_rows": 8,
        "gates": {"judge": "tf-idf", "confidence": 0.2, "similarity": 0.9, "copied_words": 30},
    },
}
_TRANSDUCTION: Settings = {
    **_TARGET,
    "transduction": {
        "prior": {"method": "em"},
        "self_training": {
            "method": "confident",
            "teachers": ["{teacher}"],
            # So small a teacher, corrected for the class shares, is never confident.
            "confidence": 0.2,
            "most_per_class": 4,
        },
        "consistency": 1.0,
        "consistency_rows": 12,
        "density_ratio": {},
    },
}
_BALANCED: Settings = {
    **_TARGET,
    "transduction": {
        "self_training": {"method": "balanced", "teachers": ["{teacher}"], "share": 0.6}
    },
}
_SHARES = {"World": 0.4, "Sports": 0.1, "Business": 0.25, "Sci/Tech": 0.25}
_STATED: Settings = {
    **_TRANSDUCTION,
    "transduction.prior": {"method": "stated", "stated": _SHARES},
}

_BASE_AND_DATA: dict[str, Change] = {
    "name": Change("another"),
    "seed": Change(7),
    "base.name": Change("{bert}"),
    "base.revision": Change("main"),
    "base.weights": Change("random"),
    "base.tokenizer": Change("{replacing}"),
    "base.attention": Change("packed"),
    "base.quantization": Change("nf4"),
    "base.pooling": Change("mean"),
    "base.dropout": Change(0.0),
    "data.train": Change("{sets}/other.csv"),
    "data.train.location": Change("{sets}/bad.csv"),
    "data.train.format": Change("lines"),
    "data.train.text_columns": Change(["label", "text"]),
    "data.train.label_column": Change("second_label"),
    "data.train.revision": Change("main"),
    "data.train.pair_columns": Change(["text", "label"]),
    "data.train.label_columns": Change(["text", "label"]),
    "data.validation": Change(None),
    # Words cannot be exchanged in rows with several labels.
    "data.task": Change("multi-label", _AUGMENTATIONS),
    "data.label_separator": Change("|", _AUGMENTATIONS),
    "data.truncation": Change("head-tail", {"data.max_tokens": 5}),
    "data.target": Change("{sets}/target.csv"),
    "data.labels": Change(["A", "B", "C", "D"]),
    "data.validation_fraction": Change(0.4, _SPLIT_OFF),
    "data.train_rows": Change(24),
    "data.max_tokens": Change(5),
    "data.clean": Change(["html-entities"]),
    "data.filters": Change(_FILTERS["data.filters"]),
    "data.filters.method": Change("duplicates", _FILTERS),
    "data.filters.shortest": Change(7, _FILTERS),
    "data.filters.longest": Change(9, _FILTERS),
    "data.filters.similarity": Change(0.2, _FILTERS, element=1),
    "data.filters.folds": Change(3, _FILTERS, element=2),
    "data.filters.model": Change("{lm}-none", _FILTERS, element=3),
    "data.filters.share": Change(0.6, _FILTERS, element=3),
    "data.augmentations": Change(_AUGMENTATIONS["data.augmentations"]),
    "data.augmentations.method": Change("typos", _AUGMENTATIONS),
    "data.augmentations.probability": Change(0.6, _AUGMENTATIONS),
    "data.augmentations.copies": Change(2, _AUGMENTATIONS, element=1),
    "data.augmentations.count": Change(3, _AUGMENTATIONS, element=1),
    "data.augmentations.most": Change(1, _AUGMENTATIONS, element=2),
    "data.augmentations.part_of_speech": Change("most-frequent", _AUGMENTATIONS, element=2),
    "data.augmentations.spare_names": Change(False, _AUGMENTATIONS, element=2),
    "data.augmentations.wordnet": Change("{sets}", _AUGMENTATIONS, element=2),
    "data.extra": Change(["{extra}"]),
    "data.on_bad_row": Change("set-aside", _BAD_ROWS),
    "data.overlap": Change("keep"),
    "data.near_duplicate_similarity": Change(0.2),
}
_ADAPTER_AND_OPTIMIZER: dict[str, Change] = {
    "budget.trainable_parameters": Change(1700),
    "adapter.method": Change("rslora"),
    "adapter.targets": Change(["key"]),
    "adapter.rank": Change(3),
    "adapter.alpha": Change(1.0),
    "adapter.dropout": Change(0.5),
    "adapter.bias": Change("all"),
    "adapter.head": Change("low-rank"),
    "adapter.head_rank": Change(2, _LOW_RANK),
    "adapter.plan": Change("{plan}"),
    "adapter.allocate": Change({"method": "fill"}, _ALLOCATED),
    "adapter.allocate.method": Change("activation", _ALLOCATED),
    "adapter.allocate.rows": Change(2, _ALLOCATED),
    "adapter.allocate.seed": Change(1, _ALLOCATED),
    "adapter.allocate.ratios": Change({"*": 1.0, "query": 9.0}, _allocated(method="by-type")),
    "adapter.allocate.measures": Change(["activation"], _allocated(method="knapsack")),
    "adapter.allocate.steps": Change(1, _PILOT),
    "adapter.allocate.batch_rows": Change(2, _PILOT),
    "adapter.allocate.learning_rate": Change(0.5, _PILOT),
    "adapter.initialization": Change("gaussian"),
    "adapter.target_rank": Change(2, _ADALORA),
    "adapter.start_steps": Change(2, _ADALORA),
    "adapter.final_steps": Change(1, _ADALORA),
    "adapter.every": Change(3, _ADALORA),
    "adapter.betas": Change([0.1, 0.1], _ADALORA),
    "adapter.orthogonality": Change(0.0, _ADALORA),
    "adapter.d_initial": Change(1.0, _VERA),
    "optimizer.method": Change("adam"),
    "optimizer.learning_rate": Change(0.001),
    "optimizer.weight_decay": Change(0.5),
    "optimizer.betas": Change([0.5, 0.9]),
    "optimizer.epsilon": Change(0.1),
    "optimizer.b_ratio": Change(4.0),
    "optimizer.layer_decay": Change(0.5),
    "optimizer.smoothing": Change(0.5, _optimizer("rmsprop")),
    "optimizer.momentum": Change(0.5, _optimizer("sgd")),
    "optimizer.nesterov": Change(True, _optimizer("sgd")),
    "optimizer.decay_exponent": Change(-0.2, _optimizer("adafactor")),
    "optimizer.clip": Change(100.0, _optimizer("adafactor")),
    "optimizer.rest_learning_rate": Change(0.1, _optimizer("muon")),
    "optimizer.schedule.method": Change("constant"),
    "optimizer.schedule.warmup_steps": Change(3),
    "optimizer.schedule.warmup_ratio": Change(0.5),
}
_TRAIN_AND_EVALUATE: dict[str, Change] = {
    "train.epochs": Change(3, _BY_LIKELIHOOD),
    "train.max_steps": Change(3),
    "train.batch_rows": Change(16),
    "train.accumulation_steps": Change(2),
    "train.batch_tokens": Change(512, _LARGE_BATCHES),
    "train.evaluation_batch_rows": Change(4),
    "train.batch_order": Change("random"),
    "train.compile": Change("on"),
    "train.prefix_cache": Change("disk", _LARGE_BATCHES),
    "train.precision": Change("bf16"),
    "train.loss.method": Change("focal"),
    "train.loss.gamma": Change(0.5, _FOCAL),
    "train.loss.tau": Change(0.5, _LOGIT_ADJUSTED),
    "train.class_weights": Change("balanced"),
    "train.sampling": Change("balanced"),
    "train.label_smoothing": Change(0.2),
    "train.r_drop": Change(1.0),
    "train.mixup": Change(0.5),
    "train.average": Change(0.5),
    "train.max_gradient_norm": Change(0.01),
    "train.evaluate_every": Change(2),
    "train.keep_best": Change("nll"),
    "train.early_stopping": Change({"patience": 1, "threshold": 0.9}, _LONG),
    "train.early_stopping.patience": Change(3, _EARLY),
    "train.early_stopping.threshold": Change(0.0, _EARLY),
    "train.contrastive": Change(1.0),
    "train.keep_within": Change(1.0, {"train.keep_best": "ece", "train.epochs": 3}),
    "train.head_end": Change("logistic", {"base.pooling": "mean"}),
    "train.start_from": Change("{student}"),
    "train.head_start": Change("logistic", {"base.pooling": "mean"}),
    "train.minutes": Change(1e-4),
    "train.log_every": Change(2),
    "train.trackers": Change(["tensorboard"]),
    "evaluate.test": Change("{sets}/other.csv"),
    "evaluate.also": Change({"more": "{sets}/other.csv"}),
    "evaluate.baselines": Change(["tf-idf"]),
    "evaluate.calibration_bins": Change(2),
}
_LAB_AND_TARGET: dict[str, Change] = {
    "distillation": Change({"teachers": ["{teacher}"]}),
    "distillation.teachers": Change(["{student}"], _DISTILLATION),
    "distillation.temperature": Change(5.0, _DISTILLATION),
    "distillation.soft": Change(1.0, _DISTILLATION),
    "distillation.hidden": Change(1.0, _DISTILLATION),
    "generate": Change(_GENERATE["generate"], _TARGET),
    **{
        f"generate.{key}": Change(value, _GENERATE)
        for key, value in {
            "model": "{lm}-none",
            "prompts": "{prompts}-none",
            "per_class": 5,
            "epochs": 1.0,
            "learning_rate": 0.01,
            "lengths": "empirical",
            "longest": 4,
            "temperature": 3.0,
            "top_k": 3,
            "top_p": 0.3,
            "repetition_penalty": 3.0,
            "batch_rows": 4,
            "gates.judge": "off",
            "gates.confidence": 0.0,
            "gates.similarity": 0.05,
            "gates.copied_words": 3,
        }.items()
    },
    "transduction": Change(_TRANSDUCTION["transduction"], _TARGET),
    "transduction.prior": Change(_STATED["transduction.prior"], _TRANSDUCTION),
    "transduction.prior.method": Change("confusion", _TRANSDUCTION),
    "transduction.prior.stated": Change({**_SHARES, "World": 0.1, "Sports": 0.4}, _STATED),
    "transduction.prior.groups": Change("one", _TRANSDUCTION),
    "transduction.prior.discriminator": Change("hidden-states", _TRANSDUCTION),
    "transduction.prior.entropy": Change(0.0, _STATED),
    "transduction.prior.slack": Change(1.0, _STATED),
    "transduction.self_training": Change(None, _TRANSDUCTION),
    "transduction.self_training.teachers": Change(["{student}"], _TRANSDUCTION),
    "transduction.self_training.confidence": Change(0.999, _TRANSDUCTION),
    # Every class, because which ones so small a teacher predicts is chance.
    "transduction.self_training.by_class": Change(dict.fromkeys(LABELS, 0.999), _TRANSDUCTION),
    "transduction.self_training.most_per_class": Change(1, _TRANSDUCTION),
    "transduction.self_training.label_smoothing": Change(0.5, _TRANSDUCTION),
    "transduction.self_training.method": Change("confident", _BALANCED),
    "transduction.self_training.share": Change(0.2, _BALANCED),
    "transduction.self_training.second_view": Change("none", _BALANCED),
    "transduction.self_training.rounds": Change(1, _BALANCED),
    "transduction.consistency": Change(0.2, _TRANSDUCTION),
    "transduction.consistency_rows": Change(3, _TRANSDUCTION),
    "transduction.density_ratio": Change(None, _TRANSDUCTION),
    "transduction.density_ratio.largest": Change(0.9, _TRANSDUCTION),
    "transduction.density_ratio.power": Change(0.1, _TRANSDUCTION),
}
CHANGES: dict[str, Change] = {
    **_BASE_AND_DATA,
    **_ADAPTER_AND_OPTIMIZER,
    **_TRAIN_AND_EVALUATE,
    **_LAB_AND_TARGET,
}
