"""A comparison in words and tables says the same in every format."""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import replace
from pathlib import Path
from shutil import which

import numpy as np
import pytest

from pennyweight.report.comparison import (
    as_json,
    as_latex,
    as_markdown,
    comparison_table,
    conclusions,
    remarks,
)
from pennyweight.search.compare import RunComparison, compare_runs
from runs.finished import noisy_answers, write_run

LABELS = np.array([0, 1] * 150)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runs a_1 (80 % right), b (95 %) and c (80 %)."""
    out = tmp_path_factory.mktemp("compared")
    for number, (name, accuracy) in enumerate((("a_1", 0.8), ("b", 0.95), ("c", 0.8))):
        write_run(
            out / name,
            {"test": (LABELS, noisy_answers(LABELS, accuracy, seed=10 + number))},
            recipe={"name": f"{name} & co", "adapter": {"alpha": 1.0 + number}},
            leaks=("1 row leaks",) if name == "b" else (),
            transductive=("self-training on the target",) if name == "c" else (),
        )
    return out


@pytest.fixture(scope="module")
def three(folder: Path) -> RunComparison:
    return compare_runs([folder / name for name in ("a_1", "b", "c")])


@pytest.fixture(scope="module")
def seeds(folder: Path) -> RunComparison:
    """Two systems, the second with three seeds."""
    for seed in (1, 2, 3):
        answers = noisy_answers(LABELS, 0.81, seed=20 + seed)
        write_run(folder / f"s{seed}", {"test": (LABELS, answers)}, seed=seed)
    return compare_runs([folder / "a_1"], groups={"S": [folder / f"s{n}" for n in (1, 2, 3)]})


def test_words_say_what_can_and_cannot_be_concluded(three: RunComparison) -> None:
    better, undecided = conclusions(three, three.sets[0])
    pattern = (
        r"b & co is better than a_1 & co by \d+\.\d\d points of accuracy \(95% interval of the "
        r"difference \d+\.\d\d to \d+\.\d\d\), Holm-adjusted p < 0\.001\."
    )
    assert re.fullmatch(pattern, better)
    pattern = (
        r"No difference between c & co and a_1 & co can be shown: c & co is \d+\.\d\d points of "
        r"accuracy (above|below) \(95% interval -\d+\.\d\d to \d+\.\d\d\), Holm-adjusted p = "
        r"\d\.\d{3}\. With these rows, a true difference of \d+\.\d\d points would be missed in 1 "
        r"of 5 comparisons, and smaller ones more often\."
    )
    assert re.fullmatch(pattern, undecided)


def test_a_worse_system_is_called_worse_and_a_single_comparison_is_not_adjusted(
    folder: Path,
) -> None:
    result = compare_runs([folder / "b", folder / "a_1"])
    (line,) = conclusions(result, result.sets[0])
    assert line.startswith("a_1 & co is worse than b & co by ")
    assert "), p < 0.001." in line
    header, rows = comparison_table(result, result.sets[0])
    assert header == ("system", "runs", "accuracy", "difference (95%)", "p", "detectable")
    assert {len(row) for row in rows} == {len(header)}
    assert rows[0][3:] == ("", "", "")


def test_systems_with_seeds_have_their_spread_in_the_table_and_no_warning_about_single_runs(
    seeds: RunComparison, three: RunComparison
) -> None:
    _, rows = comparison_table(seeds, seeds.sets[0])
    assert re.fullmatch(r"\d+\.\d\d \(sd \d\.\d\d\)", rows[0][2])
    text = " ".join(remarks(seeds))
    assert "t-test over rows and seeds" in text
    assert "a_1 & co: a single run shows no variance over seeds" in text
    assert "Two single runs" not in text
    assert "these rows and seeds" in " ".join(conclusions(seeds, seeds.sets[0]))
    single = " ".join(remarks(three))
    assert "Two single runs: McNemar's test (mid-p)" in single
    assert "adjusted by Holm's method" in single


def test_leaks_transductive_use_and_sets_left_out_are_remarked(three: RunComparison) -> None:
    lines = remarks(three)
    assert "LEAKS: b & co: 1 row leaks; its results may be too good." in lines
    assert any(line.startswith("TRANSDUCTIVE: c & co: self-training on the") for line in lines)


def test_validation_is_said_to_be_too_good(three: RunComparison) -> None:
    compared = replace(three.sets[0], is_validation=True)
    assert "judge systems by a test" in conclusions(three, compared)[-1]


def test_json_is_versioned_and_has_numbers_and_words(three: RunComparison) -> None:
    values = json.loads(as_json(three))
    assert values["schema_version"] == 1
    assert values["reference"] == "a_1 & co"
    (test,) = values["sets"]
    assert [pair["verdict"] for pair in test["comparisons"]] == ["better", "undecided"]
    assert test["comparisons"][0]["difference"]["value"] == (
        three.sets[0].comparisons[0].difference.value
    )
    assert test["conclusions"] == conclusions(three, three.sets[0])
    assert values["remarks"] == remarks(three)


def test_markdown_has_one_table_row_for_each_system(three: RunComparison) -> None:
    lines = as_markdown(three).splitlines()
    table = [line for line in lines if line.startswith("|")]
    assert table[0].startswith("| system | runs | accuracy | difference (95%) | p | Holm p |")
    assert [line.split(" | ")[0] for line in table[2:]] == ["| a\\_1 & co", "| b & co", "| c & co"]
    assert {line.count("|") for line in table} == {8}


def test_latex_uses_booktabs_and_escapes_names(three: RunComparison, tmp_path: Path) -> None:
    source = as_latex(three)
    for rule in (r"\toprule", r"\midrule", r"\bottomrule"):
        assert source.count(rule) == 1
    assert r"a\_1 \& co & 1 & " in source
    assert r"95\%" in source
    assert source.count("{") == source.count("}")
    assert "$-$" in source
    if which("pdflatex") is None:
        return
    document = rf"\documentclass{{article}}\usepackage{{booktabs}}\begin{{document}}{source}"
    (tmp_path / "x.tex").write_text(document + "\n\\end{document}\n")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "x.tex"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
