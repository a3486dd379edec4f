"""Train a causal language model on packed blocks of tokens, all its weights or LoRA alone."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import peft
import torch
from torch import nn
from transformers import get_scheduler
from transformers.pytorch_utils import Conv1D

from pennyweight.errors import DataError, first_line
from pennyweight.files import replacing
from pennyweight.lab.progress import Pace
from pennyweight.wording import duration

__all__ = [
    "FineTuning",
    "FineTuningStep",
    "Lora",
    "add_lora",
    "ignore_peft_warning",
    "rows_at_once",
    "sizes_of",
    "train_on_blocks",
]

_BLOCK_TOKENS = 256
# The most logits that are in memory at once: 256 MB in float32.
_MOST_LOGITS = 2**26
_CHECKPOINT_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Lora:
    """LoRA on all linear layers except the output layer; see `peft.LoraConfig`."""

    rank: int
    alpha: float


@dataclass(frozen=True, slots=True)
class FineTuning:
    """Options of training a language model.

    Attributes:
        epochs: passes over the texts; may be fractional.
        learning_rate: AdamW's peak learning rate, reached after warm-up and followed by a cosine.
        seed: of the order of the texts, of dropout, and of LoRA's first values.
        batch_tokens: tokens per optimizer step.
        lora: the adapters to train; None trains all weights.
        precision: of products; LoRA's frozen weights are held in it as well.
    """

    epochs: float
    learning_rate: float
    seed: int = 0
    batch_tokens: int = 8192
    lora: Lora | None = None
    precision: Literal["fp32", "bf16"] = "bf16"


@dataclass(frozen=True, slots=True)
class FineTuningStep:
    """A finished optimizer step.

    Attributes:
        step: its number, from 1.
        last: the number of the last one.
        loss: mean loss of its tokens.
        tokens_per_second: since training began or was resumed.
        seconds_left: until the last step, at this speed.
    """

    step: int
    last: int
    loss: float
    tokens_per_second: float
    seconds_left: float

    def describe(self) -> str:
        """Return the step as a line of progress."""
        left = "" if self.step == self.last else f", {duration(self.seconds_left)} left"
        return (
            f"language model: step {self.step} of {self.last}, loss {self.loss:.3f}, "
            f"{self.tokens_per_second:,.0f} tokens/s{left}"
        )


def add_lora(model: Any, lora: Lora, *, seed: int) -> Any:
    """Return a model with new LoRA matrices in float32; its own weights are frozen.

    LoRA is from Hu et al. 2021, arXiv:2106.09685.

    Args:
        model: a transformers model with a language modelling head.
        lora: rank and alpha.
        seed: of the matrices' first values.
    """
    config = peft.LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
        # GPT-2's layers hold their weights transposed.
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in model.modules()),
    )
    with torch.random.fork_rng(), ignore_peft_warning():
        torch.manual_seed(seed)
        return peft.get_peft_model(model, config)


def train_on_blocks(
    model: Any,
    encoded: Sequence[Sequence[int]],
    tuning: FineTuning,
    *,
    end: int,
    checkpoint: Path | None,
    on_step: Callable[[FineTuningStep], None],
) -> None:
    """Train on texts that are joined by an end token, cut into blocks, and shuffled each epoch.

    There is no padding. A block is as long as the model's context, at most 256 tokens.

    Args:
        model: trained in place.
        encoded: token ids of each text.
        tuning: training options.
        end: the end-of-text token.
        checkpoint: file of the trained weights and the optimizer's state, written every minute;
            if it exists, training continues from it, with the same result. None for no file.
        on_step: called after each step.

    Raises:
        DataError: the texts are too short to fill one block, or the checkpoint cannot be read.
    """
    context, vocabulary = sizes_of(model.config)
    length = min(context, _BLOCK_TOKENS)
    blocks_per_epoch = sum(len(ids) + 1 for ids in encoded) // length
    # Few texts make smaller batches, and not fewer steps.
    rows = max(1, min(tuning.batch_tokens // length, blocks_per_epoch))
    last = max(1, math.ceil(tuning.epochs * blocks_per_epoch / rows))
    parameters = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(
        parameters, lr=tuning.learning_rate, weight_decay=0.01, fused=True
    )
    scheduler = get_scheduler("cosine", optimizer, max(1, last // 20), last)
    done = 0
    if checkpoint is not None and checkpoint.is_file():
        done = _load(checkpoint, parameters, optimizer, scheduler)
    at_once = min(rows, rows_at_once(length, vocabulary))
    batches = _batches(encoded, end=end, length=length, rows=rows, seed=tuning.seed)
    pace, saved, trained = Pace(last, done=done), time.perf_counter(), 0
    model.train()
    for step, blocks in islice(enumerate(batches, start=1), done, last):
        loss = _accumulate(model, blocks, tuning, step=step, at_once=at_once)
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        scheduler.step()
        trained += blocks.size
        speed = pace.rate(step) * trained / (step - done)
        on_step(FineTuningStep(step, last, loss, speed, pace.seconds_left(step)))
        if checkpoint is not None and time.perf_counter() - saved >= _CHECKPOINT_SECONDS:
            _save(checkpoint, step, parameters, optimizer, scheduler)
            saved = time.perf_counter()
    model.eval()


def _accumulate(
    model: Any, blocks: np.ndarray, tuning: FineTuning, *, step: int, at_once: int
) -> float:
    """Add up the gradients of blocks `[rows, tokens]`, some at a time; return their mean loss."""
    device = next(model.parameters()).device
    total = 0.0
    # The randomness of a step does not depend on the steps before it, so that training resumes.
    seed = int(np.random.SeedSequence((tuning.seed, step)).generate_state(1)[0])
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for start in range(0, len(blocks), at_once):
            ids = torch.from_numpy(blocks[start : start + at_once]).to(device)
            with torch.autocast(
                device.type, dtype=torch.bfloat16, enabled=tuning.precision == "bf16"
            ):
                loss = model(input_ids=ids, labels=ids, use_cache=False).loss * (
                    len(ids) / len(blocks)
                )
            loss.backward()
            total += float(loss.detach())
    return total


def _batches(
    encoded: Sequence[Sequence[int]], *, end: int, length: int, rows: int, seed: int
) -> Iterator[np.ndarray]:
    """Yield blocks `[rows, length]` without end; the texts are shuffled for every epoch."""
    epoch, rest = 0, np.empty((0, length), dtype=np.int64)
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
        # A batch may end in the next epoch, so that all are equally large.
        blocks = np.concatenate([rest, blocks])
        whole = len(blocks) // rows * rows
        for start in range(0, whole, rows):
            yield blocks[start : start + rows]
        rest, epoch = blocks[whole:], epoch + 1


def rows_at_once(tokens: int, vocabulary: int) -> int:
    """Return how many rows of so many tokens may go through a model at once, at least 1.

    With large vocabularies, the logits take more memory than the model.
    """
    return max(1, _MOST_LOGITS // (tokens * vocabulary))


@contextmanager
def ignore_peft_warning() -> Iterator[None]:
    """Silence PEFT's warning about an attribute of transformers that it asks for by an old name."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing")
        yield


def sizes_of(config: Any) -> tuple[int, int]:
    """Return the maximum sequence length and the vocabulary of a causal language model."""
    text = config.get_text_config(decoder=True)
    length = getattr(text, "n_positions", None) or text.max_position_embeddings
    return int(length), int(text.vocab_size)


def _save(
    checkpoint: Path,
    step: int,
    parameters: Sequence[torch.Tensor],
    optimizer: torch.optim.Optimizer,
    scheduler: Any,
) -> None:
    state = {
        "step": step,
        "weights": [weight.detach() for weight in parameters],
        "optimizer": optimizer.state_dict(),
        "scheduler": scheduler.state_dict(),
    }
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    with replacing(checkpoint) as part:
        torch.save(state, part)


def _load(
    checkpoint: Path,
    parameters: Sequence[torch.Tensor],
    optimizer: torch.optim.Optimizer,
    scheduler: Any,
) -> int:
    """Restore what `_save` wrote, and return the number of finished steps."""
    try:
        state = torch.load(checkpoint, map_location="cpu", weights_only=True)
        with torch.no_grad():
            for weight, saved in zip(parameters, state["weights"], strict=True):
                weight.copy_(saved)
        optimizer.load_state_dict(state["optimizer"])
        scheduler.load_state_dict(state["scheduler"])
        return int(state["step"])
    except Exception as error:  # noqa: BLE001 - torch raises many kinds for a broken file
        raise DataError(
            f"{checkpoint}: the checkpoint of the language model cannot be read: "
            f"{first_line(error)}; delete the file to train from the beginning"
        ) from None
