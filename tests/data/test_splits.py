"""Splits: sources are checked first, each set is read and hashed once, and overlaps are counted."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest

from pennyweight.data import compare as compare_module
from pennyweight.data import overlap as overlap_module
from pennyweight.data import subset as subset_module
from pennyweight.data.fingerprint import fingerprint_of
from pennyweight.data.overlap import find_overlap
from pennyweight.data.source import Source
from pennyweight.data.splits import (
    OverlapCount,
    OverlapPolicy,
    ReadOptions,
    SetFacts,
    SourceSet,
    SplitOptions,
    Splits,
    check_sources,
    deliver_bad_rows,
    make_splits,
)
from pennyweight.errors import DataError

TEXTS = [f"row number {number} of the training set" for number in range(20)]
POLICY = OverlapPolicy(rule="remove", similarity=0.8)
SPLIT = SplitOptions(validation_fraction=0.2, train_rows=None, seed=0)


def write(path: Path, texts: list[str]) -> Source:
    rows = "".join(f"{number % 2},{text}\n" for number, text in enumerate(texts))
    path.write_text(f"label,text\n{rows}")
    return Source(str(path))


def table_of(*texts: str) -> datasets.Dataset:
    return datasets.Dataset.from_dict({"text": list(texts), "label": [0] * len(texts)})


@pytest.fixture
def sources(tmp_path: Path) -> SourceSet:
    return SourceSet(
        train=write(tmp_path / "train.csv", TEXTS),
        validation=write(tmp_path / "validation.csv", ["one more", "and another"]),
        held_out={"test": write(tmp_path / "test.csv", [TEXTS[3], "something else"])},
    )


@pytest.fixture
def make(cache: Path) -> Callable[..., Splits]:
    """Make splits of a source set with some options changed."""

    def call(
        sources: SourceSet, *, overlap: OverlapPolicy = POLICY, split: SplitOptions = SPLIT
    ) -> Splits:
        read = ReadOptions(("a", "b"), (), "set-aside", cache)
        return make_splits(sources, read=read, split=split, overlap=overlap)

    return call


@pytest.fixture
def count_calls(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any, str], list[Any]]:
    """Record the first argument of every call of a module's function."""

    def record(module: Any, name: str) -> list[Any]:
        calls: list[Any] = []
        function = getattr(module, name)

        def recorded(first: Any, *args: Any, **kwargs: Any) -> Any:
            calls.append(first)
            return function(first, *args, **kwargs)

        monkeypatch.setattr(module, name, recorded)
        return calls

    return record


def test_overlaps_are_counted_once_for_the_same_rows(
    sources: SourceSet,
    make: Callable[..., Splits],
    count_calls: Callable[[Any, str], list[Any]],
    tmp_path: Path,
) -> None:
    counted = count_calls(compare_module, "count_matches")

    first = make(sources)
    again = make(sources)

    assert counted == ["train", "validation"]
    assert first.removed == again.removed == 1
    for one, other in zip(first.overlaps, again.overlaps, strict=True):
        assert one.count() == other.count()
        assert np.array_equal(one.exact_rows, other.exact_rows)
    assert first.sets == again.sets
    changed = replace(
        sources, held_out={"test": write(tmp_path / "other.csv", [TEXTS[3], TEXTS[4]])}
    )
    assert make(changed).removed == 2
    assert counted == ["train", "validation"] * 2


def test_a_set_is_indexed_once_for_all_comparisons(
    sources: SourceSet,
    make: Callable[..., Splits],
    count_calls: Callable[[Any, str], list[Any]],
) -> None:
    indexed = count_calls(compare_module, "TextIndex")

    splits = make(replace(sources, target=sources.held_out["test"]))

    assert sorted(indexed) == ["test", "validation"]
    assert [overlap.count() for overlap in splits.overlaps] == [
        OverlapCount("train", "validation", 0, 0),
        OverlapCount("train", "test", 1, splits.overlaps[1].near),
        OverlapCount("validation", "test", 0, 0),
        OverlapCount("target", "test", 2, 0),
    ]


def test_counts_are_plain_values_for_the_record(
    sources: SourceSet, make: Callable[..., Splits]
) -> None:
    splits = make(sources)

    counts = [asdict(overlap.count()) for overlap in splits.overlaps]
    assert json.loads(json.dumps(counts)) == counts
    facts = {name: asdict(facts) for name, facts in splits.sets.items()}
    assert json.loads(json.dumps(facts)) == facts
    assert splits.sets["test"] == SetFacts(
        source=sources.held_out["test"].location,
        format="csv",
        rows=2,
        rows_set_aside=0,
        bad_rows_file=None,
        fingerprint=fingerprint_of(splits.held_out["test"]),
    )


def test_rows_are_fingerprinted_once(
    sources: SourceSet,
    make: Callable[..., Splits],
    count_calls: Callable[[Any, str], list[Any]],
) -> None:
    fingerprinted = count_calls(subset_module, "fingerprint_of")

    whole = make(sources, overlap=replace(POLICY, rule="keep"))
    # Reading has already computed the fingerprint of a set that is a whole file.
    assert fingerprinted == []

    split_off = make(replace(sources, validation=None))
    assert sorted(map(len, fingerprinted)) == [4, len(split_off.train)]

    for splits in (whole, split_off):
        for name, table in {"train": splits.train, **splits.labelled}.items():
            assert splits.sets[name].fingerprint == fingerprint_of(table)


def test_fingerprints_of_divided_rows_do_not_depend_on_the_format_or_the_cache(
    sources: SourceSet, make: Callable[..., Splits], tmp_path: Path
) -> None:
    sources = replace(sources, validation=None)
    rows = [json.dumps({"text": text, "label": n % 2}) for n, text in enumerate(TEXTS)]
    (tmp_path / "train.jsonl").write_text("\n".join(rows), encoding="utf-8")
    options = replace(SPLIT, train_rows=7)

    first = make(sources, split=options)
    second = make(replace(sources, train=Source(str(tmp_path / "train.jsonl"))), split=options)

    assert len(first.train) == 7
    for name in ("train", "validation", "test"):
        assert first.sets[name].fingerprint == second.sets[name].fingerprint
    other_seed = make(sources, split=replace(options, seed=1))
    assert other_seed.sets["train"].fingerprint != first.sets["train"].fingerprint


def test_every_source_is_checked_before_the_first_is_read(
    sources: SourceSet, make: Callable[..., Splits], cache: Path
) -> None:
    missing = replace(sources, held_out={"shifted": Source("/no/shifted.csv")})

    for call in (lambda: check_sources(missing), lambda: make(missing)):
        with pytest.raises(DataError, match=r"/no/shifted\.csv: no such file"):
            call()
    with pytest.raises(DataError, match=r"/no/target\.csv: no such file"):
        check_sources(replace(sources, target=Source("/no/target.csv")))
    check_sources(sources)
    assert not cache.exists()


def test_bad_rows_stay_in_the_cache_until_they_are_delivered(
    sources: SourceSet, make: Callable[..., Splits], cache: Path, tmp_path: Path
) -> None:
    for name in ("train", "test"):
        with (tmp_path / f"{name}.csv").open("a") as file:
            file.write(f"9,bad row of {name}\n")
    before = set(tmp_path.iterdir())

    splits = make(sources)

    assert set(tmp_path.iterdir()) - before == {cache}
    for name in ("train", "test"):
        file_in_cache = splits.sets[name].bad_rows_file
        assert file_in_cache is not None
        assert Path(file_in_cache).is_relative_to(cache)

    folder = tmp_path / "run" / "bad_rows"
    delivered = deliver_bad_rows(splits, folder)

    assert sorted(folder.iterdir()) == [folder / "test.jsonl", folder / "train.jsonl"]
    for name in ("train", "test"):
        assert delivered.sets[name] == replace(
            splits.sets[name], bad_rows_file=str(folder / f"{name}.jsonl")
        )
        (row,) = (folder / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
        assert json.loads(row)["raw"] == f"9,bad row of {name}\n"
    assert delivered.sets["validation"] == splits.sets["validation"]
    assert delivered.train is splits.train


def test_validation_rows_split_off_share_the_bad_rows_of_the_training_file(
    sources: SourceSet, make: Callable[..., Splits], tmp_path: Path
) -> None:
    with (tmp_path / "train.csv").open("a") as file:
        file.write("9,bad\n")

    delivered = deliver_bad_rows(make(replace(sources, validation=None)), tmp_path / "bad")

    assert list((tmp_path / "bad").iterdir()) == [tmp_path / "bad" / "train.jsonl"]
    assert delivered.sets["validation"].bad_rows_file == delivered.sets["train"].bad_rows_file


def test_bad_rows_that_cannot_be_delivered_are_an_error_of_one_line(
    sources: SourceSet,
    make: Callable[..., Splits],
    tmp_path: Path,
    message: Callable[[Callable[[], object]], str],
) -> None:
    with (tmp_path / "train.csv").open("a") as file:
        file.write("9,bad\n")
    (tmp_path / "run").write_text("a file where a folder should be", encoding="utf-8")
    splits = make(sources)

    text = message(lambda: deliver_bad_rows(splits, tmp_path / "run"))

    assert text.startswith(f"{tmp_path}/run/train.jsonl: cannot write the bad rows: ")


def test_overlapping_training_rows_are_removed_kept_or_refused(
    sources: SourceSet, make: Callable[..., Splits]
) -> None:
    removed = make(sources)
    kept = make(sources, overlap=replace(POLICY, rule="keep"))

    assert TEXTS[3] not in removed.train["text"][:]
    assert (len(removed.train), removed.removed, removed.leaks) == (19, 1, ())
    assert (len(kept.train), kept.removed) == (20, 0)
    assert kept.leaks == (
        "1 rows of train are also in test, so accuracy on test is not a fair measure",
    )
    with pytest.raises(DataError, match=r"data\.overlap: .* also in other sets: 1 in test; set"):
        make(sources, overlap=replace(POLICY, rule="refuse"))


def test_rows_are_drawn_after_overlaps_are_removed_and_keep_their_order(
    sources: SourceSet, make: Callable[..., Splits]
) -> None:
    splits = make(sources, split=replace(SPLIT, train_rows=5))

    texts = splits.train["text"][:]
    assert len(texts) == 5
    assert TEXTS[3] not in texts
    assert texts == sorted(texts, key=TEXTS.index)


def test_a_fraction_that_leaves_a_class_without_training_rows_is_refused(
    sources: SourceSet, make: Callable[..., Splits]
) -> None:
    with pytest.raises(DataError, match=r"data\.validation_fraction: 0\.95 of 20 rows leaves"):
        make(replace(sources, validation=None), split=replace(SPLIT, validation_fraction=0.95))


def test_exact_matches_are_counted_without_sketches(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = table_of("A  text in both sets", "a text in one set only", "something")
    others = {"test": table_of("a text in both SETS", "a text in one set alone")}
    (both,) = find_overlap("train", rows, others, similarity=0.5)

    def refuse(texts: object) -> None:
        raise AssertionError("a sketch was computed")

    monkeypatch.setattr(overlap_module, "sketches_of", refuse)
    monkeypatch.setattr(overlap_module, "sketch_blocks", refuse)
    (exact,) = find_overlap("train", rows, others, similarity=None)

    assert (both.exact, both.near) == (1, 1)
    assert exact.count() == OverlapCount("train", "test", 1, 0)
    assert exact.exact_rows.tolist() == both.exact_rows.tolist() == [0]


def test_rows_are_not_read_when_there_is_no_set_to_look_in(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(text: str) -> None:
        raise AssertionError("a text was read")

    monkeypatch.setattr(overlap_module, "folded", refuse)

    assert find_overlap("train", table_of("a text"), {}, similarity=0.8) == []


def test_the_similarity_has_no_default_besides_the_recipes() -> None:
    with pytest.raises(TypeError, match="similarity"):
        OverlapPolicy(rule="remove")  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="similarity"):
        find_overlap("train", table_of("a"), {})  # type: ignore[call-arg]
