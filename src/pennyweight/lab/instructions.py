"""Labelled texts from a model that follows instructions, with target texts as examples of style."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pennyweight.documents import read_toml
from pennyweight.errors import DataError
from pennyweight.lab.endpoint import ChatClient, Endpoint
from pennyweight.lab.parts import write_parts
from pennyweight.lab.sampling import LengthMethod, draw_lengths

__all__ = ["ImitatedTexts", "InstructedGeneration", "load_instructions", "write_instructed"]

_DEFAULT = """\
Write one new text of the class "{label}", about {words} words long.
It must read as if it came from the same source as the examples below: the same kind of text, the \
same style, tone and format. The examples may be of any class. Do not copy or paraphrase them.
Answer with the text alone, without a title, quotation marks or comments.

{examples}"""
# Texts of a part on disk; fixed, so that another concurrency continues the same parts.
_PART_TEXTS = 32
# An answer of so many tokens per word, and these besides, is cut off.
_TOKENS_PER_WORD = 4
_MORE_TOKENS = 64
_QUOTES = {'"': '"', "'": "'", "\u201c": "\u201d", "\u00ab": "\u00bb", "`": "`"}


@dataclass(frozen=True, slots=True)
class ImitatedTexts:
    """The texts that are imitated.

    Attributes:
        target: texts that examples are drawn from.
        training_lengths: lengths of the training texts in words, `[texts]`.
    """

    target: Sequence[str]
    training_lengths: np.ndarray


@dataclass(frozen=True, slots=True)
class InstructedGeneration:
    """Options of a generation by instructions.

    Attributes:
        per_class: number of texts per class, before the gates.
        lengths: how the lengths of the texts are drawn.
        longest: maximum length of a text, and of an example, in words.
        examples: target texts in each request.
        temperature: of sampling.
        top_p: total probability of the tokens that are sampled from.
        seed: of lengths, examples and requests.
    """

    per_class: int
    lengths: LengthMethod
    longest: int
    examples: int
    temperature: float
    top_p: float
    seed: int


def load_instructions(name: str, labels: Sequence[str]) -> dict[str, str]:
    """Return the instruction of each class from a TOML file, or the default one for all.

    Args:
        name: "default", or path of a TOML file `class = "instruction"`; an instruction contains
            `{examples}`, and may contain `{label}` and `{words}`.
        labels: the classes that must have one.

    Raises:
        DataError: the file cannot be read, or a class has no instruction with examples.
    """
    if name == "default":
        return dict.fromkeys(labels, _DEFAULT)
    try:
        table = read_toml(Path(name))
    except (OSError, ValueError) as error:
        raise DataError(f"generate.instructions: {name}: cannot be read: {error}") from None
    for label in labels:
        instruction = table.get(label)
        if not isinstance(instruction, str) or "{examples}" not in instruction:
            raise DataError(
                f"generate.instructions: {name}: no instruction with {{examples}} for the class "
                f'"{label}"; write "{label}" = "... about {{words}} words ... {{examples}}"'
            )
    return {label: table[label] for label in labels}


def write_instructed(
    endpoint: Endpoint,
    instructions: Mapping[str, str],
    imitated: ImitatedTexts,
    generation: InstructedGeneration,
    *,
    parts: Path,
    log: Callable[[str], None],
) -> pa.Table:
    """Have all texts written by a server, with their provenance; no gate is applied.

    Texts of the target are sent to the server. An interrupted generation continues in `parts`.

    Args:
        endpoint: the server.
        instructions: by class.
        imitated: their lengths are those of the new texts, and some are sent as examples.
        generation: what to generate.
        parts: directory of finished parts, one per instructions, target, lengths and generation.
        log: receives progress lines.

    Returns:
        Columns text, label, words (requested length), seed (of the request), examples (rows of the
        target), temperature and top_p.

    Raises:
        DataError: the server cannot be used.
    """
    labels = list(instructions)
    classes = np.tile(np.arange(len(labels)), generation.per_class)
    words = draw_lengths(
        imitated.training_lengths,
        len(classes),
        method=generation.lengths,
        longest=generation.longest,
        generator=np.random.default_rng((generation.seed, 0)),
    )
    log(_announcement(endpoint, len(classes), min(generation.examples, len(imitated.target))))
    batches = np.split(np.arange(len(classes)), range(_PART_TEXTS, len(classes), _PART_TEXTS))
    with ChatClient(endpoint) as client:
        writer = _Writer(client, instructions, imitated.target, generation)

        def write(_: int, batch: np.ndarray) -> list[dict[str, Any]]:
            columns = (batch.tolist(), classes[batch].tolist(), words[batch].tolist())
            return writer.write_all(zip(*columns, strict=True), threads=endpoint.concurrency)

        rows = write_parts(parts, batches, write, log=log)
    sampling = {"temperature": generation.temperature, "top_p": generation.top_p}
    return pa.Table.from_pylist([row | sampling for row in rows])


@dataclass(frozen=True, slots=True)
class _Writer:
    """Has texts written."""

    client: ChatClient
    instructions: Mapping[str, str]
    target: Sequence[str]
    generation: InstructedGeneration

    def write_all(
        self, requests: Iterable[tuple[int, int, int]], *, threads: int
    ) -> list[dict[str, Any]]:
        """Return a text for each request, of which so many run at a time; see `write`."""
        pool = ThreadPoolExecutor(threads)
        try:
            texts = [pool.submit(self.write, *request) for request in requests]
            # The first failure counts, whatever other texts still wait for.
            for text in as_completed(texts):
                text.result()
            return [text.result() for text in texts]
        except BaseException:
            self.client.cancel()
            raise
        finally:
            # A request that outlives the client would leave its connection open.
            pool.shutdown(cancel_futures=True)

    def write(self, index: int, label: int, words: int) -> dict[str, Any]:
        """Return a text with its provenance.

        Args:
            index: number of the text, which its examples and seed are derived from.
            label: index of its class.
            words: requested length.
        """
        generation = self.generation
        # Some servers take 32-bit signed integers only.
        seed = int(np.random.SeedSequence((generation.seed, index)).generate_state(1)[0]) >> 1
        rows = np.random.default_rng(seed).permutation(len(self.target))[: generation.examples]
        examples = [_cut(self.target[row], generation.longest) for row in rows]
        name = list(self.instructions)[label]
        prompt = _prompt(self.instructions[name], label=name, words=words, examples=examples)
        options = {
            "temperature": generation.temperature,
            "top_p": generation.top_p,
            "max_tokens": words * _TOKENS_PER_WORD + _MORE_TOKENS,
            "seed": seed,
        }
        text = _cut(_unquoted(self.client.answer(prompt, options=options)), generation.longest)
        facts = {"label": label, "words": words, "seed": seed, "examples": rows.tolist()}
        return {"text": text, **facts}


def _announcement(endpoint: Endpoint, texts: int, examples: int) -> str:
    """Return a line on what is sent where."""
    key = "" if endpoint.api_key_env is None else f", with the key in {endpoint.api_key_env}"
    return (
        f"endpoint {endpoint.url}: {texts:,} texts from the model {endpoint.model}, "
        f"{endpoint.concurrency} requests at a time{key}; each request sends {examples} texts of "
        "data.target to this server"
    )


def _prompt(instruction: str, *, label: str, words: int, examples: Sequence[str]) -> str:
    """Return an instruction with its three placeholders replaced; other braces stay."""
    listed = "\n\n".join(f"Example {n}:\n{text}" for n, text in enumerate(examples, start=1))
    filled = instruction.replace("{label}", label).replace("{words}", str(words))
    return filled.replace("{examples}", listed)


def _cut(text: str, longest: int) -> str:
    return " ".join(text.split()[:longest])


def _unquoted(text: str) -> str:
    """Return a text without the quotation marks that some models put around it."""
    inside = text[1:-1].strip()
    if len(text) > 2 and _QUOTES.get(text[0]) == text[-1] and text[0] not in inside:
        return inside
    return text
