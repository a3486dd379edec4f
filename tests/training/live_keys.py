"""For each key of the schema, a change that a run must show.

A key inside a section that is not there by default is changed in a recipe that has the section, and
the run that shows that the section itself is live is the run to compare with. So there is about one
training per key. In values, "{sets}" and the like stand for files; see `places` in
`test_live_keys.py`.
"""

from __future__ import annotations

from tiny import LABELS
from training.live_adapter_keys import ADAPTER_CHANGES, Change, Settings

__all__ = ["CHANGES", "SEARCH_KEYS", "Change", "Settings"]


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
        "adaptation": {"method": "lora", "rank": 4, "epochs": 2.0, "learning_rate": 0.01},
        "longest": 12,
        "batch_rows": 8,
        "gates": {"judge": "tf-idf", "confidence": 0.2, "similarity": 0.9, "copied_words": 30},
    },
}
_ENDPOINT: Settings = {
    **_TARGET,
    "generate": {
        "method": "endpoint",
        "url": "{endpoint}",
        "model": "m",
        "per_class": 6,
        "gates": {
            "judge": "classifiers",
            "judges": ["{teacher}"],
            "confidence": 0.25,
            "similarity": 1.0,
            "copied_words": 30,
        },
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
    "data.split": Change("hash", {**_SPLIT_OFF, "data.validation_fraction": 0.25}),
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
_BUDGET_AND_OPTIMIZER: dict[str, Change] = {
    "budget.trainable_parameters": Change(1700),
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
    "train.frozen_products": Change("int8"),
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
    "train.interpolate": Change(0.5, {"train.head_start": "logistic", "base.pooling": "mean"}),
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
            "method": "endpoint",
            "model": "{lm}-none",
            "prompts": "{prompts}-none",
            "per_class": 5,
            "adaptation.method": "none",
            "adaptation.epochs": 1.0,
            "adaptation.learning_rate": 0.1,
            "adaptation.rank": 2,
            "adaptation.alpha": 1.0,
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
    **{
        f"generate.{key}": Change(value, _ENDPOINT)
        for key, value in {
            # Nothing listens there.
            "url": "http://127.0.0.1:9/v1",
            "api_key_env": "NOT_SET",
            "instructions": "{instructions}",
            "examples": 2,
            "concurrency": 2,
            "timeout": 1e-6,
            "gates.judges": ["{student}"],
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
    "transduction.self_training.labels": Change("soft", _BALANCED),
    "transduction.self_training.weights": Change("confidence", _BALANCED),
    "transduction.self_training.copies": Change(2, _BALANCED),
    "transduction.consistency": Change(0.2, _TRANSDUCTION),
    "transduction.consistency_rows": Change(3, _TRANSDUCTION),
    "transduction.density_ratio": Change(None, _TRANSDUCTION),
    "transduction.density_ratio.largest": Change(0.9, _TRANSDUCTION),
    "transduction.density_ratio.power": Change(0.1, _TRANSDUCTION),
}
CHANGES: dict[str, Change] = {
    **_BASE_AND_DATA,
    **ADAPTER_CHANGES,
    **_BUDGET_AND_OPTIMIZER,
    **_TRAIN_AND_EVALUATE,
    **_LAB_AND_TARGET,
}
# These change a search and not a run; `tests/search/test_search.py` tries them.
SEARCH_KEYS = frozenset(
    {
        "search",
        "search.trials",
        "search.metric",
        "search.seed",
        "search.sampler",
        "search.pruning",
        "search.ranges",
        "search.ranges.low",
        "search.ranges.high",
        "search.ranges.log",
        "search.ranges.step",
    }
)
