"""The peers: transformers' `Trainer` with `peft`, and `pipeline`, as they are commonly used."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from typing import Any

import datasets
import numpy as np
import torch
from transformers import Trainer, TrainerCallback, TrainingArguments, pipeline

from pennyweight.engine.batches.rows import TokenizedRows, collate
from pennyweight.engine.device import DTYPES, choose_compute
from workload import LABELS, Workload


def train(
    workload: Workload,
    tokens: TokenizedRows,
    *,
    batch: int,
    tuned: bool,
    attention: str,
    on_step: Callable[[Any, int, int], bool],
    learning_rate: float = 5e-4,
) -> None:
    """Train until `on_step(model, rows, tokens)` returns true.

    Without `tuned`: fp32, and dynamic padding of random batches. With it: bf16 autocast where bf16
    is fast, and batches grouped by length.
    """
    ids = [tokens.ids(row).tolist() for row in range(len(tokens))]
    table = datasets.Dataset.from_dict(
        {"input_ids": ids, "labels": tokens.labels.tolist(), "length": tokens.lengths.tolist()}
    )
    counted: list[int] = []

    def collator(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        width = max(len(row["input_ids"]) for row in rows)
        counted.append(sum(len(row["input_ids"]) for row in rows))
        padded = [
            row["input_ids"] + [tokens.padding] * (width - len(row["input_ids"])) for row in rows
        ]
        mask = [[1] * len(row["input_ids"]) + [0] * (width - len(row["input_ids"])) for row in rows]
        return {
            "input_ids": torch.tensor(padded),
            "attention_mask": torch.tensor(mask),
            "labels": torch.tensor([row["labels"] for row in rows]),
        }

    class Watch(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            control.should_training_stop = on_step(model, batch, counted[state.global_step - 1])

    model = workload.adapted(attention=attention)
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder,
            per_device_train_batch_size=batch,
            max_steps=100_000,
            learning_rate=learning_rate,
            lr_scheduler_type="constant",
            bf16=tuned and precision() == "bf16",
            use_cpu=not torch.cuda.is_available(),
            train_sampling_strategy="group_by_length" if tuned else "random",
            report_to=[],
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
        )
        Trainer(
            model, arguments, train_dataset=table, data_collator=collator, callbacks=[Watch()]
        ).train()


def precision() -> str:
    """Return the precision in which an expert would train on this machine."""
    return choose_compute(precision="auto", attention="auto").precision


@torch.inference_mode()
def accuracy(model: Any, tokens: TokenizedRows) -> float:
    """Return the accuracy of a model on padded batches of rows sorted by length."""
    was_training = model.training
    model.eval()
    hits, dtype = 0, DTYPES[precision()]
    device = next(model.parameters()).device
    order = np.argsort(tokens.lengths, kind="stable")
    for start in range(0, len(order), 64):
        rows = order[start : start + 64]
        inputs = {name: value.to(device) for name, value in collate(tokens, rows).items()}
        with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
            predicted = model(**inputs).logits.argmax(-1)
        hits += int((predicted.cpu().numpy() == tokens.labels[rows]).sum())
    model.train(was_training)
    return hits / len(tokens)


def classify(
    workload: Workload, texts: list[str], tokenizer: Any, *, seconds: float, dtype: torch.dtype
) -> tuple[int, float]:
    """Return the rows and seconds of `pipeline("text-classification", batch_size=32)`."""
    model = workload.base(attention="sdpa").to(dtype).eval()
    model.config.id2label = dict(enumerate(LABELS))
    run = pipeline(
        "text-classification",
        model=model,
        tokenizer=tokenizer,
        batch_size=32,
        device=0 if torch.cuda.is_available() else -1,
    )
    run(texts[:64], truncation=True)
    done, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds and done < len(texts):
        run(texts[done : done + 256], truncation=True)
        done += len(texts[done : done + 256])
    return done, time.perf_counter() - began
