"""Augmented copies differ from their text, are never empty, and are repeatable."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pennyweight.data import wordnet
from pennyweight.errors import DataError
from pennyweight.lab import words
from pennyweight.lab.words import AUGMENTATIONS, augment

# Four synsets in WordNet's own format, wndb(5WN): bank and depository, run and operate.
_INDEX = {
    "noun": "bank n 1 0 1 1 00000000\ndepository n 1 0 1 1 00000000\n",
    "verb": "operate v 1 0 1 1 00000000\nrun v 1 0 1 1 00000000\n",
    "adj": "big a 1 0 1 0 00000000\nlarge a 1 0 1 0 00000000\n",
    "adv": "fast r 1 0 1 0 00000000\nquickly r 1 0 1 0 00000000\n",
}
_DATA = {
    "noun": "00000000 14 n 02 bank 0 depository 0 000 | a place for money\n",
    "verb": "00000000 36 v 02 run 0 operate 0 000 00 | keep going\n",
    "adj": "00000000 00 a 02 big 0 large 0 000 | of great size\n",
    "adv": "00000000 02 r 02 fast 0 quickly 0 000 | with speed\n",
}


# NLTK's readers hold files open, and must not be collected while a test runs.
_READERS: list[Any] = []


@pytest.fixture
def tiny_wordnet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    pytest.importorskip("nltk")
    folder = tmp_path / "wordnet"
    folder.mkdir()
    for part in _DATA:
        (folder / f"index.{part}").write_text(_INDEX[part])
        (folder / f"data.{part}").write_text(_DATA[part])
        (folder / f"{part}.exc").write_text("geese goose\n" if part == "noun" else "")
    (folder / "cntlist.rev").write_text("bank%1:14:00:: 1 9\n")
    monkeypatch.setenv("PENNYWEIGHT_CACHE", str(tmp_path / "cache"))
    wordnet.open_wordnet.cache_clear()
    words._synonyms_of.cache_clear()
    _READERS.append(wordnet.open_wordnet(str(folder)))
    return str(folder)


def _options(wordnet: str | None, **changes: Any) -> dict[str, Any]:
    defaults = {"probability": 0.99, "most": 5, "part_of_speech": "any", "spare_names": True}
    return {**defaults, "wordnet": wordnet, **changes}


def test_synonyms_come_from_wordnet_with_their_capitals(tiny_wordnet: str) -> None:
    options = _options(tiny_wordnet)
    copies, parents = augment(
        ["Large zebra bank", "nothing known"], method="synonyms", copies=1, seed=1, options=options
    )
    assert copies == ["Big zebra depository"]
    assert parents.tolist() == [0]


def test_names_are_spared_unless_the_option_is_off(tiny_wordnet: str) -> None:
    text = ["the Bank said"]
    spared = augment(text, method="synonyms", copies=1, seed=1, options=_options(tiny_wordnet))
    assert spared[0] == []
    options = _options(tiny_wordnet, spare_names=False)
    changed = augment(text, method="synonyms", copies=1, seed=1, options=options)
    assert changed[0] == ["the Depository said"]


def test_the_most_frequent_part_of_speech_decides_the_synonym(tiny_wordnet: str) -> None:
    options = _options(tiny_wordnet, part_of_speech="most-frequent")
    assert augment(["a run"], method="synonyms", copies=1, seed=1, options=options)[0] == [
        "a operate"
    ]


def test_the_error_for_a_missing_wordnet_or_tagger_says_how_to_get_it(
    tmp_path: Path, tiny_wordnet: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(
        DataError, match="WordNet is not in this directory; install Debian's wordnet-base"
    ):
        augment(["bank"], method="synonyms", copies=1, seed=1, options=_options(str(tmp_path)))
    import nltk

    monkeypatch.setattr(nltk.data, "path", [])
    words._tags.cache_clear()
    options = _options(tiny_wordnet, part_of_speech="tagger")
    with pytest.raises(DataError, match="averaged_perceptron_tagger_eng"):
        augment(["bank"], method="synonyms", copies=1, seed=1, options=options)


CASES = [
    ("deletion", {"probability": 0.5}),
    ("swap", {"count": 2}),
    ("typos", {"probability": 0.9}),
]


@settings(max_examples=30)
@given(
    st.lists(st.text("abcdefgh ", min_size=1, max_size=40), min_size=1, max_size=5),
    st.sampled_from(CASES),
    st.integers(0, 5),
)
def test_copies_differ_from_their_text_and_are_repeatable(
    texts: list[str], case: tuple[str, dict[str, Any]], seed: int
) -> None:
    method, options = case
    copies, parents = augment(texts, method=method, copies=2, seed=seed, options=options)
    repeated = augment(texts, method=method, copies=2, seed=seed, options=options)
    assert copies == repeated[0]
    assert np.array_equal(parents, repeated[1])
    for text, parent in zip(copies, parents.tolist(), strict=True):
        assert text
        assert text != " ".join(texts[parent].split())
        if method == "swap":
            assert sorted(text.split()) == sorted(texts[parent].split())
        if method == "deletion":
            assert len(text.split()) < len(texts[parent].split())


def test_every_augmentation_has_a_name_and_a_summary() -> None:
    assert all(name == entry.name and entry.summary for name, entry in AUGMENTATIONS.items())
