"""The pickle reader: good pickles read back, and hostile ones do no harm."""

from __future__ import annotations

import copyreg
import os
import pickle
import struct
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import datasets
import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, Value, concatenate_datasets
from hypothesis import given, settings
from hypothesis import strategies as st

from pennyweight.data.read import open_file
from pennyweight.errors import DataError, PennyweightError, UnsafePickleError

if TYPE_CHECKING:
    from collections.abc import Callable

TEXTS = ["one", "zwei ß", "", None, "line\nbreak", "six"]
LABELS = [0, 1, 2, 0, 1, 2]
PLAIN = Dataset.from_dict({"text": TEXTS, "label": LABELS})
TYPED = PLAIN.cast(
    Features({"text": Value("large_string"), "label": ClassLabel(names=["a", "b", "c"])})
)
NUMBERS = Dataset.from_dict({"text": ["a", "b"], "n": [1.5, None], "ok": [True, False]})


def saved(folder: Path, content: bytes) -> Path:
    path = folder / "rows.pkl"
    path.write_bytes(content)
    return path


def read_values(path: Path) -> list[dict[str, object]]:
    return [dict(record.values or {}) for record in open_file(path, format="pickle").records(None)]


def shuffled() -> Dataset:
    return Dataset.from_dict({"text": [f"row {i}" for i in range(3000)]}).shuffle(seed=1)


DATASETS: dict[str, Callable[[], Dataset]] = {
    "plain": lambda: PLAIN,
    "selected": lambda: PLAIN.select([4, 0, 0, 2]),
    "sliced": lambda: PLAIN.select(range(2, 5)),
    "shuffled": shuffled,
    "chunks": lambda: concatenate_datasets([PLAIN, PLAIN.select([1]), PLAIN]),
    "chunks shuffled": lambda: concatenate_datasets([PLAIN] * 3).shuffle(seed=2),
    "shuffled chunks": lambda: concatenate_datasets([PLAIN.shuffle(seed=3), PLAIN]),
    "side by side": lambda: concatenate_datasets(
        [PLAIN, Dataset.from_dict({"more": list("abcdef")})], axis=1
    ),
    "missing column": lambda: concatenate_datasets([PLAIN, Dataset.from_dict({"text": ["x"]})]),
    "large strings and classes": lambda: TYPED,
    "numbers and truth values": lambda: NUMBERS,
    "no rows": lambda: Dataset.from_dict({"text": [], "label": []}),
    "named split": lambda: Dataset.from_dict({"text": ["a"]}, split=datasets.Split.TEST),
}


@pytest.mark.parametrize("name", DATASETS)
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickled_dataset_reads_back(tmp_path: Path, name: str, protocol: int) -> None:
    dataset = DATASETS[name]()
    path = saved(tmp_path, pickle.dumps(dataset, protocol=protocol))

    assert read_values(path) == dataset.to_list()
    assert open_file(path, format="pickle").columns == tuple(dataset.column_names)


def test_class_names_are_read_from_the_pickle(tmp_path: Path) -> None:
    path = saved(tmp_path, pickle.dumps(TYPED))

    assert open_file(path).class_names == {"label": ("a", "b", "c")}


def test_the_competition_pickle_equals_its_csv(shared_data: Path) -> None:
    folder = shared_data / "competition"

    pickled = [values["text"] for values in read_values(folder / "test_unlabelled.pkl")]
    written = [
        (record.values or {})["text"]
        for record in open_file(folder / "test_unlabelled.csv").records(None)
    ]

    assert len(pickled) == 8000
    assert pickled == written


# Pickles that must be refused. Each writes the file `sentinel` if its code is executed.


class Calls:
    """Pickles as a call of a function with arguments."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def named_call(module: str, name: str, argument: str) -> bytes:
    """A call in protocol 4, where STACK_GLOBAL resolves dots in the name as attributes."""
    return b"\x80\x04" + text(module) + text(name) + b"\x93" + text(argument) + b"\x85R."


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def hostile(sentinel: Path) -> dict[str, tuple[bytes, str]]:
    """Return hostile pickles by name, each with a text that its error must contain."""
    touch = f"touch {sentinel}"
    code = f"open({str(sentinel)!r}, 'w').close()"
    inside = pickle.dumps(Calls(os.system, touch))[2:-1]
    return {
        "os.system": (pickle.dumps(Calls(os.system, touch)), "system"),
        "os.system, protocol 0": (pickle.dumps(Calls(os.system, touch), protocol=0), "system"),
        "eval": (pickle.dumps(Calls(eval, code)), "builtins.eval"),
        "exec": (pickle.dumps(Calls(exec, code)), "builtins.exec"),
        "getattr": (pickle.dumps(Calls(getattr, "text", "upper")), "builtins.getattr"),
        "an attribute of an admitted module": (
            named_call("datasets.arrow_dataset", "os.system", touch),
            "datasets.arrow_dataset.os.system",
        ),
        "an attribute of an admitted class": (
            named_call("datasets.arrow_dataset", "Dataset.from_csv", touch),
            "datasets.arrow_dataset.Dataset.from_csv",
        ),
        "INST": (b"(S'" + touch.encode() + b"'\nios\nsystem\n.", "STRING"),
        "INST of a text": (b"(" + text(touch) + b"ios\nsystem\n.", "INST"),
        "OBJ": (b"(cos\nsystem\n" + text(touch) + b"o.", "os.system"),
        "inside a dataset's state": (
            b"\x80\x04cdatasets.arrow_dataset\nDataset\n)\x81}" + text("_data") + inside + b"sb.",
            "system",
        ),
        "numpy": (pickle.dumps(np.array([1, 2])), "numpy"),
        "numpy objects": (pickle.dumps(np.array([Calls(os.system, touch)])), "system"),
        "torch": (
            named_call("torch._utils", "_rebuild_tensor_v2", "x"),
            "torch._utils._rebuild_tensor_v2",
        ),
        "a persistent id": (b"\x80\x04" + text(touch) + b"Q.", "BINPERSID"),
        "a persistent id, protocol 0": (b"Px\n.", "PERSID"),
        "an extension code": (b"\x80\x04\x82\xf0)R.", "EXT1"),
        "an out-of-band buffer": (b"\x80\x05\x97.", "NEXT_BUFFER"),
        "a memory-mapped dataset": (
            named_call("datasets.table", "MemoryMappedTable", "x"),
            "datasets.table.MemoryMappedTable: its rows are in files",
        ),
        "a dict of datasets": (
            pickle.dumps(datasets.DatasetDict({"train": PLAIN})),
            "datasets.dataset_dict.DatasetDict: it has several splits",
        ),
        "a nested column": (
            pickle.dumps(Dataset.from_dict({"text": ["a"], "tokens": [[1]]})),
            "datasets.features.features.List",
        ),
        "gigabytes of zeros": (b"cbuiltins\nbytearray\n(J\xff\xff\xff\x7ftR.", "creates bytes"),
        "a key that takes forever to hash": (
            b"}" + b")" + b"q\x00h\x00\x86" * 64 + b"Ns.",
            "dict key that is not a string",
        ),
        "an append to a class": (b"cdatasets.arrow_dataset\nDataset\nNa.", "not a list"),
        "an item of a class": (b"cdatasets.arrow_dataset\nDataset\nNNs.", "not a dict"),
        "the state of a class": (b"cdatasets.arrow_dataset\nDataset\n}b.", "did not create"),
        "a call of a text": (text("x") + b")R.", "calls something that is not a global name"),
        "a plain value": (pickle.dumps({"text": ["a"]}), "has dict"),
    }


@pytest.mark.parametrize("name", hostile(Path("sentinel")))
def test_a_hostile_pickle_is_refused_by_name_and_none_of_its_code_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    sentinel = tmp_path / "sentinel"
    # An unpickler would look an extension code up here, bypassing every check of names.
    monkeypatch.setitem(copyreg._inverted_registry, 0xF0, ("os", "getcwd"))  # type: ignore[attr-defined]
    content, expected = hostile(sentinel)[name]
    path = saved(tmp_path, content)

    with pytest.raises(UnsafePickleError) as caught:
        read_values(path)

    assert expected in str(caught.value)
    assert str(caught.value).endswith("no code in it was executed")
    assert "\n" not in str(caught.value)
    assert not sentinel.exists()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b".",
        b"N",
        b"\x80\x04N",
        b"N.",
        b"a.",
        b"t.",
        b"h\x05.",
        b"\x80\x04NN.",
        b"(N.",
        b"X\xff\xff\xff\xffabc.",
        b"\x8e\xff\xff\xff\xff\xff\xff\xff\x7fabc.",
        b"\x96\xff\xff\xff\xff\xff\xff\xff\x7fabc.",
        b"I" + b"9" * 5000 + b"\n.",
        b"X\x01\x00\x00\x00\xff.",
    ],
)
def test_a_damaged_pickle_is_a_data_error(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(DataError):
        read_values(saved(tmp_path, content))


def test_an_invalid_escape_in_a_name_is_refused_without_a_warning(tmp_path: Path) -> None:
    with pytest.raises(PennyweightError):
        read_values(saved(tmp_path, b"\x80\x02c\\where\nDataset\n."))


def test_a_memo_index_allocates_nothing(tmp_path: Path) -> None:
    with pytest.raises(UnsafePickleError, match="has NoneType"):
        read_values(saved(tmp_path, b"Nr\xff\xff\xff\x7f."))


def test_nesting_of_any_depth_is_refused_without_a_crash(tmp_path: Path) -> None:
    with pytest.raises(UnsafePickleError, match="has tuple"):
        read_values(saved(tmp_path, b")" + b"\x85" * 200_000 + b"."))


def test_too_many_opcodes_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pennyweight.data.read.opcodes._MAX_OPCODES", 1000)
    with pytest.raises(UnsafePickleError, match="more than 1,000 opcodes"):
        read_values(saved(tmp_path, b"N0" * 600 + b"N."))


# Buffers that do not match: pickled datasets with one of their numbers or buffers changed.


def offsets(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}i", *values)


def test_offsets_beyond_the_text_are_refused(tmp_path: Path) -> None:
    content = pickle.dumps(Dataset.from_dict({"text": ["aa", "bbb", "cccc"]}))
    original = offsets(0, 2, 5, 9)
    assert content.count(original) == 1

    for wrong in (offsets(0, 2, 5, 2**30), offsets(0, -9, 5, 9), offsets(0, 7, 5, 9)):
        with pytest.raises(DataError):
            read_values(saved(tmp_path, content.replace(original, wrong)))


def test_a_row_index_out_of_bounds_is_refused(tmp_path: Path) -> None:
    content = pickle.dumps(Dataset.from_dict({"text": list("abc")}).select([2, 0]))
    original = struct.pack("<2Q", 2, 0)
    assert content.count(original) == 1

    for wrong in (3, 2**63):
        with pytest.raises(DataError, match="points beyond the 3 rows"):
            read_values(saved(tmp_path, content.replace(original, struct.pack("<2Q", wrong, 0))))


def test_more_rows_than_the_file_can_contain_are_refused(tmp_path: Path) -> None:
    content = pickle.dumps(Dataset.from_dict({"none": [None] * 200}))
    original = b"K\xc8K\xc8"
    assert content.count(original) == 1

    wrong = b"\x8a\x07" + (2**50).to_bytes(7, "little")
    with pytest.raises(DataError, match="longer than the file can contain"):
        read_values(saved(tmp_path, content.replace(original, wrong * 2)))


def test_a_text_that_is_not_utf8_is_one_bad_row(tmp_path: Path) -> None:
    content = pickle.dumps(Dataset.from_dict({"text": ["one", "cafe", "two"]}))
    path = saved(tmp_path, content.replace(b"cafe", b"caf\xe9"))

    read = list(open_file(path).records(None))

    assert [record.problem is None for record in read] == [True, False, True]


MUTATED = [
    pickle.dumps(PLAIN, protocol=4),
    pickle.dumps(PLAIN.select([4, 0]), protocol=5),
    pickle.dumps(concatenate_datasets([TYPED, TYPED]).shuffle(seed=1), protocol=2),
    pickle.dumps(NUMBERS, protocol=0),
]
CHANGES = st.lists(
    st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 3), st.binary(max_size=4)),
    min_size=1,
    max_size=4,
)


@settings(max_examples=400)
@given(base=st.sampled_from(MUTATED), changes=CHANGES)
def test_a_mutated_pickle_gives_rows_or_a_pennyweight_error(
    base: bytes, changes: list[tuple[float, int, bytes]]
) -> None:
    content = base
    for place, removed, inserted in changes:
        at = int(place * len(content))
        content = content[:at] + inserted + content[at + removed :]
    problem = ""
    with tempfile.TemporaryDirectory() as folder:
        try:
            read_values(saved(Path(folder), content))
        except PennyweightError as error:
            problem = str(error)
    assert "\n" not in problem


@settings(max_examples=200)
@given(content=st.binary(max_size=200))
def test_random_bytes_raise_a_pennyweight_error(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.raises(PennyweightError):
        read_values(saved(Path(folder), content))
