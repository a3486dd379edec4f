"""Causal language models: training from scratch, fine-tuning, perplexity and generation.

A model is a directory in the hub's format, or a hub id such as gpt2. Only safetensors weights and
architectures of transformers itself are loaded, so no code of a model's author is run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
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

from pennyweight.errors import DataError
from pennyweight.hub import unreachable
from pennyweight.quiet import quiet_libraries

__all__ = ["FineTuning", "LanguageModel", "ModelSize"]

_END = "<|endoftext|>"
_HINT = (
    "name a directory with config.json, model.safetensors and tokenizer.json, or train a model "
    "with: pennyweight data language-model TEXTS --out DIR"
)
_BLOCK_TOKENS = 256
_SCORED_ROWS = 32


@dataclass(frozen=True, slots=True)
class ModelSize:
    """Size of a GPT-2 that is trained from scratch.

    Attributes:
        vocabulary: tokens of the byte-level BPE; at least its 256 bytes and the end of text.
        layers: number of transformer layers.
        width: hidden size; a multiple of `heads`.
        heads: attention heads per layer.
        context: maximum sequence length in tokens.

    Raises:
        DataError: the width is not a multiple of the heads.
    """

    vocabulary: int = 8192
    layers: int = 4
    width: int = 256
    heads: int = 4
    context: int = 256

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise DataError(
                f"language model: width: given {self.width}, but it must be a multiple of the "
                f"number of heads, {self.heads}"
            )


@dataclass(frozen=True, slots=True)
class FineTuning:
    """Options of training a language model.

    Attributes:
        epochs: passes over the texts; may be fractional.
        learning_rate: AdamW's peak learning rate, reached after warm-up and followed by a cosine.
        seed: of the order of the texts and of dropout.
        batch_tokens: tokens per optimizer step.
    """

    epochs: float
    learning_rate: float
    seed: int = 0
    batch_tokens: int = 8192


class LanguageModel:
    """A causal language model and its tokenizer, on the GPU if there is one.

    Args:
        model: a transformers model with a language modelling head.
        tokenizer: its fast tokenizer, with an end-of-text token.
    """

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.model = model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
        self.tokenizer = tokenizer
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token

    @classmethod
    @quiet_libraries()
    def load(cls, name: str | Path) -> LanguageModel:
        """Load a model from a directory in the hub's format, or from the hub.

        Args:
            name: directory or hub id.

        Raises:
            DataError: there is no such model, it needs code of its own or has pickled weights
                only, or it cannot be read.
        """
        _check_available(str(name))
        try:
            # Without trust_remote_code=False transformers asks on the terminal whether to run the
            # repository's code.
            tokenizer = AutoTokenizer.from_pretrained(
                str(name), use_fast=True, trust_remote_code=False
            )
            model = AutoModelForCausalLM.from_pretrained(
                str(name), dtype=torch.float32, trust_remote_code=False, use_safetensors=True
            )
        except Exception as error:  # noqa: BLE001 - hub and tokenizer libraries raise many kinds
            raise DataError(f"language model {name}: {_reason(error)}; {_HINT}") from None
        return cls(model, tokenizer)

    @classmethod
    def untrained(
        cls, texts: Sequence[str], size: ModelSize | None = None, *, seed: int = 0
    ) -> LanguageModel:
        """Create a GPT-2 with random weights, and train a byte-level BPE on the texts.

        Args:
            texts: texts for the tokenizer.
            size: size of the model; None for the default.
            seed: of the weights.
        """
        size = size or ModelSize()
        tokenizer = _train_tokenizer(texts, size.vocabulary)
        config = GPT2Config(
            vocab_size=len(tokenizer),
            n_positions=size.context,
            n_embd=size.width,
            n_layer=size.layers,
            n_head=size.heads,
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
        tuning: FineTuning,
        *,
        on_step: Callable[[int, int, float], None] = lambda _step, _last, _loss: None,
    ) -> None:
        """Train on texts that are concatenated, cut into blocks, and shuffled each epoch.

        Args:
            texts: training texts.
            tuning: training options; 0 epochs change nothing.
            on_step: receives step, last step and loss.

        Raises:
            DataError: the texts are too short to fill one block.
        """
        if tuning.epochs == 0.0:
            return
        length = min(self.context, _BLOCK_TOKENS)
        encoded = self._encode(texts)
        tokens = sum(len(ids) + 1 for ids in encoded)
        last = max(1, math.ceil(tuning.epochs * tokens / tuning.batch_tokens))
        optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=tuning.learning_rate, weight_decay=0.01, fused=True
        )
        scheduler = get_scheduler("cosine", optimizer, max(1, last // 20), last)
        device = next(self.model.parameters()).device
        rows = max(1, tuning.batch_tokens // length)
        batches = self._batches(encoded, length=length, rows=rows, seed=tuning.seed)
        with torch.random.fork_rng():
            torch.manual_seed(tuning.seed)
            self.model.train()
            for step, blocks in enumerate(batches, start=1):
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
        """Maximum sequence length in tokens."""
        config = self.model.config
        return int(getattr(config, "n_positions", None) or config.max_position_embeddings)

    @torch.inference_mode()
    def perplexities(self, texts: Sequence[str]) -> np.ndarray:
        """Return the perplexity of each text after an end-of-text token, float64 `[texts]`.

        Texts beyond the context are cut, and an empty text has perplexity 1.
        """
        end = self.tokenizer.eos_token_id
        encoded = [[end, *ids][: self.context] for ids in self._encode(texts)]
        perplexities = np.ones(len(texts))
        order = np.argsort([len(ids) for ids in encoded], kind="stable")
        device = next(self.model.parameters()).device
        for start in range(0, len(order), _SCORED_ROWS):
            rows = order[start : start + _SCORED_ROWS]
            width = max(2, max(len(encoded[row]) for row in rows))
            ids = torch.full((len(rows), width), end)
            mask = torch.zeros((len(rows), width))
            for position, row in enumerate(rows):
                ids[position, : len(encoded[row])] = torch.tensor(encoded[row])
                mask[position, : len(encoded[row])] = 1.0
            ids, mask = ids.to(device), mask.to(device)
            logits = self.model(input_ids=ids, attention_mask=mask.long()).logits[:, :-1].float()
            losses = nn.functional.cross_entropy(
                logits.transpose(1, 2), ids[:, 1:], reduction="none"
            )
            counts = mask[:, 1:]
            mean = (losses * counts).sum(1) / counts.sum(1).clamp(min=1.0)
            perplexities[rows] = mean.exp().double().cpu().numpy()
        return perplexities

    def _encode(self, texts: Sequence[str]) -> list[list[int]]:
        ids: list[list[int]] = self.tokenizer(list(texts), verbose=False)["input_ids"]
        return ids

    def _batches(
        self, encoded: Sequence[list[int]], *, length: int, rows: int, seed: int
    ) -> Iterator[np.ndarray]:
        """Yield blocks `[rows, length]` without end; the texts are shuffled for every epoch."""
        end, epoch = self.tokenizer.eos_token_id, 0
        while True:
            order = np.random.default_rng((seed, epoch)).permutation(len(encoded))
            tokens = (token for row in order for token in [*encoded[row], end])
            flat = np.fromiter(tokens, dtype=np.int64)
            blocks = flat[: len(flat) // length * length].reshape(-1, length)
            if len(blocks) == 0:
                raise DataError(
                    f"language model: the texts have {len(flat)} tokens in total, but training "
                    f"needs at least {length}; add texts"
                )
            for start in range(0, len(blocks), rows):
                yield blocks[start : start + rows]
            epoch += 1


def _check_available(name: str) -> None:
    """Raise an error at once if a model is not on this machine and the hub does not answer."""
    if Path(name).expanduser().is_dir():
        return
    if name.startswith((".", "/", "~")):
        raise DataError(f"language model {name}: no such directory; {_HINT}")
    try:
        is_cached = isinstance(try_to_load_from_cache(name, "config.json"), str)
    except HFValidationError:
        raise DataError(f"language model {name}: neither a directory nor a hub id") from None
    if not is_cached and (reason := unreachable()) is not None:
        raise DataError(f"language model {name}: the hub cannot be reached ({reason}); {_HINT}")


def _reason(error: Exception) -> str:
    """Return why loading failed, in one line and without advice to weaken the safeguards."""
    text = str(error).strip()
    if "trust_remote_code" in text:
        return "it needs Python code from its own repository, which is never run"
    if "file named model.safetensors" in text:
        return (
            "it has no weights in model.safetensors; pickled weights could run code, and are "
            "not loaded"
        )
    return f"cannot be loaded: {text.splitlines()[0] if text else type(error).__name__}"


def _train_tokenizer(texts: Sequence[str], vocabulary: int) -> PreTrainedTokenizerFast:
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
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token=_END, eos_token=_END, unk_token=_END
    )
