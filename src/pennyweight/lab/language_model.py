"""Causal language models: trained from nothing, fine-tuned, asked for perplexities and for text.

A model is a directory in the hub's format, or a hub id such as gpt2.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import HFValidationError
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
    get_scheduler,
)
from transformers.utils import logging as transformers_logging

from pennyweight.errors import DataError
from pennyweight.hub import unreachable

__all__ = ["LanguageModel", "device_of_choice"]

_END = "<|endoftext|>"
_WAYS_ON = (
    "name a directory with config.json, model.safetensors and tokenizer.json, or train one with: "
    "pennyweight data language-model TEXTS --out DIR"
)


def _can_be_had(name: str) -> None:
    """Say at once that a model is not here and the hub does not answer."""
    if Path(name).expanduser().is_dir():
        return
    if name.startswith((".", "/", "~")):
        raise DataError(f"language model {name}: no such directory; {_WAYS_ON}")
    try:
        is_cached = isinstance(try_to_load_from_cache(name, "config.json"), str)
    except HFValidationError:
        raise DataError(f"language model {name}: neither a directory nor a hub id") from None
    if not is_cached and (reason := unreachable()) is not None:
        raise DataError(f"language model {name}: the hub cannot be reached ({reason}); {_WAYS_ON}")


def device_of_choice() -> str:
    """A GPU where there is one."""
    return "cuda" if torch.cuda.is_available() else "cpu"


class LanguageModel:
    """A causal language model and its tokenizer.

    Args:
        model: transformers' model.
        tokenizer: its fast tokenizer, with an end-of-text token.
    """

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.model = model.to(device_of_choice()).eval()
        self.tokenizer = tokenizer
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token

    @classmethod
    def load(cls, name: str | Path) -> LanguageModel:
        """Load from a directory in the hub's format, or from the hub.

        Raises:
            DataError: there is none, or it cannot be read.
        """
        transformers_logging.set_verbosity_error()
        transformers_logging.disable_progress_bar()
        _can_be_had(str(name))
        try:
            tokenizer = AutoTokenizer.from_pretrained(str(name), use_fast=True)
            model = AutoModelForCausalLM.from_pretrained(str(name), dtype=torch.float32)
        except Exception as error:  # noqa: BLE001 - hub and tokenizer libraries raise many kinds
            reason = str(error).strip().splitlines()[0]
            raise DataError(
                f"language model {name}: cannot be loaded: {reason}; {_WAYS_ON}"
            ) from None
        return cls(model, tokenizer)

    @classmethod
    def untrained(
        cls,
        texts: Sequence[str],
        *,
        vocabulary: int = 8192,
        layers: int = 4,
        width: int = 256,
        heads: int = 4,
        context: int = 256,
        seed: int = 0,
    ) -> LanguageModel:
        """GPT-2's architecture in a small size, with a byte-level BPE learned from the texts."""
        backend = Tokenizer(models.BPE())
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        backend.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocabulary,
            special_tokens=[_END],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        backend.train_from_iterator(iter(texts), trainer)
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=backend, bos_token=_END, eos_token=_END, unk_token=_END
        )
        config = GPT2Config(
            vocab_size=len(tokenizer),
            n_positions=context,
            n_embd=width,
            n_layer=layers,
            n_head=heads,
            bos_token_id=tokenizer.eos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = GPT2LMHeadModel(config)
        return cls(model, tokenizer)

    def save(self, directory: Path) -> None:
        """Write the model in the hub's format."""
        self.model.save_pretrained(str(directory))
        self.tokenizer.save_pretrained(str(directory))

    def fit(
        self,
        texts: Sequence[str],
        *,
        epochs: float,
        learning_rate: float,
        batch_tokens: int = 8192,
        seed: int = 0,
        on_step: Callable[[int, int, float], None] = lambda _step, _last, _loss: None,
    ) -> None:
        """Train on texts, end to end in blocks of the model's context, shuffled each epoch.

        Args:
            texts: to learn.
            epochs: passes over them, or a part of one.
            learning_rate: AdamW's at its peak; it warms up and decays by a cosine.
            batch_tokens: tokens per step.
            seed: of order and dropout.
            on_step: gets step, last step and loss.

        Raises:
            DataError: the texts are too short to fill one block.
        """
        if epochs == 0.0:
            return
        length = min(self.context, 256)
        encoded = self._encoded(texts)
        tokens = sum(len(ids) + 1 for ids in encoded)
        last = max(1, math.ceil(epochs * tokens / batch_tokens))
        optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=learning_rate, weight_decay=0.01, fused=True
        )
        scheduler = get_scheduler("cosine", optimizer, max(1, last // 20), last)
        device = next(self.model.parameters()).device
        per_step = max(1, batch_tokens // length)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.model.train()
            for step, blocks in enumerate(self._batches(encoded, length, per_step, seed), start=1):
                ids = torch.from_numpy(blocks).to(device)
                with torch.autocast(device.type, dtype=torch.bfloat16):
                    loss = self.model(input_ids=ids, labels=ids).loss
                loss.backward()
                nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
                scheduler.step()
                on_step(step, last, float(loss.detach()))
                if step == last:
                    break
        self.model.eval()

    @property
    def context(self) -> int:
        """The most tokens that go through the model at once."""
        config = self.model.config
        return int(getattr(config, "n_positions", None) or config.max_position_embeddings)

    def _encoded(self, texts: Sequence[str]) -> list[list[int]]:
        ids: list[list[int]] = self.tokenizer(list(texts), verbose=False)["input_ids"]
        return ids

    def _batches(
        self, encoded: Sequence[list[int]], length: int, rows: int, seed: int
    ) -> Iterator[np.ndarray]:
        """Blocks `[rows, length]`, without end; texts are shuffled anew for every pass."""
        end, epoch = self.tokenizer.eos_token_id, 0
        while True:
            order = np.random.default_rng((seed, epoch)).permutation(len(encoded))
            flat = np.fromiter((t for at in order for t in [*encoded[at], end]), dtype=np.int64)
            blocks = flat[: len(flat) // length * length].reshape(-1, length)
            if len(blocks) == 0:
                raise DataError(
                    f"language model: the texts have {len(flat)} tokens together; at least "
                    f"{length} are needed"
                )
            for start in range(0, len(blocks), rows):
                yield blocks[start : start + rows]
            epoch += 1

    @torch.inference_mode()
    def perplexities(self, texts: Sequence[str], *, batch_rows: int = 32) -> np.ndarray:
        """Of each text, given an end of text before it; float64 `[texts]`."""
        end, most = self.tokenizer.eos_token_id, self.context
        encoded = [[end, *ids][:most] or [end] for ids in self._encoded(texts)]
        found = np.ones(len(texts))
        order = np.argsort([len(ids) for ids in encoded], kind="stable")
        device = next(self.model.parameters()).device
        for start in range(0, len(order), batch_rows):
            rows = order[start : start + batch_rows]
            width = max(2, max(len(encoded[row]) for row in rows))
            ids = torch.full((len(rows), width), end)
            real = torch.zeros((len(rows), width))
            for at, row in enumerate(rows):
                ids[at, : len(encoded[row])] = torch.tensor(encoded[row])
                real[at, : len(encoded[row])] = 1.0
            ids, real = ids.to(device), real.to(device)
            logits = self.model(input_ids=ids, attention_mask=real.long()).logits[:, :-1].float()
            losses = nn.functional.cross_entropy(
                logits.transpose(1, 2), ids[:, 1:], reduction="none"
            )
            counted = real[:, 1:]
            mean = (losses * counted).sum(1) / counted.sum(1).clamp(min=1.0)
            found[rows] = mean.exp().double().cpu().numpy()
        return found
