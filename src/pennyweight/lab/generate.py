"""Domain-adaptive generation of labelled texts with a language model.

The model is fine-tuned on unlabelled target text and then continues openings that are typical of
each class; the label of a text is the class of its opening. The gates in `lab.gates` decide which
texts are used. The method follows the report of Leon, Manoj and Niroula (NYU Deep Learning
competition, spring 2025), which used no gates.
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
from pennyweight.files import recover_directory, replace_directory, replacing
from pennyweight.lab.language_model import FineTuning, LanguageModel
from pennyweight.lab.sampling import LengthMethod, Sampling, continue_texts, draw_lengths

__all__ = ["Generation", "adapted_model", "load_prompts", "write_samples"]


@dataclass(frozen=True, slots=True)
class Generation:
    """Options of a generation.

    Attributes:
        per_class: number of texts per class, before the gates.
        lengths: how the lengths of the texts are drawn.
        longest: maximum length of a text in words.
        sampling: how tokens are drawn.
        batch_rows: texts generated at once; another number gives other texts.
        seed: of prompts, lengths and tokens.
    """

    per_class: int
    lengths: LengthMethod
    longest: int
    sampling: Sampling
    batch_rows: int
    seed: int


def load_prompts(name: str, labels: Sequence[str]) -> dict[str, list[str]]:
    """Return the openings of each class from a TOML file or the shipped "news".

    Args:
        name: name of a shipped set of prompts, or path of a TOML file `class = ["opening", ...]`.
        labels: the classes that must have openings.

    Raises:
        DataError: the file cannot be read, or has no openings for a class.
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
        prompts = table.get(label)
        if (
            not isinstance(prompts, list)
            or not prompts
            or not all(isinstance(prompt, str) for prompt in prompts)
        ):
            raise DataError(
                f'generate.prompts: {name}: no list of openings for the class "{label}"; write '
                f'"{label}" = ["...", "..."]'
            )
    return {label: table[label] for label in labels}


def adapted_model(
    name: str,
    texts: Sequence[str],
    tuning: FineTuning,
    *,
    cache: Path,
    log: Callable[[str], None],
) -> tuple[LanguageModel, str]:
    """Load a language model and fine-tune it on texts, or read the result from the cache.

    Args:
        name: directory in the hub's format, or hub id.
        texts: texts to adapt to.
        tuning: options of the fine-tuning; with 0 epochs the model is returned as it is.
        cache: directory of adapted models.
        log: receives progress lines.

    Returns:
        The model, and a key that changes with everything that determines its weights.

    Raises:
        DataError: the model cannot be loaded, or the texts are too short to train on.
    """
    if tuning.epochs == 0.0:
        return LanguageModel.load(name), _key([_identity(name)])
    key = _key([_identity(name), asdict(tuning), _fingerprint(texts)])
    folder = cache / key
    if recover_directory(folder):
        return LanguageModel.load(folder), key
    model = LanguageModel.load(name)
    log(f"fine-tuning {name} on {len(texts):,} target texts for {tuning.epochs:g} epochs")

    def log_step(step: int, last: int, loss: float) -> None:
        if step == last or step % max(1, last // 5) == 0:
            log(f"language model: step {step} of {last}, loss {loss:.3f}")

    model.fit(texts, tuning, on_step=log_step)
    replace_directory(folder, model.save)
    return model, key


def write_samples(
    model: LanguageModel,
    prompts: Mapping[str, Sequence[str]],
    training_lengths: np.ndarray,
    generation: Generation,
    *,
    parts: Path,
    log: Callable[[str], None],
) -> pa.Table:
    """Generate all samples with their provenance; no gate is applied.

    Finished batches are kept in `parts`, so an interrupted generation continues where it stopped
    and ends with the same rows.

    Args:
        model: the language model.
        prompts: openings by class.
        training_lengths: lengths of the training texts in words, `[texts]`.
        generation: what to generate.
        parts: directory of finished batches, one per model, prompts, lengths and generation.
        log: receives progress lines.

    Returns:
        Columns text, label, prompt, words (the requested length), seed (of the batch), and the
        sampling parameters.
    """
    parts.mkdir(parents=True, exist_ok=True)
    classes, openings, words = _assignments(prompts, training_lengths, generation)
    # Texts of similar length are generated together, so that few rows of a batch wait for others.
    order = np.argsort(words, kind="stable")
    size = generation.batch_rows
    rows: list[dict[str, Any]] = []
    for number, start in enumerate(range(0, len(order), size)):
        part, batch = parts / f"{number:05d}.jsonl", order[start : start + size]
        if not part.is_file():
            seed = int(np.random.SeedSequence((generation.seed, number)).generate_state(1)[0])
            begun = [openings[index] for index in batch]
            texts = continue_texts(
                model, begun, words[batch], sampling=generation.sampling, seed=seed
            )
            columns = zip(texts, classes[batch].tolist(), begun, words[batch].tolist(), strict=True)
            names = ("text", "label", "prompt", "words")
            _write(part, [dict(zip(names, row, strict=True), seed=seed) for row in columns])
            log(f"generated {min(start + size, len(order)):,} of {len(order):,} texts")
        with part.open(encoding="utf-8") as file:
            rows += map(json.loads, file)
    table = pa.Table.from_pylist(rows)
    for key, value in asdict(generation.sampling).items():
        table = table.append_column(key, pa.array([value] * len(rows)))
    return table


def _assignments(
    prompts: Mapping[str, Sequence[str]], training_lengths: np.ndarray, generation: Generation
) -> tuple[np.ndarray, list[str], np.ndarray]:
    """Return class, opening and requested number of words of every text."""
    labels = list(prompts)
    generator = np.random.default_rng((generation.seed, 0))
    classes = np.repeat(np.arange(len(labels)), generation.per_class)
    of_class = [prompts[labels[index]] for index in classes]
    openings = [choices[int(generator.integers(len(choices)))] for choices in of_class]
    words = draw_lengths(
        training_lengths,
        len(classes),
        method=generation.lengths,
        longest=generation.longest,
        generator=generator,
    )
    # Every text has at least one word after its opening.
    return classes, openings, np.maximum(words, [len(prompt.split()) + 1 for prompt in openings])


def _write(part: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    with replacing(part) as new:
        new.write_text(text, encoding="utf-8", newline="\n")


def _key(facts: Sequence[object]) -> str:
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]


def _identity(name: str) -> list[object]:
    """Return what identifies a model: names, sizes and times of a directory's files, or its id."""
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
