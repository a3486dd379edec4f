"""Generation: lengths as asked, repeatable, resumable, and gates that close."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from pennyweight.errors import DataError
from pennyweight.lab import generate
from pennyweight.lab.gates import copied, pass_gates, tfidf_judge
from pennyweight.lab.generate import Generation, adapted_model, load_prompts, write_samples
from pennyweight.lab.language_model import LanguageModel
from pennyweight.lab.manifest import make_once, read_made
from pennyweight.lab.sampling import Sampling, continue_texts, draw_lengths, length_fit
from runs.tiny import LABELS, news

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
    made = LanguageModel.untrained(TEXTS, vocabulary=400, layers=2, width=32, heads=2, context=96)
    made.fit(TEXTS, epochs=8, learning_rate=3e-3, batch_tokens=1024)
    return made


def test_training_lowers_perplexity_and_is_repeatable(tmp_path: Path) -> None:
    sizes = {"vocabulary": 400, "layers": 1, "width": 32, "heads": 2, "context": 64}
    found = []
    for _ in range(2):
        one = LanguageModel.untrained(TEXTS, **sizes)
        before = one.perplexities(TEXTS[:20]).mean()
        one.fit(TEXTS, epochs=12, learning_rate=3e-3, batch_tokens=1024)
        assert one.perplexities(TEXTS[:20]).mean() < 0.5 * before
        found.append(one.perplexities(TEXTS[:20]))
    assert np.array_equal(*found)
    one.save(tmp_path / "lm")
    again = LanguageModel.load(tmp_path / "lm").perplexities(TEXTS[:20])
    np.testing.assert_allclose(again, found[1], rtol=1e-5)


def test_a_missing_model_says_how_to_train_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DataError, match="pennyweight data language-model"):
        LanguageModel.load(tmp_path / "nothing")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("pennyweight.hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(DataError, match=r"cannot be reached \(HF_HUB_OFFLINE is set"):
        LanguageModel.load("nobody/such-a-model")
    with pytest.raises(DataError, match="neither a directory nor a hub id"):
        LanguageModel.load("a b c")


def test_too_little_text_is_an_error() -> None:
    one = LanguageModel.untrained(["a b"], vocabulary=300, layers=1, width=32, heads=2)
    with pytest.raises(DataError, match="at least 256 are needed"):
        one.fit(["a b"], epochs=1, learning_rate=1e-3)


def test_texts_begin_with_their_prompt_and_have_the_words_asked_for(model: LanguageModel) -> None:
    prompts = ["the coach says", "new", "minister of the border treaty"]
    words = np.array([9, 3, 12])
    made = continue_texts(model, prompts, words, sampling=SAMPLING, seed=1)
    assert [len(text.split()) for text in made] == [9, 3, 12]
    assert all(text.startswith(prompt) for text, prompt in zip(made, prompts, strict=True))
    assert made == continue_texts(model, prompts, words, sampling=SAMPLING, seed=1)
    assert made != continue_texts(model, prompts, words, sampling=SAMPLING, seed=2)


@pytest.mark.parametrize("method", ["empirical", "skewed-normal"])
def test_lengths_follow_the_training_texts(method: str) -> None:
    draw = np.random.default_rng(0)
    lengths = np.rint(stats.skewnorm.rvs(4.0, 25.0, 15.0, size=2000, random_state=draw)).astype(int)
    found = draw_lengths(lengths, 2000, method=method, longest=128, draw=draw)  # type: ignore[arg-type]
    assert found.min() >= 1
    assert found.max() <= 128
    assert length_fit(lengths, found)["statistic"] < 0.06
    short = draw_lengths(lengths, 100, method=method, longest=10, draw=draw)  # type: ignore[arg-type]
    assert short.max() == 10


def test_samples_have_their_lengths_and_provenance_and_are_repeatable(
    model: LanguageModel, tmp_path: Path
) -> None:
    one = write_samples(model, PROMPTS, WORDS, GENERATION, parts=tmp_path / "a", say=print)
    other = write_samples(model, PROMPTS, WORDS, GENERATION, parts=tmp_path / "b", say=print)
    assert one.equals(other)
    rows = one.to_pylist()
    assert len(rows) == 48
    assert [len(row["text"].split()) for row in rows] == [row["words"] for row in rows]
    for row in rows:
        assert row["prompt"] in PROMPTS[LABELS[row["label"]]]
        assert row["temperature"] == 1.0


def test_an_interrupted_generation_ends_with_the_same_rows(
    model: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = write_samples(model, PROMPTS, WORDS, GENERATION, parts=tmp_path / "whole", say=print)
    calls = []

    def cut(*args: object, **kwargs: object) -> list[str]:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return continue_texts(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(generate, "continue_texts", cut)
    with pytest.raises(KeyboardInterrupt):
        write_samples(model, PROMPTS, WORDS, GENERATION, parts=tmp_path / "cut", say=print)
    again = write_samples(model, PROMPTS, WORDS, GENERATION, parts=tmp_path / "cut", say=print)
    assert len(calls) == 4
    assert again.equals(whole)


def test_adapting_is_done_once(model: LanguageModel, tmp_path: Path) -> None:
    model.save(tmp_path / "lm")
    said: list[str] = []
    how = {"epochs": 1.0, "learning_rate": 1e-3, "seed": 1, "cache": tmp_path / "cache"}
    for _ in range(2):
        _, key = adapted_model(str(tmp_path / "lm"), TEXTS, say=said.append, **how)  # type: ignore[arg-type]
    assert sum("fine-tuning" in line for line in said) == 1
    _, other = adapted_model(str(tmp_path / "lm"), TEXTS[1:], say=said.append, **how)  # type: ignore[arg-type]
    assert other != key


def test_the_shipped_prompts_cover_the_news_classes_and_blend() -> None:
    prompts = load_prompts("news", LABELS)
    assert all(15 <= len(openings) <= 20 for openings in prompts.values())
    every = [text for openings in prompts.values() for text in openings]
    assert len(set(every)) == len(every)


def test_prompts_of_another_task_are_asked_for(tmp_path: Path) -> None:
    with pytest.raises(DataError, match='no list of openings for the class "spam"'):
        load_prompts("news", ["World", "spam"])
    with pytest.raises(DataError, match="cannot be read"):
        load_prompts(str(tmp_path / "none.toml"), ["World"])


def test_a_planted_copy_of_an_evaluation_text_is_caught() -> None:
    held_out = "the quick brown fox jumps over the lazy dog near the river bank"
    texts = [
        "yesterday, the Quick brown fox jumps over the lazy dog again",
        "the quick brown fox sleeps",
        "near the river bank",
    ]
    assert copied(texts, [held_out], words=6).tolist() == [True, False, False]
    assert copied([held_out.upper()], [held_out], words=50).tolist() == [True]


def test_gates_count_their_dead() -> None:
    rows = news(160, seed=8)
    parents, labels = [t for _, t in rows], np.array([label for label, _ in rows])
    fresh = [t for _, t in news(8, seed=77)]
    texts = [*fresh[:4], parents[0] + " the", fresh[4], fresh[0], "a b c d e f g h i"]
    wanted = np.array([0, 1, 2, 3, 0, 1, 0, 2])
    alive, died = pass_gates(
        texts,
        wanted,
        judge=tfidf_judge(parents, labels),
        confidence=0.5,
        similarity=0.9,
        parents=parents,
        protected=["a b c d e f g h i j k"],
        words=8,
    )
    assert died["copied"] == 1
    assert died["another class"] >= 1  # the fifth fresh text is of class 0
    assert not alive[5]
    assert not alive[6]
    assert alive[:4].sum() >= 3
    assert alive.sum() + sum(died.values()) == len(texts)


def test_a_planted_near_duplicate_of_an_evaluation_text_is_caught() -> None:
    held_out = "goal for the home side in the last week of a long season says the coach"
    words = held_out.split()
    words[6:6] = ["very"]
    alive, died = pass_gates(
        [" ".join(words), "an orbit nobody has seen"],
        np.array([1, 3]),
        judge=None,
        confidence=0.5,
        similarity=0.7,
        parents=[],
        protected=[held_out],
        words=15,
    )
    assert alive.tolist() == [False, True]
    assert died == {"copied": 0, "near duplicate": 1}


def test_made_rows_are_made_once_and_a_changed_file_is_noticed(tmp_path: Path) -> None:
    import pyarrow as pa

    calls = []

    def make() -> tuple[pa.Table, dict[str, object]]:
        calls.append(1)
        return pa.table({"text": ["a"], "label": [0]}), {"labels": ["x"]}

    one = make_once(tmp_path, {"seed": 1}, make)
    assert make_once(tmp_path, {"seed": 1}, make).path == one.path
    assert len(calls) == 1
    assert make_once(tmp_path, {"seed": 2}, make).path != one.path
    assert one.manifest["rows"] == 1
    one.path.write_bytes(one.path.read_bytes() + b" ")
    with pytest.raises(DataError, match="changed since it was written"):
        read_made(one.path)
