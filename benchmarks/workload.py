"""The workload of the benchmark, the same for every system: texts, two models, adapters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import peft
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, RobertaConfig

from pennyweight.base.locate import ConfigChanges, locate
from pennyweight.data.source import Source
from pennyweight.data.splits import ReadOptions, read_rows
from pennyweight.environment import cache_directory

LABELS = ("World", "Sports", "Business", "Sci/Tech")
LINEAR = ("query", "key", "value", "attention.output.dense", "intermediate.dense", "output.dense")
MAX_TOKENS = 256


@dataclass(frozen=True)
class Workload:
    """A model, the matrices and layers with adapters, their rank, and the dropout."""

    model: str
    targets: tuple[str, ...]
    rank: int
    dropout: float = 0.1
    layers: tuple[int, ...] | None = None

    def adapted(self, *, attention: str) -> peft.PeftModel:
        """Return the model with untrained adapters; the weights are the same in every call."""
        config = peft.LoraConfig(
            task_type="SEQ_CLS",
            r=self.rank,
            lora_alpha=2 * self.rank,
            lora_dropout=self.dropout,
            target_modules=list(self.targets),
            layers_to_transform=None if self.layers is None else list(self.layers),
        )
        return peft.get_peft_model(self.base(attention=attention), config)

    def base(self, *, attention: str) -> Any:
        """Return RoBERTa-base with random weights, or the embedded encoder with its own."""
        torch.manual_seed(0)
        if self.model == "roberta":
            config = RobertaConfig(
                vocab_size=50265,
                max_position_embeddings=514,
                type_vocab_size=1,
                layer_norm_eps=1e-5,
                num_labels=4,
                hidden_dropout_prob=self.dropout,
                attention_probs_dropout_prob=self.dropout,
            )
            return AutoModelForSequenceClassification.from_config(
                config, attn_implementation=attention
            )
        base = locate("embedded", labels=LABELS, changes=ConfigChanges(dropout=self.dropout))
        return AutoModelForSequenceClassification.from_pretrained(
            base.location, config=base.config, attn_implementation=attention
        )


def tokenizer_of(workload: Workload, directory: str | None) -> Any:
    """Return RoBERTa's tokenizer if its directory is given, or the embedded encoder's."""
    if workload.model == "roberta" and directory:
        return AutoTokenizer.from_pretrained(directory)
    return AutoTokenizer.from_pretrained(locate("embedded", labels=LABELS).location)


def texts_of(location: str, *, rows: int, seed: int = 0) -> tuple[list[str], np.ndarray]:
    """Return `rows` random texts and their labels; rows repeat if the source has fewer."""
    options = ReadOptions(LABELS, (), "stop", cache_directory() / "rows")
    table = read_rows("rows", Source(location), options).table
    generator = np.random.default_rng(seed)
    indices = generator.permutation(len(table))
    while len(indices) < rows:
        indices = np.concatenate([indices, generator.permutation(len(table))])
    selected = table.select(indices[:rows])
    return list(selected["text"]), np.asarray(selected["label"], dtype=np.int64)


def ids_of(texts: list[str], tokenizer: Any, *, longest: int = MAX_TOKENS) -> list[list[int]]:
    """Return the token ids of every text."""
    ids: list[list[int]] = tokenizer(texts, truncation=True, max_length=longest)["input_ids"]
    return ids
