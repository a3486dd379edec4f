"""Texts that are written differently are told apart, and texts that are not are left together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pennyweight.errors import RunError
from pennyweight.lab.populations import Separation, TextDiscriminator, density_ratios, separate
from tiny import news

_WORDS = ["market", "game", "minister", "chip", "team", "profit", "vote", "score", "oil", "court"]
_ODD = ["synergy", "revolutionize", "leverage", "landscape", "delve", "tapestry", "robust"]


def _texts(count: int, *, seed: int, words: list[str]) -> list[str]:
    generator = np.random.default_rng(seed)
    return [" ".join(generator.choice(words, size=12)) for _ in range(count)]


@pytest.fixture(scope="module")
def mixture() -> tuple[Separation, list[str], list[str]]:
    """Return a separation of a target of which half is written like the training texts."""
    like, unlike = _texts(200, seed=1, words=_WORDS), _texts(200, seed=2, words=_WORDS + _ODD)
    training = _texts(600, seed=3, words=_WORDS)
    return separate(training, [*like, *unlike], seed=0), like, unlike


def _share(separation: Separation, texts: list[str]) -> float:
    assert separation.discriminator is not None
    return float((separation.discriminator.scores(texts) > 0.0).mean())


def test_the_part_of_a_target_that_is_written_differently_is_found(
    mixture: tuple[Separation, list[str], list[str]],
) -> None:
    separation, like, unlike = mixture
    assert separation.refused is None
    # Half of the target is like the training texts, so an area of 0.75 is the most there can be.
    assert 0.65 < separation.area < 0.85
    assert _share(separation, unlike) > 0.9
    assert _share(separation, like) < 0.15
    assert _share(separation, _texts(300, seed=9, words=_WORDS)) < 0.1


def test_a_target_like_the_training_texts_is_one_population() -> None:
    target = _texts(300, seed=4, words=_WORDS)
    separation = separate(_texts(600, seed=3, words=_WORDS), target, seed=0)
    assert separation.discriminator is None
    assert separation.refused is not None
    assert "cannot be told apart" in separation.refused


def test_few_rows_are_not_separated() -> None:
    separation = separate(_texts(600, seed=3, words=_WORDS), ["a", "b"], seed=0)
    assert separation.refused == "fewer than 20 training or target rows"


def test_the_same_seed_gives_the_same_discriminator() -> None:
    training = _texts(300, seed=3, words=_WORDS)
    target = _texts(100, seed=5, words=_WORDS + _ODD)
    first, second = (separate(training, target, seed=7).discriminator for _ in range(2))
    assert first is not None
    assert second is not None
    assert np.array_equal(first.weight, second.weight)
    assert first.intercept == second.intercept


def test_a_saved_discriminator_gives_the_same_scores(
    mixture: tuple[Separation, list[str], list[str]], tmp_path: Path
) -> None:
    separation, like, unlike = mixture
    assert separation.discriminator is not None
    path = tmp_path / "discriminator.safetensors"
    separation.discriminator.save(path)
    assert path.stat().st_size < 600_000
    texts = [*like[:5], *unlike[:5], ""]
    loaded = TextDiscriminator.load(path)
    np.testing.assert_allclose(loaded.scores(texts), separation.discriminator.scores(texts))
    assert loaded.scores([]).shape == (0,)


@pytest.mark.parametrize("content", [b"", b"{}", b"\x08\0\0\0\0\0\0\0{}      "])
def test_a_file_that_is_no_discriminator_is_named(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "discriminator.safetensors"
    path.write_bytes(content)
    with pytest.raises(RunError, match=r"discriminator\.safetensors: cannot be read: "):
        TextDiscriminator.load(path)


def test_the_target_is_denser_at_training_texts_that_are_about_the_same() -> None:
    about_the_same, others = [text for _, text in news(60, seed=3)], ["quasar zoo"] * 60
    target = [text for _, text in news(240, seed=4)]
    ratios = density_ratios([*about_the_same, *others], target, seed=0)
    assert ratios.shape == (120,)
    assert ratios[:60].min() > ratios[60:].max()
