"""`pennyweight data`: its verbs end to end on the sample, and their mistakes in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from pennyweight.cli.main import app
from pennyweight.errors import PennyweightError
from pennyweight.lab.manifest import read_made


def _run(*arguments: str) -> str:
    found = CliRunner().invoke(app, ["data", *arguments])
    if found.exception is not None and not isinstance(found.exception, SystemExit):
        raise found.exception
    assert found.exit_code == 0, found.output
    return str(found.stdout)


def test_preview_shows_before_and_after() -> None:
    shown = _run("preview", "demo", "--rows", "2", "--set", 'data.clean=["punctuation"]')
    assert "before" in shown
    assert "after" in shown
    assert "no text is changed" in _run("preview", "demo", "--set", "data.clean=[]")


def test_clean_filter_and_augment_write_parquet_with_a_manifest(tmp_path: Path) -> None:
    assert "852 rows" in _run("clean", "demo", "--out", str(tmp_path / "clean.parquet"))
    assert read_made(tmp_path / "clean.parquet").manifest["rows"] == 852
    step = 'data.filters=[{method="length", shortest=20}]'
    _run("filter", "demo", "--set", step, "--out", str(tmp_path / "kept.parquet"))
    kept = pq.read_table(tmp_path / "kept.parquet").column("text").to_pylist()
    assert min(len(text.split()) for text in kept) >= 20
    removed = (tmp_path / "kept" / "removed" / "01-length.jsonl").read_text().splitlines()
    assert len(kept) + len(removed) <= 852
    step = 'data.augmentations=[{method="swap"}]'
    _run("augment", "demo", "--set", step, "--out", str(tmp_path / "made.parquet"))
    made = read_made(tmp_path / "made.parquet")
    assert made.manifest["augmentations"][0]["method"] == "swap"
    assert 0 < made.rows.num_rows <= 852


def test_overlap_counts_every_pair_of_sets() -> None:
    found = json.loads(_run("overlap", "demo", "--json"))
    assert {"rows_of": "train", "found_in": "test"}.items() <= found[1].items()
    assert len(found) == 6


@pytest.mark.parametrize("rule", ["remove", "refuse"])
def test_overlap_tells_of_rows_that_training_would_not_take(tmp_path: Path, rule: str) -> None:
    rows = [(f"{word} number {n} of the news", n % 4) for n, word in enumerate("abcdefgh" * 6)]
    for name, part in (("train", rows), ("test", [rows[3], ("quite another text here", 1)])):
        lines = "".join(f"{text},{label}\n" for text, label in part)
        (tmp_path / f"{name}.csv").write_text(f"text,label\n{lines}")
    settings = [f"data.train={tmp_path}/train.csv", f"evaluate.test={tmp_path}/test.csv",
                f"data.overlap={rule}"]  # fmt: skip
    flags = [part for setting in settings for part in ("--set", setting)]
    found = json.loads(_run("overlap", "demo", *flags, "--json"))
    exact = {(pair["rows_of"], pair["found_in"]): pair["exact"] for pair in found}
    assert exact["train", "test"] + exact["validation", "test"] == 1


def test_a_language_model_is_trained_and_writes_rows(tmp_path: Path) -> None:
    model = str(tmp_path / "lm")
    sizes = ["--layers", "1", "--width", "32", "--vocabulary", "600", "--epochs", "0.3"]
    _run("language-model", "sample:train", "--out", model, *sizes)
    settings = [f"generate.model={model}", "generate.per_class=6", "generate.longest=30",
                "generate.epochs=0.3", "generate.gates.confidence=0.1",
                "data.target=sample:shifted"]  # fmt: skip
    flags = [part for setting in settings for part in ("--set", setting)]
    told = json.loads(
        _run("generate", "demo", *flags, "--out", str(tmp_path / "g.parquet"), "--json")
    )
    assert told["written"] == 24
    assert told["rows"] + sum(told["died"].values()) == 24
    made = read_made(tmp_path / "g.parquet").rows
    assert {"text", "label", "prompt", "seed", "temperature"} <= set(made.column_names)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["clean", "demo", "--out", "rows.csv"], "end the name with .parquet"),
        (["augment", "demo", "--out", "rows.parquet"], "data.augmentations: empty"),
        (["generate", "demo", "--out", "rows.parquet"], r"no \[generate\] section"),
        (["clean", "quickstart", "--out", "rows.parquet"], "data.train: missing"),
        (["preview", "demo", "--set", "data.clean=['shouting']"], 'no cleaning step "shouting"'),
    ],
)
def test_mistakes_are_told(arguments: list[str], said: str) -> None:
    with pytest.raises(PennyweightError, match=said):
        _run(*arguments)
