"""Generated texts have the requested lengths, and generation is repeatable and resumable."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pennyweight.errors import DataError
from pennyweight.lab import generate
from pennyweight.lab.fine_tuning import FineTuning
from pennyweight.lab.generate import Generation, load_prompts, write_samples
from pennyweight.lab.language_model import LanguageModel, ModelSize
from pennyweight.lab.sampling import Sampling, continue_texts
from tiny import LABELS, news

TEXTS = [text for _, text in news(200, seed=5)]
PROMPTS = {
    label: [f"{text.split()[0]} says", "the"] for label, text in zip(LABELS, TEXTS, strict=False)
}
SAMPLING = Sampling(temperature=1.0, top_k=20, top_p=0.95, repetition_penalty=1.3)
GENERATION = Generation(
    per_class=12, lengths="empirical", longest=20, sampling=SAMPLING, batch_rows=16, seed=3
)
WORDS = np.array([len(text.split()) for text in TEXTS])


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    size = ModelSize(vocabulary=400, layers=2, width=32, heads=2, context=96)
    model = LanguageModel.untrained(TEXTS, size)
    model.fit(TEXTS, FineTuning(epochs=8, learning_rate=3e-3, batch_tokens=1024))
    return model


def _ignore(line: str) -> None:
    """Drop a progress line."""


def test_texts_begin_with_their_prompt_and_have_the_requested_words(model: LanguageModel) -> None:
    prompts = ["the coach says", "new", "minister of the border treaty"]
    words = np.array([9, 3, 12])
    texts = continue_texts(model, prompts, words, sampling=SAMPLING, seed=1)
    assert [len(text.split()) for text in texts] == [9, 3, 12]
    assert all(text.startswith(prompt) for text, prompt in zip(texts, prompts, strict=True))
    assert texts == continue_texts(model, prompts, words, sampling=SAMPLING, seed=1)
    assert texts != continue_texts(model, prompts, words, sampling=SAMPLING, seed=2)


def test_samples_have_their_lengths_and_provenance_and_are_repeatable(
    model: LanguageModel, tmp_path: Path
) -> None:
    first = write_samples(model, PROMPTS, WORDS, GENERATION, parts=tmp_path / "a", log=_ignore)
    second = write_samples(model, PROMPTS, WORDS, GENERATION, parts=tmp_path / "b", log=_ignore)
    assert first.equals(second)
    rows = first.to_pylist()
    assert len(rows) == 48
    assert [len(row["text"].split()) for row in rows] == [row["words"] for row in rows]
    for row in rows:
        assert row["prompt"] in PROMPTS[LABELS[row["label"]]]
        assert row["temperature"] == 1.0


def test_an_interrupted_generation_ends_with_the_same_rows(
    model: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = write_samples(model, PROMPTS, WORDS, GENERATION, parts=tmp_path / "whole", log=_ignore)
    calls, lines = [], list[str]()

    def interrupted(*args: object, **kwargs: object) -> list[str]:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return continue_texts(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(generate, "continue_texts", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_samples(model, PROMPTS, WORDS, GENERATION, parts=tmp_path / "cut", log=_ignore)
    parts = tmp_path / "cut"
    resumed = write_samples(model, PROMPTS, WORDS, GENERATION, parts=parts, log=lines.append)
    assert len(calls) == 4
    assert lines[0] == "generation: continuing after 16 of 48 texts"
    assert re.fullmatch(r"generated 32 of 48 texts, [\d.]+ texts/s, .+ left", lines[1])
    assert re.fullmatch(r"generated 48 of 48 texts, [\d.]+ texts/s", lines[2])
    assert resumed.equals(whole)


def test_a_prompt_with_a_unicode_line_separator_is_one_prompt(
    model: LanguageModel, tmp_path: Path
) -> None:
    generation = replace(GENERATION, per_class=2, batch_rows=2)
    prompts = {"a": ["the\u2028goal"]}
    table = write_samples(model, prompts, WORDS, generation, parts=tmp_path, log=_ignore)
    assert table.column("prompt").to_pylist() == prompts["a"] * 2


def test_the_shipped_prompts_cover_the_news_classes_without_repetition() -> None:
    prompts = load_prompts("news", LABELS)
    assert all(15 <= len(texts) <= 20 for texts in prompts.values())
    openings = [text for texts in prompts.values() for text in texts]
    assert len(set(openings)) == len(openings)


def test_prompts_that_lack_a_class_or_cannot_be_read_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match='no list of openings for the class "spam"'):
        load_prompts("news", ["World", "spam"])
    with pytest.raises(DataError, match="cannot be read"):
        load_prompts(str(tmp_path / "none.toml"), ["World"])
