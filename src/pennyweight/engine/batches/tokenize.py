"""Tokenization: of a dataset with a cache on disk, or of a few texts in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa

from pennyweight.data.scale import MANY_ROWS
from pennyweight.engine.batches.rows import TokenizedRows, TokenStore
from pennyweight.engine.batches.truncation import Truncation, head_and_tail
from pennyweight.errors import DataError
from pennyweight.files import building_in, hash_file, replacing
from pennyweight.quiet import quiet_libraries

__all__ = [
    "TokenOptions",
    "has_token_types",
    "join_rows",
    "label_array",
    "tokenize",
    "tokenize_texts",
]

# Part of every cache key. Raise it when the same rows would give other columns.
_VERSION = 3
_IDS = "input_ids"
_TYPES = "token_type_ids"


@dataclass(frozen=True, slots=True)
class TokenOptions:
    """How rows are tokenized, besides the tokenizer and the length.

    Attributes:
        truncation: "head" keeps the first tokens of a long row, "head-tail" as many of the first
            as of the last.
        classes: number of classes of a multi-label task; None for a single-label task.
    """

    truncation: Truncation = "head"
    classes: int | None = None


_DEFAULT = TokenOptions()


def tokenize(
    dataset: datasets.Dataset,
    *,
    fingerprint: str,
    tokenizer: Any,
    max_tokens: int,
    cache: Path,
    options: TokenOptions = _DEFAULT,
) -> TokenizedRows:
    """Tokenize the texts, or pairs of texts, of a dataset, once for each fingerprint.

    Args:
        dataset: has the columns `text`, `label` and, for pairs, `text_pair`.
        fingerprint: identifies the texts; equal texts have equal fingerprints.
        tokenizer: a tokenizer of transformers.
        max_tokens: longer rows are truncated to this many tokens.
        cache: directory where the token ids are stored as Arrow files of at most `MANY_ROWS` rows
            and memory-mapped. After an interruption, the files that are whole are not made again.
        options: what is kept of long rows, and the number of classes of a multi-label task.

    Raises:
        DataError: the tokenizer or `max_tokens` do not allow this truncation.
    """
    if not len(dataset):
        return tokenize_texts([], tokenizer=tokenizer, max_tokens=max_tokens, options=options)
    has_pairs = "text_pair" in dataset.column_names
    encoder = _Encoder(tokenizer, max_tokens, options.truncation, has_pairs=has_pairs)
    kind = f"{_VERSION}|{'pairs' if has_pairs else 'texts'}|{options.truncation}"
    identity = f"{kind}|{fingerprint}|{len(dataset)}|{max_tokens}|{_identity(tokenizer)}"
    key = hashlib.sha256(identity.encode()).hexdigest()[:32]

    def encode(batch: dict[str, list[str]]) -> dict[str, list[Any]]:
        return encoder(batch["text"], batch["text_pair"] if has_pairs else None)

    shards = [
        (dataset.select(range(start, min(start + MANY_ROWS, len(dataset)))), f"{key}-{start}")
        for start in range(0, len(dataset), MANY_ROWS)
    ]
    if len(shards) == 1:
        shards = [(dataset, key)]
    with building_in(cache), quiet_libraries():
        tables = [_encoded(part, encode, cache, key=name) for part, name in shards]
    table = tables[0] if len(tables) == 1 else datasets.concatenate_datasets(tables)
    columns = table.with_format("numpy")
    types = TokenStore(table.data.column(_TYPES)) if _TYPES in table.column_names else None
    return TokenizedRows(
        TokenStore(table.data.column(_IDS)),
        lengths=np.asarray(columns["length"][:], dtype=np.int64),
        # From the rows themselves: equal texts may have other labels.
        labels=label_array(dataset, options.classes),
        padding=_padding(tokenizer),
        fingerprint=key,
        token_types=types,
        full_lengths=np.asarray(columns["full_length"][:], dtype=np.int64),
    )


def _encoded(
    dataset: datasets.Dataset,
    encode: Callable[[dict[str, list[str]]], dict[str, list[Any]]],
    cache: Path,
    *,
    key: str,
) -> datasets.Dataset:
    """Return the memory-mapped columns of rows; they are made unless there is a whole file."""
    file = cache / f"tokens-{key}.arrow"
    _remove_if_damaged(file)
    table = dataset.map(
        encode,
        batched=True,
        remove_columns=dataset.column_names,
        cache_file_name=str(file),
        new_fingerprint=key,
    )
    if not _digest_of(file).exists():
        with replacing(_digest_of(file)) as part:
            part.write_text(hash_file(file), encoding="utf-8")
    return table


def _remove_if_damaged(file: Path) -> None:
    """Delete a file of token ids that is not the one that was written, so that it is made again."""
    try:
        is_whole = hash_file(file) == _digest_of(file).read_text(encoding="utf-8")
    except (OSError, ValueError):
        is_whole = False
    if not is_whole:
        file.unlink(missing_ok=True)
        _digest_of(file).unlink(missing_ok=True)


def _digest_of(file: Path) -> Path:
    return file.with_suffix(".sha256")


def tokenize_texts(
    texts: Sequence[str] | Sequence[tuple[str, str]],
    *,
    tokenizer: Any,
    max_tokens: int,
    options: TokenOptions = _DEFAULT,
) -> TokenizedRows:
    """Tokenize texts in memory, into the same ids as `tokenize`; all labels are -1.

    Args:
        texts: any number of texts, or of pairs of texts.
        tokenizer: a tokenizer of transformers.
        max_tokens: longer rows are truncated to this many tokens.
        options: as for `tokenize`.

    Raises:
        DataError: the tokenizer or `max_tokens` do not allow this truncation.
    """
    first = [text if isinstance(text, str) else text[0] for text in texts]
    pairs = [text[1] for text in texts if not isinstance(text, str)]
    encoder = _Encoder(tokenizer, max_tokens, options.truncation, has_pairs=bool(pairs))
    columns: dict[str, list[Any]] = {_IDS: [], "full_length": []}
    if first:
        columns = encoder(first, pairs or None)
    ids = columns[_IDS]
    lengths = np.fromiter(map(len, ids), dtype=np.int64, count=len(ids))
    shape = (len(ids),) if options.classes is None else (len(ids), options.classes)
    return TokenizedRows(
        _store(ids, lengths, np.int32),
        lengths,
        np.full(shape, -1, dtype=np.int64),
        _padding(tokenizer),
        token_types=_store(columns[_TYPES], lengths, np.int8) if _TYPES in columns else None,
        full_lengths=np.asarray(columns["full_length"], dtype=np.int64),
    )


def join_rows(parts: Sequence[TokenizedRows]) -> TokenizedRows:
    """Return the rows of all parts one after another, without labels.

    Args:
        parts: results of `tokenize_texts` for the same base; at least one. Where some have token
            types, those of the others are 0.
    """
    if len(parts) == 1:
        return parts[0]
    lengths = np.concatenate([part.lengths for part in parts])

    def joined(select: Callable[[TokenizedRows], TokenStore | None]) -> list[np.ndarray]:
        return [
            np.zeros(length, dtype=np.int8) if store is None else store[row]
            for part, store in ((part, select(part)) for part in parts)
            for row, length in enumerate(part.lengths.tolist())
        ]

    has_types = any(part.token_types is not None for part in parts)
    types = _store(joined(lambda part: part.token_types), lengths, np.int8) if has_types else None
    return TokenizedRows(
        _store(joined(lambda part: part.store), lengths, np.int32),
        lengths,
        np.full(len(lengths), -1, dtype=np.int64),
        parts[0].padding,
        token_types=types,
    )


class _Encoder:
    """Turns texts or pairs of texts into token ids and, where the tokenizer has them, token types.

    Args:
        tokenizer: a tokenizer of transformers.
        max_tokens: longer rows are truncated to this many tokens.
        truncation: what is kept of a longer row.
        has_pairs: whether pairs of texts are encoded.

    Raises:
        DataError: the tokenizer cannot tell which tokens are of which text, so that only the first
            ones can be kept.
    """

    def __init__(
        self, tokenizer: Any, max_tokens: int, truncation: Truncation, *, has_pairs: bool
    ) -> None:
        self._tokenizer = tokenizer
        self._max_tokens = max_tokens
        self._truncation = truncation
        self._has_types = has_pairs and has_token_types(tokenizer)
        if truncation == "head-tail" and not getattr(tokenizer, "is_fast", False):
            raise DataError(
                'data.truncation: "head-tail" needs a tokenizer of the library tokenizers (a fast '
                'tokenizer), which this base does not have; use "head"'
            )

    def __call__(self, texts: list[str], pairs: list[str] | None) -> dict[str, list[Any]]:
        """Return the columns `input_ids`, `length`, `full_length` and maybe `token_type_ids`."""
        encoded = self._encode(texts, pairs, truncation="longest_first", limit=self._max_tokens)
        columns = {name: encoded[name] for name in self._columns}
        columns["full_length"] = [len(ids) for ids in columns[_IDS]]
        # A row of the full length may have been cut.
        full = [row for row, ids in enumerate(columns[_IDS]) if len(ids) == self._max_tokens]
        if full:
            self._add_full_rows(columns, full, texts, pairs)
        columns["length"] = [len(ids) for ids in columns[_IDS]]
        return columns

    @property
    def _columns(self) -> tuple[str, ...]:
        return (_IDS, _TYPES) if self._has_types else (_IDS,)

    def _add_full_rows(
        self,
        columns: dict[str, list[Any]],
        rows: list[int],
        texts: list[str],
        pairs: list[str] | None,
    ) -> None:
        """Set the full lengths of some rows, and cut these rows if the tokenizer cannot."""
        selected = None if pairs is None else [pairs[row] for row in rows]
        encoded = self._encode([texts[row] for row in rows], selected, truncation=False)
        for position, row in enumerate(rows):
            length = len(encoded[_IDS][position])
            columns["full_length"][row] = length
            if self._truncation == "head-tail" and length > self._max_tokens:
                kept = head_and_tail(encoded.encodings[position], self._max_tokens)
                for name in self._columns:
                    values = encoded[name][position]
                    columns[name][row] = [values[place] for place in kept]

    def _encode(
        self,
        texts: list[str],
        pairs: list[str] | None,
        *,
        truncation: str | bool,
        limit: int | None = None,
    ) -> Any:
        return self._tokenizer(
            texts,
            pairs,
            truncation=truncation,
            max_length=limit,
            return_attention_mask=False,
            return_token_type_ids=self._has_types,
            # Otherwise it warns of rows that are longer than the model allows.
            verbose=False,
        )


def has_token_types(tokenizer: Any) -> bool:
    """Return whether the model reads token types and they tell the texts of a pair apart."""
    if _TYPES not in tokenizer.model_input_names:
        return False
    return any(tokenizer("a", "a", return_token_type_ids=True)[_TYPES])


def _store(
    values: Sequence[Sequence[int] | np.ndarray], lengths: np.ndarray, kind: type[np.integer[Any]]
) -> TokenStore:
    offsets = np.zeros(len(values) + 1, dtype=np.int32)
    np.cumsum(lengths, out=offsets[1:])
    flat = np.fromiter(chain.from_iterable(values), dtype=kind, count=int(offsets[-1]))
    column = pa.chunked_array([pa.ListArray.from_arrays(pa.array(offsets), pa.array(flat))])
    return TokenStore(column)


def label_array(table: datasets.Dataset, classes: int | None) -> np.ndarray:
    """Return int64 labels `[rows]`, or for a multi-label task `[rows, classes]` of 0 and 1.

    Unlabelled rows are -1.

    Args:
        table: has the column `label`.
        classes: number of classes of a multi-label task; None for a single-label task.
    """
    # As an Arrow table, a selection of another table holds the selected rows only.
    arrow: pa.Table = table.select_columns(["label"]).with_format("arrow")[:]
    column = arrow.column("label").combine_chunks()
    if classes is None:
        return np.array(column, dtype=np.int64)
    if not pa.types.is_list(column.type):
        column = pa.array([[label] for label in column.to_pylist()], pa.list_(pa.int64()))
    labels = np.asarray(column.flatten(), dtype=np.int64)
    rows = np.repeat(np.arange(len(column)), np.asarray(column.value_lengths()))
    many_hot = np.zeros((len(column), classes), dtype=np.int64)
    many_hot[rows[labels < 0]] = -1
    many_hot[rows[labels >= 0], labels[labels >= 0]] = 1
    return many_hot


def _padding(tokenizer: Any) -> int:
    return int(tokenizer.pad_token_id) if tokenizer.pad_token_id is not None else 0


def _identity(tokenizer: Any) -> str:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        text = repr(tokenizer)
    else:
        # Every call leaves its truncation and padding in the tokenizer, and the next sets its own.
        backend.no_truncation()
        backend.no_padding()
        text = backend.to_str()
    return hashlib.sha256(text.encode()).hexdigest()
