"""`pennyweight data`: its commands end to end on the sample, and its errors in one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

from pennyweight.data.infer import infer
from pennyweight.data.source import Source
from pennyweight.errors import PennyweightError
from pennyweight.lab.manifest import read_derived
from pennyweight.recipe import load_recipe
from pennyweight.training.data_lab import filter_rows

Run = Callable[..., str]


@pytest.fixture
def run(pennyweight: Run) -> Run:
    return lambda *arguments: pennyweight("data", *arguments)


def test_preview_shows_before_and_after(run: Run) -> None:
    output = run("preview", "demo", "--rows", "2", "--set", 'data.clean=["punctuation"]')
    assert "before" in output
    assert "after" in output
    assert "no text is changed" in run("preview", "demo", "--set", "data.clean=[]")


@pytest.fixture
def tickets(tmp_path: Path) -> Path:
    """A file of 90 rows with unusual columns, one of them without a text."""
    rows = "".join(f"ticket <b>{n}</b> is open,{('bug', 'praise')[n % 2]}\n" for n in range(89))
    (tmp_path / "tickets.csv").write_text(f"message,queue\n{rows},bug\n")
    return tmp_path / "tickets.csv"


def test_preview_infers_what_the_recipe_does_not_set(
    run: Run, tickets: Path, tmp_path: Path
) -> None:
    (tmp_path / "mine.toml").write_text(
        f'[data]\ntrain = "{tickets}"\nclean = ["html-tags"]\non_bad_row = "set-aside"\n'
    )

    output = run("preview", str(tmp_path / "mine.toml"), "--rows", "1")

    assert 'text: column "message"; label: column "queue"; 90 rows' in output
    assert "task: single-label; 2 labels, sorted as text: bug (46), praise (44)" in output
    assert 'the text is read from the column "message"' in output
    assert "ticket  0  is open" in output


def test_preview_shows_both_texts_of_a_pair(run: Run, tmp_path: Path) -> None:
    (tmp_path / "pairs.csv").write_text("premise,hypothesis,label\n<b>x,y,1\n<i>z,<u>w,0\n")
    settings = [f"data.train={tmp_path}/pairs.csv", 'data.labels=["0", "1"]',
                'data.clean=["html-tags"]']  # fmt: skip
    output = run("preview", "quickstart", *(f"--set={setting}" for setting in settings))

    assert 'pair of texts: columns "premise", "hypothesis"' in output
    assert all(text in output for text in ("<b>x", "<i>z", "<u>w"))


def test_rows_that_are_left_out_or_set_aside_are_counted(
    run: Run, tickets: Path, tmp_path: Path
) -> None:
    settings = [f"data.train={tickets}", 'data.labels=["bug", "praise"]',
                "data.on_bad_row=set-aside", "data.validation_fraction=0.1"]  # fmt: skip
    flags = [f"--set={setting}" for setting in settings]
    plain = [flag for flag in flags if "on_bad_row" not in flag]
    out = ["--out", str(tmp_path / "clean.parquet")]
    cleaned = run("clean", "quickstart", *plain, "--skip-bad-rows", *out)
    assert cleaned.startswith("89 rows in ")
    assert "1 bad row is set aside and not among them" in cleaned

    lines: list[str] = []
    recipe = load_recipe("quickstart", overrides=settings)
    manifest = filter_rows(recipe, out=tmp_path / "kept.parquet", log=lines.append)

    assert (manifest["rows"], manifest["set_aside"]) == (80, 1)
    assert "left out before the filters: 9 rows that are split off for validation" in lines[-2]
    assert lines[-1].startswith("data.filters: empty, so no other row is left out; add one")


def test_clean_keeps_pairs_and_several_labels(run: Run, tmp_path: Path) -> None:
    (tmp_path / "pairs.csv").write_text("premise,hypothesis,label\nx,y,b|a\nz,w,a\n")
    settings = [f"data.train={tmp_path}/pairs.csv", 'data.labels=["a", "b"]',
                "data.task=multi-label", "data.label_separator=|"]  # fmt: skip
    flags = [f"--set={setting}" for setting in settings]

    run("clean", "quickstart", *flags, "--out", str(tmp_path / "clean.parquet"))

    assert read_derived(tmp_path / "clean.parquet").rows.to_pylist() == [
        {"text": "x", "text_pair": "y", "label": [0, 1]},
        {"text": "z", "text_pair": "w", "label": [0]},
    ]


def test_the_names_of_the_classes_are_in_the_file(run: Run, tmp_path: Path) -> None:
    rows = "".join(f"text {number},{number % 5 + 1}\n" for number in range(60))
    (tmp_path / "stars.csv").write_text(f"text,label\n{rows}")
    out = tmp_path / "clean.parquet"

    run("clean", "--data", str(tmp_path / "stars.csv"), "--out", str(out))

    assert read_derived(out).manifest["labels"] == ["1", "2", "3", "4", "5"]
    inferred = infer(Source(str(out)))
    assert (inferred.labels, inferred.counts) == (("1", "2", "3", "4", "5"), (12,) * 5)


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
                'generate.adaptation={method="lora", epochs=0.3}', "generate.gates.confidence=0.1",
                "data.target=sample:shifted"]  # fmt: skip
    flags = [part for setting in settings for part in ("--set", setting)]
    out = tmp_path / "texts.parquet"
    manifest = json.loads(run("generate", "demo", *flags, "--out", str(out), "--json"))
    assert manifest["written"] == 24
    assert manifest["rows"] + sum(manifest["rejected"].values()) == 24
    rows = read_derived(out).rows
    assert {"text", "label", "prompt", "seed", "temperature"} <= set(rows.column_names)


@pytest.mark.parametrize("step", ["clean", "filter"])
def test_a_file_of_the_recipe_is_not_replaced(run: Run, tmp_path: Path, step: str) -> None:
    rows = tmp_path / "rows.parquet"
    pd.DataFrame({"text": ["a", "b"] * 9, "label": ["x", "y"] * 9, "id": range(18)}).to_parquet(
        rows
    )
    before = rows.read_bytes()
    with pytest.raises(PennyweightError, match="a file of the recipe, which stays as it is"):
        run(step, "--data", str(rows), "--out", str(rows))
    assert rows.read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["clean", "demo", "--out", "rows.csv"], "end the name with .parquet"),
        (["augment", "demo", "--out", "rows.parquet"], "data.augmentations: empty"),
        (["generate", "demo", "--out", "rows.parquet"], r"no \[generate\] section"),
        (["clean", "quickstart", "--out", "rows.parquet"], "data.train: missing"),
        (["overlap", "quickstart"], "data.train: missing"),
        (["preview", "quickstart"], "data.train: missing"),
        (["preview", "demo", "--set", "data.clean=['shouting']"], 'no cleaning step "shouting"'),
    ],
)
def test_a_mistake_is_refused(run: Run, arguments: list[str], message: str) -> None:
    with pytest.raises(PennyweightError, match=message):
        run(*arguments)
