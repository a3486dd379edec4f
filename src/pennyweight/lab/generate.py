"""Domain-adaptive generation of labelled texts with a language model.

A model that was adapted to unlabelled target text (`lab.adaptation`) continues openings that are
typical of each class; the label of a text is the class of its opening. The gates in `lab.gates`
decide which texts are used. The method follows the report of Leon, Manoj and Niroula (NYU Deep
Learning competition, spring 2025), which used no gates.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pennyweight.documents import parse_toml, read_text
from pennyweight.errors import DataError
from pennyweight.lab.language_model import LanguageModel
from pennyweight.lab.parts import write_parts
from pennyweight.lab.sampling import LengthMethod, Sampling, continue_texts, draw_lengths

__all__ = ["Generation", "load_prompts", "write_samples"]


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
        is_shipped = "/" not in name and shipped.is_file()
        text = shipped.read_text(encoding="utf-8") if is_shipped else read_text(Path(name))
        table = parse_toml(text)
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
    classes, openings, words = _assignments(prompts, training_lengths, generation)
    # Texts of similar length are generated together, so that few rows of a batch wait for others.
    order = np.argsort(words, kind="stable")
    size = generation.batch_rows

    def write(number: int, batch: np.ndarray) -> list[dict[str, Any]]:
        seed = int(np.random.SeedSequence((generation.seed, number)).generate_state(1)[0])
        begun = [openings[index] for index in batch]
        texts = continue_texts(model, begun, words[batch], sampling=generation.sampling, seed=seed)
        columns = zip(texts, classes[batch].tolist(), begun, words[batch].tolist(), strict=True)
        names = ("text", "label", "prompt", "words")
        return [dict(zip(names, row, strict=True), seed=seed) for row in columns]

    batches = [order[start : start + size] for start in range(0, len(order), size)]
    rows = write_parts(parts, batches, write, log=log)
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
