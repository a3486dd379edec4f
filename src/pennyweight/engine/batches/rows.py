"""Tokenized rows in memory-mapped storage, their training targets, and padded tensors of them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import torch

__all__ = [
    "HiddenStates",
    "Targets",
    "TeacherOutputs",
    "TokenStore",
    "TokenizedRows",
    "collate",
    "send",
    "targets",
]


class TokenStore:
    """Token ids of rows in Arrow chunks, read without a copy.

    Args:
        column: list array of token ids, which may be memory-mapped.
        order: int64 `[rows]`, the position of each row in `column`; by default, all in order.
    """

    def __init__(self, column: pa.ChunkedArray, order: np.ndarray | None = None) -> None:
        self._column = column
        self._order = order
        self._chunks = [
            (np.asarray(chunk.offsets), chunk.values.to_numpy(zero_copy_only=False))
            for chunk in column.chunks
        ]
        sizes = [len(chunk) for chunk in column.chunks]
        self._starts = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])

    def __getitem__(self, index: int) -> np.ndarray:
        """Return the token ids of a row, one-dimensional, in the dtype they are stored in."""
        position = int(index if self._order is None else self._order[index])
        chunk = int(np.searchsorted(self._starts, position, side="right")) - 1
        offsets, values = self._chunks[chunk]
        within = position - int(self._starts[chunk])
        ids: np.ndarray = values[offsets[within] : offsets[within + 1]]
        return ids

    def take(self, indices: np.ndarray) -> TokenStore:
        """Return a selection of the rows, in that order, without copying token ids."""
        order = indices if self._order is None else self._order[indices]
        return TokenStore(self._column, order)


@dataclass(frozen=True, slots=True)
class HiddenStates:
    """Hidden states of rows, which a batch can start from instead of token ids.

    Attributes:
        flat: `[tokens, hidden]`, the states of all rows, concatenated.
        starts: int64 `[rows]`, where each row begins in `flat`.
        layers: the encoder layers that are still to run on the states.
    """

    flat: torch.Tensor
    starts: np.ndarray
    layers: range

    def gather(self, indices: np.ndarray, lengths: np.ndarray, total: int) -> torch.Tensor:
        """Return the states of some rows, concatenated and zero-padded, `[total, hidden]`."""
        out = self.flat.new_empty((total, self.flat.shape[1]))
        end = 0
        for start, length in zip(self.starts[indices].tolist(), lengths.tolist(), strict=True):
            out[end : end + length] = self.flat[start : start + length]
            end += length
        out[end:] = 0.0
        return out


@dataclass(frozen=True, slots=True)
class TeacherOutputs:
    """Outputs of one or several teacher models, for a batch on a device or a whole set in memory.

    Attributes:
        log_probabilities: float32 `[rows, classes]`; in a multi-label task, the log-odds of each
            class.
        features: float32 `[rows, hidden]`, the input of the teacher's output layer; None where
            only its probabilities are distilled.
    """

    log_probabilities: torch.Tensor
    features: torch.Tensor | None = None

    def take(self, indices: np.ndarray) -> TeacherOutputs:
        """Return the outputs for a selection of the rows, in that order."""
        selected = torch.from_numpy(indices)
        features = None if self.features is None else self.features[selected]
        return TeacherOutputs(self.log_probabilities[selected], features)

    def to(self, device: torch.device | str) -> TeacherOutputs:
        """Return a copy on a device."""
        features = None if self.features is None else send(self.features, device)
        return TeacherOutputs(send(self.log_probabilities, device), features)


@dataclass(frozen=True, slots=True)
class Targets:
    """Training targets of a batch, on one device.

    Attributes:
        labels: int64 `[rows]`, or for a multi-label task `[rows, classes]`; -1 for unlabelled rows.
        teacher: outputs of the teachers; None without distillation.
        weights: float32 `[rows]`, weight of each row in the loss; None for equal weights.
        smoothing: float32 `[rows]`, label smoothing of each row; None for the objective's own.
        soft_labels: float32 `[rows, classes]`, a distribution over the classes that is taught
            instead of each row's label; None to teach the labels.
    """

    labels: torch.Tensor
    teacher: TeacherOutputs | None = None
    weights: torch.Tensor | None = None
    smoothing: torch.Tensor | None = None
    soft_labels: torch.Tensor | None = None


@dataclass(frozen=True, slots=True)
class TokenizedRows:
    """Tokenized rows with their labels, and what else belongs to each row in training.

    Attributes:
        store: token ids by row.
        lengths: int64 `[rows]`, tokens per row.
        labels: int64 `[rows]`; -1 for unlabelled rows. For a multi-label task `[rows, classes]` of
            0 and 1; -1 everywhere in unlabelled rows.
        padding: token id that fills up batches.
        fingerprint: identifies the texts, the tokenizer and the truncation.
        states: hidden states above the frozen prefix of the encoder; None to start from token ids.
        teacher: outputs of the teachers; None without distillation.
        weights: float32 `[rows]`, weight of each row in the loss; None for equal weights.
        smoothing: float32 `[rows]`, label smoothing of each row; None for the objective's own.
        soft_labels: float32 `[rows, classes]`, a distribution over the classes that is taught
            instead of each row's label; None to teach the labels.
        token_types: token types by row, which tell the texts of a pair apart; None where the model
            reads none or all are 0.
        full_lengths: int64 `[rows]`, tokens per row before truncation; None if unknown.
    """

    store: TokenStore
    lengths: np.ndarray
    labels: np.ndarray
    padding: int
    fingerprint: str = ""
    states: HiddenStates | None = None
    teacher: TeacherOutputs | None = None
    weights: np.ndarray | None = None
    smoothing: np.ndarray | None = None
    soft_labels: np.ndarray | None = None
    token_types: TokenStore | None = None
    full_lengths: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.lengths)

    def ids(self, index: int) -> np.ndarray:
        """Return the token ids of a row."""
        return self.store[index]

    def take(self, indices: np.ndarray) -> TokenizedRows:
        """Return a selection of the rows, in that order."""
        states = self.states
        return replace(
            self,
            store=self.store.take(indices),
            lengths=self.lengths[indices],
            labels=self.labels[indices],
            states=None if states is None else replace(states, starts=states.starts[indices]),
            teacher=None if self.teacher is None else self.teacher.take(indices),
            weights=None if self.weights is None else self.weights[indices],
            smoothing=None if self.smoothing is None else self.smoothing[indices],
            soft_labels=None if self.soft_labels is None else self.soft_labels[indices],
            token_types=None if self.token_types is None else self.token_types.take(indices),
            full_lengths=None if self.full_lengths is None else self.full_lengths[indices],
        )


def send(tensor: torch.Tensor, device: torch.device | str) -> torch.Tensor:
    """Return a copy on a device, without waiting for a GPU."""
    if str(device).startswith("cuda") and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def targets(rows: TokenizedRows, indices: np.ndarray, device: torch.device | str) -> Targets:
    """Return the training targets of some rows on a device."""

    def select(values: np.ndarray | None) -> torch.Tensor | None:
        return None if values is None else send(torch.from_numpy(values[indices]), device)

    return Targets(
        send(torch.from_numpy(rows.labels[indices]), device),
        None if rows.teacher is None else rows.teacher.take(indices).to(device),
        select(rows.weights),
        select(rows.smoothing),
        select(rows.soft_labels),
    )


def collate(rows: TokenizedRows, indices: np.ndarray) -> dict[str, torch.Tensor]:
    """Return a model's inputs, int64 `[rows, longest]`, padded on the right.

    They are `input_ids`, `attention_mask` and, for rows with token types, `token_type_ids`.
    """
    longest = int(rows.lengths[indices].max())

    def padded(store: TokenStore, padding: int) -> torch.Tensor:
        values = np.full((len(indices), longest), padding, dtype=np.int64)
        for position, index in enumerate(indices):
            values[position, : rows.lengths[index]] = store[index]
        return torch.from_numpy(values)

    mask = (np.arange(longest) < rows.lengths[indices][:, None]).astype(np.int64)
    inputs = {
        "input_ids": padded(rows.store, rows.padding),
        "attention_mask": torch.from_numpy(mask),
    }
    if rows.token_types is not None:
        inputs["token_type_ids"] = padded(rows.token_types, 0)
    return inputs
