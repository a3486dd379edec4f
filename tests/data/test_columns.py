"""Columns: by name in any case, pairs of texts, and by content where only one choice is left."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pennyweight.data.fingerprint import fingerprint_of
from pennyweight.data.ingest import Rows
from pennyweight.data.source import Source

Read = Callable[..., Rows]
Message = Callable[[Callable[[], object]], str]
HEADLINES = [
    "the minister signs a treaty",
    "shares of the bank fall",
    "the coach leaves the league",
    "a new browser is out",
]


def csv_of(header: str, *columns: list[str]) -> str:
    rows = [",".join(fields) for fields in zip(*columns, strict=True)]
    return "\n".join([header, *rows]) + "\n"


@pytest.mark.parametrize(
    "names",
    [
        ("sentence1", "sentence2"),
        ("premise", "hypothesis"),
        ("question1", "question2"),
        ("text_a", "text_b"),
        ("question", "sentence"),
        ("text", "text_pair"),
        ("Premise", "Hypothesis"),
    ],
)
def test_pairs_are_recognized_by_the_usual_names(read: Read, names: tuple[str, str]) -> None:
    rows = read(f"{names[0]},{names[1]},label\na,b,1\nc,d,0\n")

    assert rows.are_pairs
    assert rows.table.to_list() == [
        {"text": "a", "text_pair": "b", "label": 1, "row": 1},
        {"text": "c", "text_pair": "d", "label": 0, "row": 2},
    ]
    assert rows.fingerprint == fingerprint_of(rows.table)
    swapped = read(f"{names[0]},{names[1]},label\nb,a,1\nc,d,0\n", "swapped.csv")
    assert swapped.fingerprint != rows.fingerprint


def test_pairs_can_be_named_and_are_cleaned_on_both_sides(read: Read, message: Message) -> None:
    content = "claim,evidence,label\n<b>x,<i>y,1\n"
    fields = {"pair_columns": ("claim", "evidence"), "clean": ("html-tags", "whitespace")}

    rows = read(content, **fields)

    assert (rows.table["text"][:], rows.table["text_pair"][:]) == (["x"], ["y"])
    text = message(lambda: read("claim,evidence,label\nx,,1\n", **fields))
    assert 'row 1 (line 2): empty text in column "evidence"' in text
    text = message(lambda: read(content, pair_columns=("claim", "proof")))
    assert 'expected "claim" and "proof"; did you mean' not in text
    assert "in training, name the two columns with --set" in text


def test_a_column_of_a_similar_name_is_suggested(read: Read, message: Message) -> None:
    text = message(lambda: read("text,label\na,1\n", label_column="lable"))
    assert 'expected "lable"; did you mean "label"? otherwise name the column with' in text
    text = message(lambda: read("headline,label\na,1\n", text_columns=("headlin",)))
    assert 'did you mean "headline"? otherwise name the column with --text-column' in text


def test_a_reader_of_pairs_refuses_single_texts_and_the_reverse(
    read: Read, message: Message
) -> None:
    text = message(lambda: read("text,label\na,1\n", pairs=True))
    assert "no pair of text columns" in text
    assert '"sentence1" and "sentence2"' in text
    two = read("a,b,label\nx,y,1\n", pairs=True, text_columns=("b", "a"))
    assert (two.table["text"][:], two.table["text_pair"][:]) == (["y"], ["x"])
    text = message(lambda: read("text,label\na,1\n", pairs=True, text_columns=("text",)))
    assert "the classifier reads pairs of texts" in text
    text = message(lambda: read("a,b,label\na,b,1\n", pairs=False, pair_columns=("a", "b")))
    assert "the classifier reads single texts" in text
    assert not read("question,sentence,label\na,b,1\n", pairs=False).are_pairs


def test_usual_names_are_found_in_any_case(read: Read) -> None:
    assert read("Text , LABEL\na,1\n".replace(" , ", ",")).table["text"][:] == ["a"]


def test_the_only_plausible_columns_are_used_and_noted(read: Read) -> None:
    content = csv_of(
        "id,headline,queue,link",
        [f"id-{number}" for number in range(4)],
        HEADLINES,
        ["0", "1", "0", "1"],
        [f"http://news/{number}" for number in range(4)],
    )

    rows = read(content)

    assert rows.table["text"][:] == HEADLINES
    assert rows.table["label"][:] == [0, 1, 0, 1]
    assert 'the text is read from the column "headline", and the label' in rows.note
    assert read(content).note == rows.note
    assert read("text,label\na,Sports\n", "b.csv").note == ""


def test_several_plausible_text_columns_are_named(read: Read, message: Message) -> None:
    content = csv_of("label,subject,body", ["0", "1", "0", "1"], HEADLINES, HEADLINES[::-1])

    text = message(lambda: read(content))

    assert 'several columns could be the text: "subject", "body"' in text
    assert "name one with --text-column" in text
    assert """--set 'data.train.pair_columns=["subject", "body"]'""" in text


@pytest.mark.parametrize(
    "content",
    [
        csv_of(f"0,{HEADLINES[0]}", ["1", "0", "1"], HEADLINES[1:]),
        csv_of(f"pos,{HEADLINES[0]} {HEADLINES[1]}", ["neg", "pos", "pos"], HEADLINES[1:]),
        csv_of("pos,good film", ["neg", "pos", "pos"], HEADLINES[1:]),
        csv_of(f"pos,{'long ' * 900}", ["neg", "neg", "neg"], HEADLINES[1:]),
    ],
)
def test_a_file_without_a_header_is_an_error_with_the_fix(
    read: Read, content: str, message: Message
) -> None:
    text = message(lambda: read(content))

    assert "the first row looks like data and not like column names" in text
    assert "add a first line that names the columns, such as text,label" in text
    assert len(text) < 300


def test_columns_are_listed_without_their_articles(read: Read, message: Message) -> None:
    text = message(lambda: read(f'{{"label": 1, "{"long " * 900}": "a"}}\n', "rows.jsonl"))

    assert "no text column" in text
    assert len(text) < 500


def test_another_source_lends_its_column_names_where_a_file_has_them(read: Read) -> None:
    like = Source("train.csv", text_columns=("head", "body"), label_column="topic")

    rows = read("text,label,head,body,topic\nt,0,h,b,1\n", like=like)
    assert (rows.table["text"][:], rows.table["label"][:]) == (["h b"], [1])
    rows = read("text,label,head,topic\nt,0,h,1\n", "b.csv", like=like)
    assert (rows.table["text"][:], rows.table["label"][:]) == (["t"], [1])
    rows = read("text,label,head,body,topic\nt,0,h,b,1\n", like=like, text_columns=("text",))
    assert rows.table["text"][:] == ["t"]
