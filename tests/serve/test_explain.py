"""Leaving words out."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pennyweight.serve.explain import occlusions

_TEXTS = st.text(alphabet=st.sampled_from("ab \t\n\u00e9\U0001f600"), max_size=40)


@given(text=_TEXTS | st.tuples(_TEXTS, _TEXTS), limit=st.integers(2, 12))
def test_every_word_is_left_out_once_within_the_limit(
    text: str | tuple[str, str], limit: int
) -> None:
    parts = [text] if isinstance(text, str) else list(text)
    found = occlusions(text, limit=limit)
    assert len(found) <= limit
    for part, content in enumerate(parts):
        own = [one for one in found if one.part == part]
        words = [word for one in own for word in one.words.split()]
        assert words == content.split()
        for one in own:
            assert content[one.start : one.stop] == one.words
            remaining = [one.text] if isinstance(one.text, str) else list(one.text)
            kept = content[: one.start].split() + content[one.stop :].split()
            assert remaining[part].split() == kept
            assert [*remaining[:part], *remaining[part + 1 :]] == [
                *parts[:part],
                *parts[part + 1 :],
            ]


def test_no_space_remains_where_a_word_was() -> None:
    assert [one.text for one in occlusions("a bb ccc", limit=9)] == ["bb ccc", "a ccc", "a bb"]


def test_long_texts_lose_several_words_at_once() -> None:
    found = occlusions("a b c d e", limit=2)
    assert [one.words for one in found] == ["a b c", "d e"]
    assert [one.text for one in found] == ["d e", "a b c"]
