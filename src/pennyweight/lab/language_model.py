"""Causal language models: training from scratch, fine-tuning, perplexity and generation.

A model is a directory in the hub's format, or a hub id such as gpt2. Only safetensors weights and
architectures of transformers itself are loaded, so no code of a model's author is run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import peft
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
)

from pennyweight.errors import DataError, first_line
from pennyweight.hub import unreachable
from pennyweight.lab.fine_tuning import (
    FineTuning,
    FineTuningStep,
    add_lora,
    ignore_peft_warning,
    rows_at_once,
    sizes_of,
    train_on_blocks,
)
from pennyweight.quiet import quiet_libraries

__all__ = ["LanguageModel", "ModelSize"]

_END = "<|endoftext|>"
_HINT = (
    "name a directory with config.json, model.safetensors and tokenizer.json, or train a model "
    "with: pennyweight data language-model TEXTS --out DIR"
)
_SCORED_ROWS = 32
_SMALLEST_VOCABULARY = 257


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
        DataError: a size is below 1, the vocabulary is too small, or the width is not a multiple of
            the heads.
    """

    vocabulary: int = 8192
    layers: int = 4
    width: int = 256
    heads: int = 4
    context: int = 256

    def __post_init__(self) -> None:
        for name in ("layers", "width", "heads", "context"):
            if getattr(self, name) < 1:
                raise DataError(
                    f"language model: {name}: given {getattr(self, name)}; give 1 or more"
                )
        if self.vocabulary < _SMALLEST_VOCABULARY:
            raise DataError(
                f"language model: vocabulary: given {self.vocabulary}; give "
                f"{_SMALLEST_VOCABULARY} or more, for every byte and the end of a text"
            )
        if self.width % self.heads:
            raise DataError(
                f"language model: width: given {self.width}, but it must be a multiple of the "
                f"number of heads, {self.heads}"
            )


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
    def load(
        cls, name: str | Path, *, adapter: Path | None = None, dtype: torch.dtype = torch.float32
    ) -> LanguageModel:
        """Load a model from a directory in the hub's format, or from the hub.

        Args:
            name: directory or hub id.
            adapter: directory of a LoRA adapter that `save` wrote; None for none.
            dtype: of the weights; an adapter's are float32.

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
                str(name), dtype=dtype, trust_remote_code=False, use_safetensors=True
            )
            if adapter is not None:
                with ignore_peft_warning():
                    model = peft.PeftModel.from_pretrained(model, str(adapter))
        except Exception as error:  # noqa: BLE001 - hub and tokenizer libraries raise many kinds
            raise DataError(f"language model {name}: {_reason(error)}; {_HINT}") from None
        if tokenizer.eos_token_id is None:
            raise DataError(f"language model {name}: its tokenizer has no end-of-text token")
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
        """Write the model in the hub's format; after training LoRA, the adapter alone."""
        if isinstance(self.model, peft.PeftModel):
            self.model.save_pretrained(str(directory), save_embedding_layers=False)
            return
        self.model.save_pretrained(str(directory))
        self.tokenizer.save_pretrained(str(directory))

    def merge_adapter(self) -> None:
        """Add the LoRA matrices to the weights, in the weights' precision."""
        self.model = self.model.merge_and_unload()

    def fit(
        self,
        texts: Sequence[str],
        tuning: FineTuning,
        *,
        checkpoint: Path | None = None,
        on_step: Callable[[FineTuningStep], None] = lambda _step: None,
    ) -> None:
        """Train on texts; see `train_on_blocks`. With LoRA, the adapter is added first.

        Args:
            texts: training texts.
            tuning: training options; 0 epochs change nothing.
            checkpoint: file that training resumes from; None for none.
            on_step: called after each optimizer step.

        Raises:
            DataError: the texts are too short to fill one block, or the checkpoint cannot be read.
        """
        if tuning.epochs == 0.0:
            return
        if tuning.lora is not None:
            self.model = add_lora(self.model, tuning.lora, seed=tuning.seed)
        train_on_blocks(
            self.model,
            self._encode(texts),
            tuning,
            end=self.tokenizer.eos_token_id,
            checkpoint=checkpoint,
            on_step=on_step,
        )

    @property
    def context(self) -> int:
        """Maximum sequence length in tokens."""
        return sizes_of(self.model.config)[0]

    @property
    def vocabulary(self) -> int:
        """Number of tokens that the output layer knows."""
        return sizes_of(self.model.config)[1]

    @cached_property
    def begins_word(self) -> torch.Tensor:
        """Which tokens begin a word, bool `[vocabulary]`: those that start with white space."""
        names = self.tokenizer.convert_ids_to_tokens(list(range(len(self.tokenizer))))
        texts = self.tokenizer.batch_decode([[index] for index in range(len(names))])
        begins = torch.zeros(self.vocabulary, dtype=torch.bool)
        # Some tokenizers of the SentencePiece kind decode a text without its first space.
        begins[: len(names)] = torch.tensor(
            [
                text[:1].isspace() or name.startswith("\u2581")
                for name, text in zip(names, texts, strict=True)
            ]
        )
        return begins.to(self.device)

    @property
    def special_tokens(self) -> list[int]:
        """Ids of the tokens that are not text, and of those that end an answer."""
        ends = self.model.generation_config.eos_token_id
        ends = ends if isinstance(ends, list) else [ends]
        return sorted({*self.tokenizer.all_special_ids, *(end for end in ends if end is not None)})

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return next(self.model.parameters()).device

    @torch.inference_mode()
    def perplexities(self, texts: Sequence[str]) -> np.ndarray:
        """Return the perplexity of each text after an end-of-text token, float64 `[texts]`.

        Texts beyond the context are cut, and an empty text has perplexity 1.
        """
        end = self.tokenizer.eos_token_id
        # A tokenizer that marks the beginning of a text needs no end of the one before.
        before = [] if self._encode([""])[0] else [end]
        encoded = [[*before, *ids][: self.context] for ids in self._encode(texts)]
        perplexities = np.ones(len(texts))
        order = np.argsort([len(ids) for ids in encoded], kind="stable")
        device = self.device
        longest = max(map(len, encoded), default=1)
        at_once = min(_SCORED_ROWS, rows_at_once(longest, self.vocabulary))
        for start in range(0, len(order), at_once):
            rows = order[start : start + at_once]
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
    return f"cannot be loaded: {first_line(error)}"


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
