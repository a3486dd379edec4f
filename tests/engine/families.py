"""A tiny classifier of every architecture that runs on packed rows, and rows for it."""

from __future__ import annotations

from typing import Any

import numpy as np
import peft
import pyarrow as pa
import torch
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    DebertaV2Config,
    ElectraConfig,
    ModernBertConfig,
    MPNetConfig,
    PreTrainedConfig,
    RobertaConfig,
    XLMRobertaConfig,
)

from pennyweight.engine.batches.rows import TokenizedRows, TokenStore
from pennyweight.engine.train.progress import TrainOptions

TRAIN_OPTIONS = TrainOptions(
    epochs=2,
    max_steps=None,
    batch_rows=8,
    accumulation_steps=1,
    batch_order="grouped",
    max_gradient_norm=1.0,
    evaluate_every=None,
    keep_best="accuracy",
    patience=None,
    threshold=0.0,
    seed=3,
)

_SIZES: dict[str, Any] = {
    "vocab_size": 60,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 80,
    "pad_token_id": 1,
    "num_labels": 4,
    "initializer_range": 0.2,
}
_NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
CONFIGS: dict[str, PreTrainedConfig] = {
    "bert": BertConfig(**_SIZES, **_NO_DROPOUT),
    "roberta": RobertaConfig(**_SIZES, **_NO_DROPOUT),
    "xlm-roberta": XLMRobertaConfig(**_SIZES, **_NO_DROPOUT),
    "electra": ElectraConfig(**_SIZES, **_NO_DROPOUT, embedding_size=16),
    "mpnet": MPNetConfig(**_SIZES, **_NO_DROPOUT),
    # A window of 8 tokens, shorter than most rows, in two of three layers.
    "modernbert-cls": ModernBertConfig(**_SIZES, local_attention=8, classifier_pooling="cls"),
    "modernbert-mean": ModernBertConfig(**_SIZES, local_attention=8, classifier_pooling="mean"),
}
# Its layers also read embeddings of relative positions.
DEBERTA = DebertaV2Config(
    **_SIZES,
    **_NO_DROPOUT,
    relative_attention=True,
    pos_att_type=["c2p", "p2c"],
    share_att_key=True,
    position_buckets=16,
    max_relative_positions=-1,
    norm_rel_ebd="layer_norm",
    position_biased_input=False,
)
TARGETS = {
    "mpnet": ["q", "k", "v", "o", "output.dense", "intermediate.dense"],
    "modernbert-cls": ["Wqkv", "attn.Wo", "mlp.Wi", "mlp.Wo"],
    "modernbert-mean": ["Wqkv", "attn.Wo", "mlp.Wi", "mlp.Wo"],
}


def adapted(
    family: str,
    *,
    attention: str,
    layers: list[int] | None = None,
    targets: list[str] | None = None,
    dropout: float = 0.0,
) -> peft.PeftModel:
    """Return the same model each time: LoRA on all or some linear layers, with B not zero."""
    torch.manual_seed(0)
    base = AutoModelForSequenceClassification.from_config(
        CONFIGS[family], attn_implementation=attention
    )
    all_linear = ["query", "key", "value", "output.dense", "intermediate.dense"]
    targets = targets or TARGETS.get(family, all_linear)
    config = peft.LoraConfig(
        task_type="SEQ_CLS",
        r=3,
        lora_dropout=dropout,
        target_modules=targets,
        layers_to_transform=layers,
        init_lora_weights=False,
    )
    return peft.get_peft_model(base, config)


def rows_of(count: int, *, seed: int = 0, longest: int = 40, vocabulary: int = 60) -> TokenizedRows:
    """Return rows of 3 to `longest` random tokens."""
    generator = np.random.default_rng(seed)
    ids = [
        [2, *generator.integers(5, vocabulary, size=generator.integers(1, longest - 1)).tolist(), 3]
        for _ in range(count)
    ]
    return TokenizedRows(
        TokenStore(pa.chunked_array([pa.array(ids, pa.list_(pa.int32()))])),
        np.array([len(row) for row in ids], dtype=np.int64),
        generator.integers(0, 4, size=count),
        padding=1,
        fingerprint=f"{count}|{seed}|{longest}",
    )
