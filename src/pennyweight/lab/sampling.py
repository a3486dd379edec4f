"""Text from a language model, of lengths that are asked for, batch by batch and repeatable."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from scipy import stats
from transformers import StoppingCriteria, StoppingCriteriaList

from pennyweight.lab.language_model import LanguageModel

__all__ = ["LengthMethod", "Sampling", "continue_texts", "draw_lengths", "length_fit"]

LengthMethod = Literal["skewed-normal", "empirical"]
# Tokens a word may take before a row is given up as one long word.
_TOKENS_PER_WORD = 8


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is drawn; see transformers' `GenerationConfig`."""

    temperature: float
    top_k: int
    top_p: float
    repetition_penalty: float


def draw_lengths(
    lengths: np.ndarray,
    count: int,
    *,
    method: LengthMethod,
    longest: int,
    draw: np.random.Generator,
) -> np.ndarray:
    """Numbers of words for texts to be written, int64 `[count]`, from 1 to `longest`.

    Args:
        lengths: words of the training texts.
        count: how many to draw.
        method: from a skewed normal fitted to the lengths, or from the lengths themselves.
        longest: where they are clipped.
        draw: where chance comes from.
    """
    if method == "empirical":
        drawn = draw.choice(lengths, size=count)
    else:
        shape, place, scale = stats.skewnorm.fit(lengths)
        drawn = stats.skewnorm.rvs(shape, place, scale, size=count, random_state=draw)
    return np.clip(np.rint(drawn), 1, longest).astype(np.int64)


def length_fit(asked: np.ndarray, made: np.ndarray) -> dict[str, float]:
    """Kolmogorov-Smirnov's distance between asked and made lengths, and its p-value."""
    # The exact p-value fails on thousands of texts, and scipy says so to whoever runs this.
    found = stats.ks_2samp(asked, made, method="asymp")
    return {"statistic": float(found.statistic), "p": float(found.pvalue)}


class _LongEnough(StoppingCriteria):
    """Ends a row once the word after the last one asked for has begun."""

    def __init__(self, begins_word: torch.Tensor, prompt: int, words: torch.Tensor) -> None:
        self._begins, self._prompt, self._words = begins_word, prompt, words

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        written = self._begins[input_ids[:, self._prompt :]].sum(dim=1)
        return written > self._words


def continue_texts(
    model: LanguageModel,
    prompts: Sequence[str],
    words: np.ndarray,
    *,
    sampling: Sampling,
    seed: int,
) -> list[str]:
    """Each prompt, continued until it has so many words; always the same for the same seed.

    A text may come out shorter where the model runs into its context's end.

    Args:
        model: that writes.
        prompts: how the texts begin.
        words: int64 `[prompts]`, of whole texts with their prompts.
        sampling: how tokens are drawn.
        seed: of the draws.
    """
    tokenizer, device = model.tokenizer, next(model.model.parameters()).device
    tokenizer.padding_side = "left"
    batch = tokenizer(list(prompts), padding=True, return_tensors="pt").to(device)
    prompt_words = np.array([len(prompt.split()) for prompt in prompts])
    missing = np.maximum(words - prompt_words, 0)
    start = batch["input_ids"].shape[1]
    room = model.context - start
    most = int(min(room, max(1, int(missing.max()) * _TOKENS_PER_WORD)))
    stop = _LongEnough(_begins_word(model), start, torch.from_numpy(missing).to(device))
    with torch.random.fork_rng(), torch.inference_mode():
        torch.manual_seed(seed)
        ids = model.model.generate(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            do_sample=True,
            temperature=sampling.temperature,
            top_k=sampling.top_k,
            top_p=sampling.top_p,
            repetition_penalty=sampling.repetition_penalty,
            max_new_tokens=most,
            pad_token_id=tokenizer.pad_token_id,
            # A text ends where its length does.
            suppress_tokens=[tokenizer.eos_token_id],
            eos_token_id=None,
            stopping_criteria=StoppingCriteriaList([stop]),
        )
    whole = tokenizer.batch_decode(ids, skip_special_tokens=True)
    return [
        " ".join(text.split()[: max(count, 1)]) for text, count in zip(whole, words, strict=True)
    ]


def _begins_word(model: LanguageModel) -> torch.Tensor:
    """Which tokens begin a new word, bool `[vocabulary]`: those with white space in front."""
    size = model.model.config.vocab_size
    texts = model.tokenizer.batch_decode([[index] for index in range(len(model.tokenizer))])
    begins = torch.zeros(size, dtype=torch.bool)
    begins[: len(texts)] = torch.tensor([text[:1].isspace() for text in texts])
    return begins.to(next(model.model.parameters()).device)
