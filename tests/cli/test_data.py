"""`pennyweight data`: its commands end to end on the sample, and its errors in one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pennyweight.errors import PennyweightError
from pennyweight.lab.manifest import read_derived

Run = Callable[..., str]


@pytest.fixture
def run(pennyweight: Run) -> Run:
    return lambda *arguments: pennyweight("data", *arguments)


def test_preview_shows_before_and_after(run: Run) -> None:
    output = run("preview", "demo", "--rows", "2", "--set", 'data.clean=["punctuation"]')
    assert "before" in output
    assert "after" in output
    assert "no text is changed" in run("preview", "demo", "--set", "data.clean=[]")


def test_clean_filter_and_augment_write_parquet_with_a_manifest(run: Run, tmp_path: Path) -> None:
    assert "852 rows" in run("clean", "demo", "--out", str(tmp_path / "clean.parquet"))
    assert read_derived(tmp_path / "clean.parquet").manifest["rows"] == 852
    step = 'data.filters=[{method="length", shortest=20}]'
    run("filter", "demo", "--set", step, "--out", str(tmp_path / "kept.parquet"))
    kept = pq.read_table(tmp_path / "kept.parquet").column("text").to_pylist()
    assert min(len(text.split()) for text in kept) >= 20
    removed = (tmp_path / "kept" / "removed" / "01-length.jsonl").read_text().splitlines()
    assert len(kept) + len(removed) <= 852
    step = 'data.augmentations=[{method="swap"}]'
    run("augment", "demo", "--set", step, "--out", str(tmp_path / "made.parquet"))
    copies = read_derived(tmp_path / "made.parquet")
    assert copies.manifest["augmentations"][0]["method"] == "swap"
    assert 0 < copies.rows.num_rows <= 852


def test_overlap_counts_every_pair_of_sets(run: Run) -> None:
    pairs = json.loads(run("overlap", "demo", "--json"))
    assert {"rows_of": "train", "found_in": "test"}.items() <= pairs[1].items()
    assert len(pairs) == 6


@pytest.mark.parametrize("rule", ["remove", "refuse"])
def test_overlap_counts_rows_that_training_would_remove_or_refuse(
    run: Run, tmp_path: Path, rule: str
) -> None:
    rows = [(f"{word} number {n} of the news", n % 4) for n, word in enumerate("abcdefgh" * 6)]
    for name, part in (("train", rows), ("test", [rows[3], ("quite another text here", 1)])):
        lines = "".join(f"{text},{label}\n" for text, label in part)
        (tmp_path / f"{name}.csv").write_text(f"text,label\n{lines}")
    settings = [f"data.train={tmp_path}/train.csv", f"evaluate.test={tmp_path}/test.csv",
                f"data.overlap={rule}"]  # fmt: skip
    flags = [part for setting in settings for part in ("--set", setting)]
    pairs = json.loads(run("overlap", "demo", *flags, "--json"))
    exact = {(pair["rows_of"], pair["found_in"]): pair["exact"] for pair in pairs}
    assert exact["train", "test"] + exact["validation", "test"] == 1


def test_a_language_model_writes_rows_that_pass_the_gates(
    run: Run, language_model: Path, tmp_path: Path
) -> None:
    settings = [f"generate.model={language_model}", "generate.per_class=6", "generate.longest=30",
                "generate.epochs=0.3", "generate.gates.confidence=0.1",
                "data.target=sample:shifted"]  # fmt: skip
    flags = [part for setting in settings for part in ("--set", setting)]
    out = tmp_path / "texts.parquet"
    manifest = json.loads(run("generate", "demo", *flags, "--out", str(out), "--json"))
    assert manifest["written"] == 24
    assert manifest["rows"] + sum(manifest["rejected"].values()) == 24
    rows = read_derived(out).rows
    assert {"text", "label", "prompt", "seed", "temperature"} <= set(rows.column_names)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["clean", "demo", "--out", "rows.csv"], "end the name with .parquet"),
        (["augment", "demo", "--out", "rows.parquet"], "data.augmentations: empty"),
        (["generate", "demo", "--out", "rows.parquet"], r"no \[generate\] section"),
        (["clean", "quickstart", "--out", "rows.parquet"], "data.train: missing"),
        (["preview", "demo", "--set", "data.clean=['shouting']"], 'no cleaning step "shouting"'),
    ],
)
def test_a_mistake_is_refused(run: Run, arguments: list[str], message: str) -> None:
    with pytest.raises(PennyweightError, match=message):
        run(*arguments)
