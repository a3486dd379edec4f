"""Tokenization: of a dataset with a cache on disk, or of a few texts in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa

from pennyweight.engine.batches.rows import TokenizedRows, TokenStore
from pennyweight.quiet import quiet_libraries

__all__ = ["tokenize", "tokenize_texts"]


def tokenize(
    dataset: datasets.Dataset,
    *,
    fingerprint: str,
    tokenizer: Any,
    max_tokens: int,
    cache: Path,
) -> TokenizedRows:
    """Tokenize the column `text` of a dataset, once for each fingerprint.

    Args:
        dataset: has the columns `text` and `label`.
        fingerprint: identifies the texts; equal texts have equal fingerprints.
        tokenizer: a tokenizer of transformers.
        max_tokens: longer texts are truncated to this many tokens.
        cache: directory where the token ids are stored as an Arrow file and memory-mapped.
    """
    identity = f"{fingerprint}|{len(dataset)}|{max_tokens}|{_identity(tokenizer)}"
    key = hashlib.sha256(identity.encode()).hexdigest()[:32]
    cache.mkdir(parents=True, exist_ok=True)

    def encode(batch: dict[str, list[str]]) -> dict[str, list[Any]]:
        ids = _ids(batch["text"], tokenizer, max_tokens)
        return {"input_ids": ids, "length": [len(row) for row in ids]}

    with quiet_libraries():
        table = dataset.map(
            encode,
            batched=True,
            remove_columns=[name for name in dataset.column_names if name != "label"],
            cache_file_name=str(cache / f"tokens-{key}.arrow"),
            new_fingerprint=key,
        )
    columns = table.with_format("numpy")
    return TokenizedRows(
        TokenStore(table.data.column("input_ids")),
        lengths=np.asarray(columns["length"][:], dtype=np.int64),
        labels=np.asarray(columns["label"][:], dtype=np.int64),
        padding=_padding(tokenizer),
        fingerprint=key,
    )


def tokenize_texts(texts: Sequence[str], *, tokenizer: Any, max_tokens: int) -> TokenizedRows:
    """Tokenize texts in memory, into the same ids as `tokenize`; all labels are -1.

    Args:
        texts: any number of texts.
        tokenizer: a tokenizer of transformers.
        max_tokens: longer texts are truncated to this many tokens.
    """
    ids = _ids(list(texts), tokenizer, max_tokens) if len(texts) else []
    lengths = np.fromiter(map(len, ids), dtype=np.int64, count=len(ids))
    offsets = np.zeros(len(ids) + 1, dtype=np.int32)
    np.cumsum(lengths, out=offsets[1:])
    values = np.fromiter(chain.from_iterable(ids), dtype=np.int32, count=int(offsets[-1]))
    column = pa.chunked_array([pa.ListArray.from_arrays(pa.array(offsets), pa.array(values))])
    labels = np.full(len(ids), -1, dtype=np.int64)
    return TokenizedRows(TokenStore(column), lengths, labels, _padding(tokenizer))


def _ids(texts: list[str], tokenizer: Any, max_tokens: int) -> list[list[int]]:
    encoded = tokenizer(
        texts,
        truncation=True,
        max_length=max_tokens,
        return_attention_mask=False,
        return_token_type_ids=False,
    )
    ids: list[list[int]] = encoded["input_ids"]
    return ids


def _padding(tokenizer: Any) -> int:
    return int(tokenizer.pad_token_id) if tokenizer.pad_token_id is not None else 0


def _identity(tokenizer: Any) -> str:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    text = backend.to_str() if backend is not None else repr(tokenizer)
    return hashlib.sha256(text.encode()).hexdigest()
