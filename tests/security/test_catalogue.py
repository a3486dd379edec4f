"""A catalogue of hostile files: none runs code, reads a file outside, or costs much."""

from __future__ import annotations

import builtins
from typing import Any

import pytest

from pennyweight.errors import PennyweightError
from security.guard import watching
from security.hostile import (
    ARCHIVES,
    PICKLES,
    RECIPES,
    RECORDS,
    SECRET,
    Attack,
    Place,
    _rows,
)
from security.hostile_models import ADAPTERS, BASES, TOKENIZERS

_CATALOGUE: dict[str, Attack] = {
    **{
        f"pickle: {name}": lambda place, build=build: _rows(place.write("rows.pkl", build(place)))
        for name, build in PICKLES.items()
    },
    **{f"adapter: {name}": attack for name, attack in ADAPTERS.items()},
    **{f"base: {name}": attack for name, attack in BASES.items()},
    **{f"tokenizer: {name}": attack for name, attack in TOKENIZERS.items()},
    **{f"recipe: {name}": attack for name, attack in RECIPES.items()},
    **{f"record: {name}": attack for name, attack in RECORDS.items()},
    **{f"archive: {name}": attack for name, attack in ARCHIVES.items()},
}
# Read without what is hostile in them.
_HARMLESS = frozenset(
    {
        "base: a known config with code beside it",
        "base: attention code from the hub",
        "base: an unknown quantization",
        "tokenizer: its own code",
        "tokenizer: a known class with code beside it",
        "tokenizer: a class that is a path",
    }
)
_LONGEST_SECONDS, _LARGEST_BYTES = 10.0, 2**30


@pytest.fixture(autouse=True)
def answers_yes(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    """Answer every question of a library with "y", as `yes | pennyweight ...` does."""
    monkeypatch.setattr(builtins, "input", lambda *_: "y")
    # Where transformers would copy a model's code to, in order to import it.
    monkeypatch.setattr(
        "transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules")
    )
    monkeypatch.syspath_prepend(str(tmp_path / "folder"))


def test_the_catalogue_has_the_promised_size() -> None:
    assert len(_CATALOGUE) >= 80


@pytest.mark.parametrize("name", _CATALOGUE)
def test_a_hostile_file_does_no_harm(place: Place, name: str) -> None:
    message, value = "", ""
    with watching() as watch:
        try:
            value = repr(_CATALOGUE[name](place))
        except PennyweightError as error:
            message = str(error)
    assert not place.marker.exists()
    assert watch.events == []
    # A recipe may name any file to extend; no message repeats what is in it.
    allowed = name == "recipe: extends a private file"
    outside = [path for path in watch.opened if path.startswith(str(place.secret.parent))]
    assert allowed or outside == []
    assert SECRET not in value + message
    assert bool(message) != (name in _HARMLESS), message
    assert "\n" not in message
    assert watch.seconds < _LONGEST_SECONDS
    assert watch.bytes < _LARGEST_BYTES
