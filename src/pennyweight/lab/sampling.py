"""Sampling from a language model: texts of requested lengths, in repeatable batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from transformers import StoppingCriteria, StoppingCriteriaList

from pennyweight.lab.language_model import LanguageModel

__all__ = ["LengthMethod", "Sampling", "continue_texts", "draw_lengths", "length_fit"]

LengthMethod = Literal["skewed-normal", "empirical"]
# A text that has used this many tokens per missing word on average is cut off.
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
    generator: np.random.Generator,
) -> np.ndarray:
    """Draw lengths in words for new texts, int64 `[count]`, from 1 to `longest`.

    Args:
        lengths: lengths of the training texts in words, `[texts]`.
        count: number of lengths to draw.
        method: "skewed-normal" fits a skewed normal distribution to the lengths, "empirical"
            draws from the lengths themselves.
        longest: larger draws are clipped to this.
        generator: source of randomness.
    """
    if method == "empirical":
        drawn = generator.choice(lengths, size=count)
    else:
        # Imported here, because every command that reads a recipe imports this module.
        from scipy import stats

        shape, location, scale = stats.skewnorm.fit(lengths)
        drawn = stats.skewnorm.rvs(shape, location, scale, size=count, random_state=generator)
    return np.clip(np.rint(drawn), 1, longest).astype(np.int64)


def length_fit(requested: np.ndarray, generated: np.ndarray) -> dict[str, float]:
    """Return the Kolmogorov-Smirnov statistic of two samples of lengths, and its p-value."""
    from scipy import stats

    # On thousands of texts scipy's exact p-value fails with a warning.
    result = stats.ks_2samp(requested, generated, method="asymp")
    return {"statistic": float(result.statistic), "p": float(result.pvalue)}


class _LongEnough(StoppingCriteria):
    """Stop a row once it has begun the word after its last requested one.

    Args:
        begins_word: bool `[vocabulary]`, tokens that begin a word.
        prompt: length of the prompts in tokens.
        words: int64 `[rows]`, words that each row is to be continued by.
    """

    def __init__(self, begins_word: torch.Tensor, prompt: int, words: torch.Tensor) -> None:
        self._begins_word, self._prompt, self._words = begins_word, prompt, words

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        begun = self._begins_word[input_ids[:, self._prompt :]].sum(dim=1)
        return begun > self._words


def continue_texts(
    model: LanguageModel,
    prompts: Sequence[str],
    words: np.ndarray,
    *,
    sampling: Sampling,
    seed: int,
) -> list[str]:
    """Continue each prompt to the requested number of words; equal seeds give equal texts.

    A text is shorter if the model's context ends before it.

    Args:
        model: the language model.
        prompts: openings of the texts, continued as one batch.
        words: int64 `[prompts]`, lengths of the whole texts, prompts included.
        sampling: how tokens are drawn.
        seed: of the draws.
    """
    tokenizer, device = model.tokenizer, model.device
    tokenizer.padding_side = "left"
    batch = tokenizer(list(prompts), padding=True, return_tensors="pt").to(device)
    prompt_words = np.array([len(prompt.split()) for prompt in prompts])
    missing = np.maximum(words - prompt_words, 0)
    prompt_tokens = batch["input_ids"].shape[1]
    longest = max(1, int(missing.max()) * _TOKENS_PER_WORD)
    stop = _LongEnough(model.begins_word, prompt_tokens, torch.from_numpy(missing).to(device))
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
            max_new_tokens=min(model.context - prompt_tokens, longest),
            pad_token_id=tokenizer.pad_token_id,
            # Only its length ends a text.
            suppress_tokens=model.special_tokens,
            eos_token_id=None,
            stopping_criteria=StoppingCriteriaList([stop]),
        )
    texts = tokenizer.batch_decode(ids, skip_special_tokens=True)
    return [
        " ".join(text.split()[: max(count, 1)]) for text, count in zip(texts, words, strict=True)
    ]
