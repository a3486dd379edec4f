"""Every parser reads mutated files with few examples here, and with many by `make fuzz`."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from security.fuzz_targets import TARGETS

_CHANGES = st.lists(
    st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 3), st.binary(max_size=4)),
    max_size=4,
)


def mutated(content: bytes, changes: list[tuple[float, int, bytes]]) -> bytes:
    """Replace bytes at some places, given as fractions of the length."""
    for place, removed, inserted in changes:
        at = int(place * len(content))
        content = content[:at] + inserted + content[at + removed :]
    return content


@pytest.mark.parametrize("name", TARGETS)
def test_a_valid_file_is_read(name: str) -> None:
    target = TARGETS[name]
    for seed in target.seeds:
        assert target.run(seed) == ""


@pytest.mark.parametrize("name", TARGETS)
@settings(max_examples=40)
@given(data=st.data())
def test_a_mutated_file_raises_declared_errors_only(name: str, data: st.DataObject) -> None:
    target = TARGETS[name]
    base = data.draw(st.sampled_from(target.seeds) | st.binary(max_size=60))
    target.run(mutated(base, data.draw(_CHANGES)))
