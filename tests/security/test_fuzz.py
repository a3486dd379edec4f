"""Every parser reads mutated files with few examples here, and with many by `make fuzz`."""

from __future__ import annotations

import base64

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


# Inputs that fuzzing found, by target. This Parquet file has a column with damaged statistics, and
# pyarrow ended the process when they were asked for.
_FOUND = {
    "parquet": (
        "UEFSMRUEFR4VIkwVBBUAEgAADzgDAAAAb25lBAAAAHp3ZWkVABUSFRYsFQYVEBUGFQYcNgIoBHp3ZWkYA29uZRERAA"
        "AACSACAAAAAwEDAwIVBBUgFSRMFQQVABIAABA8AAAAAAAAAAABAAAAAAAAABUAFRIVFiwVBhUQFQYVBhwYCAEQAAAA"
        "AAAAGAgAAAAAAAAAABYAKAgBAAAAAAAAABgIAAAAAAAAAAAREQAAAAkgAgAAAAYBAQMCFQQZPDUAGAZzY2hlbWEVBA"
        "AVDCUCGAR0ZXh0JQBMHAAAABUEJQsYBWxhYmVsABYGGRwZLCYAHBUMGTUABhAZGAR0ZXh0FQIWBhaQARaYASZGJggc"
        "NgIoBHp3ZWkYA29uZRERABksFQQVABUCABUAFRAVAgA8Fg4ZBhkmAgQAAAAmABwVBBk1AAYQGRgFbGFiZWwVAhYGFs"
        "wBFtQBJuABJqABHBgIAQAAAAAAAAAYCAAAAAAAAAAAFgAoCAEAAAAAAAAAGAgAAAAAAAAAABERABksFQQVABUCABUA"
        "FRAVAgA8KQYZJgAGAAAAFtwCFgYmCBbsAgAZHBgMQVJST1c6c2NoZW1hGPgBLy8vLy83QUFBQUFRQUFBQUFBQUtBQX"
        "dBQmdBRkFBZ0FDZ0FBQUFBQkJBQU1BQUFBQ0FBSUFBQUFCQUFJQUFBQUJBQUFBQUlBQUFCUUFBQUFCQUFBQU1qLy8v"
        "OEFBQUVDRUFBQUFDQUFBQUFFQUFBQUFBQUFBQVVBQUFCc1lXSmxiQUFBQUFnQURBQUlBQWNBQ0FBQUFBQUFBQUZBQU"
        "FBQUVBQVVBQWdBQmdBSEFBd0FBQUFRQUJBQUFBQUFBQUVGRUFBQUFCd0FBQUFFQUFBQUFBQUFBQVFBQUFCMFpYaDBB"
        "QUFBQUFRQUJBQUVBQUFBQUFBQUFBPT0AGCBwYXJxdWV0LWNwcC1hcnJvdyB2ZXJzaW9uIDI2LjAuMRksHAAAHAAAAC"
        "wCAABQQVIx"
    ),
}


@pytest.mark.parametrize("name", _FOUND)
def test_what_fuzzing_found_is_a_declared_error(name: str) -> None:
    assert TARGETS[name].run(base64.b64decode(_FOUND[name]))
