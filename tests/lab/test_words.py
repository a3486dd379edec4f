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
from tiny import write_wordnet

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


def test_each_directory_of_wordnet_is_read_as_it_is_now(tiny_wordnet: str, tmp_path: Path) -> None:
    other = write_wordnet(tmp_path / "other")

    def open_again(folder: Path) -> Any:
        wordnet.open_wordnet.cache_clear()
        _READERS.append(wordnet.open_wordnet(str(folder)))
        return _READERS[-1]

    assert open_again(other).lemmas("hebdomad")
    assert not open_again(Path(tiny_wordnet)).lemmas("hebdomad")
    exceptions = Path(tiny_wordnet) / "noun.exc"
    exceptions.write_text("banken bank\n")
    assert open_again(Path(tiny_wordnet)).morphy("banken", "n") == "bank"


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


# Synsets of WordNet 3.0 for function words, with their parts of speech, and of content words.
_ABSURD = {
    "noun": (
        ("angstrom", "a"),
        ("Maine", "me", "ME"),
        ("astatine", "at", "At"),
        ("tin", "can"),
        ("Oregon", "or", "OR"),
        ("iodine", "i", "I"),
        ("helium", "he", "He"),
        ("bank", "depository"),
        ("bank", "cushion"),
        ("capital", "Capital", "working_capital"),
    ),
    "verb": (("can", "tin"), ("bank", "rely")),
    "adj": (("big", "large"),),
    "adv": (("fast", "quickly"),),
}
_USES = {("bank", "noun", 1): 20, ("bank", "noun", 2): 1, ("bank", "verb", 1): 3}


def _write_wordnet(folder: Path) -> None:
    """Write `_ABSURD` in the format wndb(5WN), and `_USES` as in cntlist(5WN)."""
    folder.mkdir()
    letters = {"noun": "n", "verb": "v", "adj": "a", "adv": "r"}
    numbers = {"noun": 1, "verb": 2, "adj": 3, "adv": 4}
    for part, synsets in _ABSURD.items():
        data, offsets = "", dict[str, list[int]]()
        for names in synsets:
            for name in dict.fromkeys(name.lower() for name in names):
                offsets.setdefault(name, []).append(len(data))
            frames = " 00" if part == "verb" else ""
            senses = [len(offsets[name.lower()]) - 1 for name in names]
            lemmas = " ".join(f"{n} {sense}" for n, sense in zip(names, senses, strict=True))
            data += (
                f"{len(data):08d} 03 {letters[part]} {len(names):02x} {lemmas} 000{frames} | x\n"
            )
        lines = [
            f"{name} {letters[part]} {len(at)} 0 {len(at)} 0 " + " ".join(f"{o:08d}" for o in at)
            for name, at in sorted(offsets.items())
        ]
        (folder / f"index.{part}").write_text("".join(f"{line}\n" for line in lines))
        (folder / f"data.{part}").write_text(data)
        (folder / f"{part}.exc").write_text("")
    counts = (
        f"{name}%{numbers[part]}:03:{sense - 1:02d}:: {sense} {uses}\n"
        for (name, part, sense), uses in _USES.items()
    )
    (folder / "cntlist.rev").write_text("".join(counts))


@pytest.fixture
def absurd_wordnet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A WordNet in which function words are chemical elements, states and containers."""
    pytest.importorskip("nltk")
    folder = tmp_path / "wordnet"
    _write_wordnet(folder)
    monkeypatch.setenv("PENNYWEIGHT_CACHE", str(tmp_path / "cache"))
    wordnet.open_wordnet.cache_clear()
    words._synonyms_of.cache_clear()
    _READERS.append(wordnet.open_wordnet(str(folder)))
    return str(folder)


@pytest.mark.parametrize("part_of_speech", ["most-frequent", "any"])
@pytest.mark.parametrize("spare_names", [True, False])
def test_function_words_and_letters_are_never_replaced(
    absurd_wordnet: str, part_of_speech: str, spare_names: bool
) -> None:
    changes = {"part_of_speech": part_of_speech, "spare_names": spare_names, "most": 99}
    options = _options(absurd_wordnet, **changes)
    text = "a me at can or I he A Me At Can Or i He"
    for seed in range(5):
        copies, _ = augment([text], method="synonyms", copies=3, seed=seed, options=options)
        assert copies == []


def test_only_frequent_senses_give_synonyms(absurd_wordnet: str) -> None:
    def synonyms(part: str) -> tuple[str, ...]:
        return words._synonyms_of("bank", part, absurd_wordnet)

    assert synonyms("most-frequent") == ("depository",)
    assert synonyms("n") == ("depository",)
    assert synonyms("v") == ("rely",)
    assert synonyms("any") == ("depository", "rely")
    assert synonyms("") == ()
    assert words._synonyms_of("banks", "most-frequent", absurd_wordnet) == ("depository",)
    # The others are a name and two words.
    assert words._synonyms_of("capital", "any", absurd_wordnet) == ()


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
