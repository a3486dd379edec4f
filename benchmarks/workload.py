"""What is measured: real texts, two models, adapters; the same for every system."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import peft
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, RobertaConfig

from pennyweight.base.locate import locate
from pennyweight.data.ingest import Source
from pennyweight.data.splits import Reading, read_rows
from pennyweight.environment import cache_directory

LABELS = ("World", "Sports", "Business", "Sci/Tech")
LINEAR = ("query", "key", "value", "attention.output.dense", "intermediate.dense", "output.dense")
MAX_TOKENS = 256


@dataclass(frozen=True)
class Workload:
    """One job: a model's shape, where its adapters sit, and the dropout in it."""

    model: str
    targets: tuple[str, ...]
    rank: int
    dropout: float = 0.1
    layers: tuple[int, ...] | None = None

    def adapted(self, *, attention: str) -> peft.PeftModel:
        """The model with fresh adapters; the same weights each time."""
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
        """RoBERTa-base's shapes with random weights, or the embedded encoder's own."""
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
        base = locate("embedded", labels=LABELS, dropout=self.dropout)
        return AutoModelForSequenceClassification.from_pretrained(
            base.location, config=base.config, attn_implementation=attention
        )


def tokenizer_of(workload: Workload, directory: str | None) -> Any:
    """RoBERTa's tokenizer where a directory is given, else the embedded encoder's."""
    if workload.model == "roberta" and directory:
        return AutoTokenizer.from_pretrained(directory)
    return AutoTokenizer.from_pretrained(locate("embedded", labels=LABELS).location)


def texts_of(location: str, *, rows: int, seed: int = 0) -> tuple[list[str], np.ndarray]:
    """`rows` texts and labels, drawn by the seed (with repetition where there are fewer)."""
    reading = Reading(LABELS, (), "stop", cache_directory() / "rows")
    table = read_rows("rows", Source(location), reading).table
    draw = np.random.default_rng(seed)
    chosen = draw.permutation(len(table))
    while len(chosen) < rows:
        chosen = np.concatenate([chosen, draw.permutation(len(table))])
    picked = table.select(chosen[:rows])
    return list(picked["text"]), np.asarray(picked["label"], dtype=np.int64)


def ids_of(texts: list[str], tokenizer: Any, *, longest: int = MAX_TOKENS) -> list[list[int]]:
    """Token ids of every text."""
    ids: list[list[int]] = tokenizer(texts, truncation=True, max_length=longest)["input_ids"]
    return ids
