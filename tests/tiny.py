"""A tiny BERT and RoBERTa in the hub's format, tiny sets of news, and a recipe for them."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForMaskedLM,
)

from pennyweight.budget.methods import METHODS
from pennyweight.budget.methods.lora import LoraAdapter
from pennyweight.recipe import Recipe, resolve_recipe

BASELINES = {"baselines": ["embedding", "tf-idf"]}
LABELS = ("World", "Sports", "Business", "Sci/Tech")
_TOPICS = (
    ("minister", "treaty", "border", "election"),
    ("goal", "coach", "season", "league"),
    ("shares", "profit", "bank", "merger"),
    ("chip", "software", "orbit", "browser"),
)
_COMMON = ("the", "a", "says", "after", "new", "week", "of", "in", "report", "over")
_SPECIAL = ("[UNK]", "[PAD]", "[CLS]", "[SEP]", "[MASK]")

# For estimators that train within a second.
QUICK: dict[str, Any] = {
    "base.attention": "eager",
    "data.clean": [],
    "data.max_tokens": 24,
    "adapter.targets": ["query", "value"],
    "adapter.rank": 2,
    "optimizer.learning_rate": 0.01,
    "train.epochs": 1,
    "train.batch_rows": 8,
    "train.precision": "fp32",
    "train.trackers": [],
}


def _tokenizer() -> PreTrainedTokenizerFast:
    words = [*_SPECIAL, *(word for topic in _TOPICS for word in topic), *_COMMON]
    vocabulary = {word: index for index, word in enumerate(words)}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B [SEP]",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        unk_token="[UNK]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )


_SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 66,
    "pad_token_id": 1,
    "bos_token_id": 2,
    "eos_token_id": 3,
    # Larger than in practice, so that the untrained encoder tells texts apart.
    "initializer_range": 0.2,
}


def save_base(folder: Path, family: str) -> Path:
    """Save a base without a classification head, and return its directory.

    Of the RoBERTa, the dense layer of the head is missing as well.
    """
    tokenizer = _tokenizer()
    torch.manual_seed(0)
    if family == "bert":
        BertModel(BertConfig(vocab_size=len(tokenizer), **_SIZES)).save_pretrained(folder)
    else:
        config = RobertaConfig(vocab_size=len(tokenizer), type_vocab_size=1, **_SIZES)
        RobertaForMaskedLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def news(rows: int, *, seed: int) -> list[tuple[int, str]]:
    """Return distinct texts of 3 to 15 words, each behind its label; the classes take turns.

    The words of a text reveal its label.
    """
    draw = np.random.default_rng(seed)
    labels: dict[str, int] = {}
    while len(labels) < rows:
        label = len(labels) % 4
        words = [
            *draw.choice(_TOPICS[label], size=draw.integers(1, 4)),
            *draw.choice(_COMMON, size=draw.integers(2, 12)),
        ]
        labels.setdefault(" ".join(draw.permutation(words)), label)
    return [(label, text) for text, label in labels.items()]


def words_of(numbers: np.ndarray) -> list[str]:
    """Return a text for each row of a matrix; a word depends on the column and the value."""
    words = [*(word for topic in _TOPICS for word in topic), *_COMMON]
    codes = np.floor(2 * numbers).astype(int) + 5 * np.arange(numbers.shape[1])
    return [" ".join(words[code % len(words)] for code in row) for row in codes.tolist()]


def write_news(path: Path, rows: list[tuple[int, str]]) -> Path:
    """Write a CSV file with the columns `label` and `text`, and return its path."""
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("label", "text"), *rows])
    return path


def write_several_labels(folder: Path) -> Path:
    """Write train.csv (48 rows), validation.csv (16) and test.csv (12) for a multi-label task.

    A row has the label of its words, and also the first label where the word "after" occurs. The
    first two training rows have none. Labels are joined by "|".
    """
    rows = [(_labels_of(text, label), text) for label, text in news(76, seed=1)]
    rows[:2] = [("", text) for _, text in rows[:2]]
    for name, part in (("train", rows[:48]), ("validation", rows[48:64]), ("test", rows[64:])):
        with (folder / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([("label", "text"), *part])
    return folder


def _labels_of(text: str, label: int) -> str:
    labels = {label, *([0] if "after" in text else [])}
    return "|".join(LABELS[index] for index in sorted(labels))


def write_pairs(folder: Path) -> Path:
    """Write train.csv (40 rows), validation.csv (12) and test.csv (8) with pairs of texts.

    The columns are `label`, `premise` and `hypothesis`.
    """
    rows = news(60, seed=4)
    for name, part in (("train", rows[:40]), ("validation", rows[40:52]), ("test", rows[52:])):
        lines = (f"{LABELS[label]},{text},{part[0][1]}" for label, text in part)
        (folder / f"{name}.csv").write_text("label,premise,hypothesis\n" + "\n".join(lines))
    return folder


# Synsets of words that `news` uses.
_WORDNET = {
    "noun": ("bank depository", "goal end finish", "report study account", "week hebdomad"),
    "verb": ("says states", "report describe account"),
    "adj": ("new fresh young",),
    "adv": ("over finished",),
}
_LETTERS = {"noun": "n", "verb": "v", "adj": "a", "adv": "r"}


def write_wordnet(folder: Path) -> Path:
    """Write a WordNet of a few synsets in its own format, wndb(5WN), and return its directory."""
    folder.mkdir()
    for part, synsets in _WORDNET.items():
        letter, data, offsets = _LETTERS[part], "", dict[str, list[int]]()
        for synset in synsets:
            words = synset.split()
            for word in words:
                offsets.setdefault(word, []).append(len(data))
            lemmas = " ".join(f"{word} 0" for word in words)
            frames = " 00" if part == "verb" else ""
            data += f"{len(data):08d} 00 {letter} {len(words):02x} {lemmas} 000{frames} | x\n"
        lines = [
            f"{word} {letter} {len(places)} 0 {len(places)} 0 "
            + " ".join(f"{place:08d}" for place in places)
            for word, places in sorted(offsets.items())
        ]
        (folder / f"index.{part}").write_text("".join(f"{line}\n" for line in lines))
        (folder / f"data.{part}").write_text(data)
        (folder / f"{part}.exc").write_text("")
    (folder / "cntlist.rev").write_text("")
    return folder


def tiny_recipe(directory: Path, folder: Path, /, **sections: Mapping[str, Any]) -> Recipe:
    """Return a recipe for a base and the sets in `folder`; `sections` change single keys.

    An adapter of another family than LoRA's has its own defaults.
    """
    values: dict[str, Any] = {
        "name": "tiny",
        "base": {"name": str(directory), "attention": "eager"},
        "data": {"train": str(folder / "train.csv"), "labels": list(LABELS), "max_tokens": 24},
        "adapter": {"targets": ["query", "value"], "rank": 2},
        "optimizer": {"learning_rate": 0.01},
        "train": {
            "epochs": 1,
            "batch_rows": 8,
            "precision": "fp32",
            "log_every": 1,
            "trackers": [],
        },
        # Two logistic regressions take longer than the training itself.
        "evaluate": {"test": str(folder / "test.csv"), "baselines": []},
    }
    values["data"]["validation"] = str(folder / "validation.csv")
    for name, keys in sections.items():
        is_other = name == "adapter" and METHODS[keys.get("method", "lora")].section != LoraAdapter
        values[name] = {**({} if is_other else values.get(name, {})), **keys}
    return resolve_recipe(values)


@pytest.fixture(scope="session")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_base(tmp_path_factory.mktemp("bert"), "bert")


@pytest.fixture(scope="session")
def roberta(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_base(tmp_path_factory.mktemp("roberta"), "roberta")


@pytest.fixture(scope="session")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with train.csv (48 rows), validation.csv (16) and test.csv (12)."""
    folder = tmp_path_factory.mktemp("sets")
    rows = news(76, seed=1)
    write_news(folder / "train.csv", rows[:48])
    write_news(folder / "validation.csv", rows[48:64])
    write_news(folder / "test.csv", rows[64:])
    return folder


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep one cache for the whole session, apart from the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PENNYWEIGHT_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
        yield
