"""Domain-adaptive generation: a language model that has read the target writes labelled texts.

It is fine-tuned on unlabelled target text and goes on from openings of each class; the label is
the opening's class. Gates then take out what is unlike its class, copied, or said before. After
the report of Leon, Manoj and Niroula (NYU Deep Learning competition, Spring 2025), who had no
gates.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pennyweight.errors import DataError
from pennyweight.lab.language_model import LanguageModel
from pennyweight.lab.sampling import LengthMethod, Sampling, continue_texts, draw_lengths

__all__ = ["Generation", "adapted_model", "load_prompts", "write_samples"]


@dataclass(frozen=True, slots=True)
class Generation:
    """What is generated, and how.

    Attributes:
        per_class: texts of each class, before the gates.
        lengths: how numbers of words are drawn.
        longest: the most words of a text.
        sampling: how tokens are drawn.
        batch_rows: texts written at once; part of what decides the texts.
        seed: of prompts, lengths and tokens.
    """

    per_class: int
    lengths: LengthMethod
    longest: int
    sampling: Sampling
    batch_rows: int
    seed: int


def load_prompts(name: str, labels: Sequence[str]) -> dict[str, list[str]]:
    """Openings by class, from a TOML file or the shipped "news".

    Raises:
        DataError: it cannot be read, or lacks openings for a class.
    """
    shipped = resources.files("pennyweight.lab") / "prompts" / f"{name}.toml"
    try:
        text = (
            shipped.read_text(encoding="utf-8")
            if "/" not in name and shipped.is_file()
            else Path(name).read_text(encoding="utf-8")
        )
        table = tomllib.loads(text)
    except (OSError, ValueError) as error:
        raise DataError(f"generate.prompts: {name}: cannot be read: {error}") from None
    for label in labels:
        given = table.get(label)
        if not isinstance(given, list) or not given or not all(isinstance(p, str) for p in given):
            raise DataError(
                f'generate.prompts: {name}: no list of openings for the class "{label}"; write '
                f'"{label}" = ["...", "..."]'
            )
    return {label: table[label] for label in labels}


def adapted_model(
    name: str,
    texts: Sequence[str],
    *,
    epochs: float,
    learning_rate: float,
    seed: int,
    cache: Path,
    say: Callable[[str], None],
) -> tuple[LanguageModel, str]:
    """The model, fine-tuned on texts; from the cache where this has been done before.

    Returns:
        The model, and a fingerprint of everything that made it.
    """
    told = [_identity(name), epochs, learning_rate, seed, _fingerprint(texts)]
    key = hashlib.sha256(json.dumps(told).encode()).hexdigest()[:32]
    folder = cache / key
    if (folder / "done").is_file():
        return LanguageModel.load(folder), key
    model = LanguageModel.load(name)
    say(f"fine-tuning {name} on {len(texts):,} texts of the target, {epochs:g} epochs")

    def show(step: int, last: int, loss: float) -> None:
        if step == last or step % max(1, last // 5) == 0:
            say(f"language model: step {step} of {last}, loss {loss:.3f}")

    model.fit(texts, epochs=epochs, learning_rate=learning_rate, seed=seed, on_step=show)
    model.save(folder)
    (folder / "done").touch()
    return model, key


def write_samples(
    model: LanguageModel,
    prompts: Mapping[str, Sequence[str]],
    training_lengths: np.ndarray,
    generation: Generation,
    *,
    parts: Path,
    say: Callable[[str], None],
) -> pa.Table:
    """All samples before the gates, with their provenance.

    Batches that stand in `parts` are read, so an interrupted run goes on where it stopped and ends
    with the same rows.

    Returns:
        Columns text, label, prompt, words (asked for), seed (of the batch), and the parameters.
    """
    parts.mkdir(parents=True, exist_ok=True)
    classes, chosen, words = _assignments(prompts, training_lengths, generation)
    # Texts of one length end together.
    order = np.argsort(words, kind="stable")
    size = generation.batch_rows
    rows: list[dict[str, Any]] = []
    for number, start in enumerate(range(0, len(order), size)):
        part, at = parts / f"{number:05d}.jsonl", order[start : start + size]
        if not part.is_file():
            seed = int(np.random.SeedSequence((generation.seed, number)).generate_state(1)[0])
            begun = [chosen[i] for i in at]
            sampling = generation.sampling
            texts = continue_texts(model, begun, words[at], sampling=sampling, seed=seed)
            columns = zip(texts, classes[at].tolist(), begun, words[at].tolist(), strict=True)
            names = ("text", "label", "prompt", "words")
            _write(part, [dict(zip(names, row, strict=True), seed=seed) for row in columns])
            say(f"generated {min(start + size, len(order)):,} of {len(order):,} texts")
        rows += [json.loads(line) for line in part.read_text(encoding="utf-8").splitlines()]
    table = pa.Table.from_pylist(rows)
    for key, value in asdict(generation.sampling).items():
        table = table.append_column(key, pa.array([value] * len(rows)))
    return table


def _assignments(
    prompts: Mapping[str, Sequence[str]], training_lengths: np.ndarray, generation: Generation
) -> tuple[np.ndarray, list[str], np.ndarray]:
    """Class, opening and number of words of every text to be written."""
    labels = list(prompts)
    draw = np.random.default_rng((generation.seed, 0))
    classes = np.repeat(np.arange(len(labels)), generation.per_class)
    chosen = [prompts[labels[c]][int(draw.integers(len(prompts[labels[c]])))] for c in classes]
    words = draw_lengths(
        training_lengths,
        len(classes),
        method=generation.lengths,
        longest=generation.longest,
        draw=draw,
    )
    # No text is shorter than its opening with one word more.
    return classes, chosen, np.maximum(words, [len(prompt.split()) + 1 for prompt in chosen])


def _write(part: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    new = part.with_suffix(".new")
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    new.write_text(text, encoding="utf-8", newline="\n")
    new.replace(part)


def _identity(name: str) -> list[object]:
    """What tells one model from another: of a directory its files, else the hub id."""
    folder = Path(name)
    if not folder.is_dir():
        return [name]
    files = sorted(file for file in folder.iterdir() if file.is_file())
    return [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in files]


def _fingerprint(texts: Sequence[str]) -> str:
    digest = hashlib.sha256()
    for text in texts:
        digest.update(len(text).to_bytes(8, "little") + text.encode())
    return digest.hexdigest()
