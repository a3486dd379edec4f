"""Cleaning steps: each on real text, and properties of all of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pennyweight.data.clean import STEPS, cleaner
from pennyweight.errors import DataError

# Steps that need no extra dependency.
PLAIN = [name for name in STEPS if name not in ("stemming", "lemmatization")]


@pytest.mark.parametrize(
    ("step", "before", "after"),
    [
        ("html-entities", "Spain#39;s &lt;b&gt;big&lt;/b&gt; quot;winquot;", "Spain's <b>big</b> "),
        ("html-tags", "a <b>bold</b> word", "a  bold  word"),
        ("html-tags", '<A HREF="x.asp">up</A><br/><p >', " up   "),
        ("html-tags", "List<String> of <a@b.de>, <CAD=>", "List<String> of <a@b.de>, <CAD=>"),
        ("backslashes", "economy\\about \\$46 a barrel", "economy about $46 a barrel"),
        ("unicode", "ﬁne　print", "fine print"),
        ("whitespace", " a \n b\t", "a b"),
        ("urls", "see http://www.ft.com/x?y=1 now", "see   now"),
        ("urls", "<www.investor.reuters.com/FullQuote.aspx> up", "  up"),
        ("agency-prefix", "LONDON (Reuters) - Oil fell", "Oil fell"),
        ("agency-prefix", "NEW YORK, Aug. 3 (AP) -- A thing", "A thing"),
        ("agency-prefix", "(Reuters) Reuters - Short-sellers", "Short-sellers"),
        ("agency-prefix", "AP - Dogs run", "Dogs run"),
        ("agency-prefix", "Bears Claw Back (Reuters) Reuters - Short", "Bears Claw Back Short"),
        ("agency-prefix", "The (Reuters) building is tall", "The (Reuters) building is tall"),
        ("stop-words", "The bank is on the river", "bank river"),
        ("punctuation", "wait, what? it's_so", "wait  what  it s so"),
    ],
)
def test_a_step_does_what_it_says(step: str, before: str, after: str) -> None:
    cleaned = cleaner([step])(before)
    assert cleaned.startswith(after) if step == "html-entities" else cleaned == after


def test_stemming_gives_stems() -> None:
    pytest.importorskip("nltk")
    assert cleaner(["stemming"])("Running, connections") == "Run, connect"


def test_lemmatization_without_wordnet_is_an_error_that_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    pytest.importorskip("nltk")
    from pennyweight.data import clean, wordnet

    monkeypatch.setenv("PENNYWEIGHT_WORDNET", str(tmp_path))
    for cached in (clean._lemmatizer, wordnet.open_wordnet):
        cached.cache_clear()
    with pytest.raises(
        DataError, match=r"WordNet is not in this directory; install Debian's wordnet-base"
    ):
        cleaner(["lemmatization"])("geese")


@given(st.text(max_size=80), st.lists(st.sampled_from(PLAIN), max_size=4))
def test_any_text_passes_any_steps_and_whitespace_is_idempotent(
    text: str, names: list[str]
) -> None:
    collapse = cleaner(["whitespace"])
    once = collapse(cleaner(names)(text))
    assert collapse(once) == once


def test_steps_run_in_the_given_order() -> None:
    assert cleaner(["html-entities", "html-tags", "whitespace"])("&lt;b&gt;a&lt;/b&gt;") == "a"
    assert (
        cleaner(["html-tags", "html-entities", "whitespace"])("&lt;b&gt;a&lt;/b&gt;") == "<b>a</b>"
    )
