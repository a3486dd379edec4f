"""A report says what the records say, fits its pages and geometry, and refuses with a reason."""

from __future__ import annotations

import json
import re
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from pennyweight.cli.main import app
from pennyweight.errors import ReportError, RunError
from pennyweight.report.content import Figure, Table, Text, make_content
from pennyweight.report.facts import compare_runs, load_facts
from pennyweight.report.figures import FIGURES, draw, write_figures
from pennyweight.report.prose import load_prose
from pennyweight.report.typeset import latex, typst_source, write_pdf
from pennyweight.report.write import Paper, write_report
from pennyweight.runs.record import load_record

pytest.importorskip("typst")
PROSE = """# Overview

Our *own* words with `code`, 50 % and a_b # $x$.

# Related work

- one **strong** item
- another

# Lessons

What we learned.
"""


@pytest.fixture(scope="module")
def report(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("report")
    prose = out / "prose.md"
    prose.write_text(PROSE)
    paper = Paper("Title & more", ("A. One", "B. Two"), "https://example.org/x_y", prose)
    write_report([finished / "one", finished / "other"], out=out, paper=paper)
    return out


def _numbers(record: Any, name: str) -> list[str]:
    metrics = record.metrics[name]
    low, high = metrics["accuracy_interval"]
    return [
        f"{100 * metrics['accuracy']:.2f}",
        f"{100 * low:.2f}",
        f"{100 * high:.2f}",
        f"{metrics['macro_f1']:.4f}",
        f"{metrics['ece']:.3f}",
        f"{metrics['rows']:,}",
    ]


@pytest.mark.parametrize("file", ["paper.tex", "paper.typ"])
def test_the_paper_holds_the_records_numbers(finished: Path, report: Path, file: str) -> None:
    record = load_record(finished / "one")
    text = (report / file).read_text().replace("\\", "")
    for name in record.metrics:
        for number in _numbers(record, name):
            assert number in text
    assert f"{record.parameters['file']:,} trainable parameters" in text
    for words in ("Our", "own", "Related work", "another", "What we learned."):
        assert words in text
    # The paper ends with what the methods rest on.
    assert "arXiv:2106.09685" in text


def test_the_paper_is_a_pdf_of_at_most_four_letter_pages(report: Path) -> None:
    data = (report / "paper.pdf").read_bytes()
    assert data.startswith(b"%PDF")
    boxes = re.findall(rb"/MediaBox\s*\[([^\]]*)\]", data)
    assert boxes
    assert all(list(map(float, box.split())) == [0.0, 0.0, 612.0, 792.0] for box in boxes)


def test_the_columns_stand_where_aaai_wants_them(report: Path) -> None:
    import typst

    # Each column says where it begins and how wide it is.
    source = (report / "paper.typ").read_text()
    probe = (
        "#layout(size => context [#metadata((here().position().x.inches(), "
        "size.width.inches())) <at>])"
    )
    file = report / "probe.typ"
    head = source[: source.index("#place(")]
    file.write_text(f"{head}\n{probe}\n#colbreak()\n{probe}\n")
    (left, width), (second, also) = json.loads(typst.query(str(file), "<at>", field="value"))
    assert left == pytest.approx(0.75, rel=0.01)
    assert width == also == pytest.approx(3.3125, rel=0.01)
    assert second - left - width == pytest.approx(0.375, rel=0.01)
    assert second + also == pytest.approx(7.75, rel=0.01)


def test_latex_compiles_with_the_fallback_preamble(report: Path) -> None:
    if shutil.which("pdflatex") is None:
        pytest.skip(
            "pdflatex is not installed; Debian: texlive-latex-base, texlive-latex-recommended"
        )
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"]
    done = subprocess.run(command, cwd=report, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    over = [float(points) for points in re.findall(r"Overfull \\hbox \(([\d.]+)pt", done.stdout)]
    assert max(over, default=0.0) < 5.0
    pages = re.search(r"\((\d+) pages?", done.stdout)
    assert pages is not None
    assert int(pages[1]) <= 4


def test_latex_uses_the_authors_own_style_file(finished: Path, tmp_path: Path) -> None:
    style = tmp_path / "aaai24.sty"
    style.write_text("% mine")
    out = tmp_path / "out"
    write_report([finished / "one"], out=out, paper=Paper(style=style), parts=["paper"])
    assert r"\usepackage{aaai24}" in (out / "paper.tex").read_text()
    assert (out / "aaai24.sty").read_text() == "% mine"
    with pytest.raises(ReportError, match=r"name your aaai24\.sty"):
        write_report([finished / "one"], out=out, paper=Paper(style=tmp_path / "none.sty"))


def test_figures_come_as_svg_and_png_and_are_the_same_again(finished: Path, tmp_path: Path) -> None:
    facts = load_facts([finished / "one", finished / "other"])
    first = write_figures(facts, tmp_path / "a")
    assert set(first) == set(FIGURES)
    write_figures(facts, tmp_path / "b")
    for name, path in first.items():
        svg = path.with_suffix(".svg").read_text()
        assert svg == (tmp_path / "b" / f"{name}.svg").read_text()
        width = struct.unpack(">I", path.read_bytes()[16:20])[0]
        assert width == pytest.approx(3.31 * 300, abs=3)


def test_one_run_alone_has_nothing_to_compare(finished: Path) -> None:
    facts = load_facts([finished / "one"])
    assert draw("comparison", facts) is None
    assert draw("spending", facts) is None


def test_a_notebook_runs_and_prints_the_two_numbers(finished: Path, report: Path) -> None:
    notebook = json.loads((report / "notebook.ipynb").read_text())
    record = load_record(finished / "one")
    printed = [
        "".join(output.get("text", ""))
        for cell in notebook["cells"]
        for output in cell.get("outputs", [])
    ]
    last = printed[-1]
    assert f"final test accuracy: {record.metrics['test']['accuracy']:.4f}" in last
    assert f"trainable parameters: {record.parameters['file']:,}" in last
    images = [
        o
        for c in notebook["cells"]
        for o in c.get("outputs", [])
        if "image/png" in o.get("data", {})
    ]
    assert len(images) == 4


def test_too_many_pages_say_what_to_cut(finished: Path, tmp_path: Path) -> None:
    prose = tmp_path / "long.md"
    prose.write_text("# Overview\n\n" + "\n\n".join(["word " * 120] * 60))
    with pytest.raises(ReportError, match=r"pages, and 4 are allowed; cut the author's prose"):
        write_report(
            [finished / "one"], out=tmp_path / "out", paper=Paper(prose=prose), parts=["paper"]
        )
    assert not (tmp_path / "out" / "paper.pdf").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("no heading", "line 1: text before the first heading"),
        ("# A\n\n```\ncode\n```\n", "line 3: fence is not taken"),
        ("# A\n\n![x](y.png)\n", "line 3: image is not taken"),
    ],
)
def test_prose_that_a_paper_cannot_take_is_refused(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "prose.md"
    file.write_text(text)
    with pytest.raises(ReportError, match=said):
        load_prose(file)


def test_markup_in_text_is_not_obeyed(finished: Path, tmp_path: Path) -> None:
    facts = load_facts([finished / "one"])
    evil = r"#panic() \end{document} $x$ & % _ ~ ^ <a> @b [c] `d`"
    content = make_content(
        facts,
        title=evil,
        authors=(evil,),
        link=None,
        prose={"Overview": (Text(evil),)},
        drawn=frozenset(),
    )
    assert write_pdf(typst_source(content, {}), tmp_path / "paper.pdf") <= 4
    tex = latex(content, {}, style=None)
    assert tex.count(r"\end{document}") == 1


def test_a_run_that_is_not_complete_is_no_subject(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no complete run"):
        write_report([finished / "going"], out=tmp_path / "out")


def test_leaks_and_transduction_stand_in_the_paper(finished: Path, tmp_path: Path) -> None:
    run = shutil.copytree(finished / "one", tmp_path / "run")
    told = json.loads((run / "record.json").read_text())
    told |= {"leaks": ["3 rows stand in test"], "transductive": ["self-training on the target"]}
    (run / "record.json").write_text(json.dumps(told))
    write_report([run], out=tmp_path / "out", parts=["paper"])
    text = (tmp_path / "out" / "paper.tex").read_text()
    assert "LEAKS: 3 rows stand in test." in text
    assert "TRANSDUCTIVE: self-training on the target." in text


def test_a_studys_table_is_in_its_report(finished: Path, tmp_path: Path) -> None:
    study = tmp_path / "study"
    for number, name in enumerate(("one", "other"), start=1):
        shutil.copytree(finished / name, study / f"{number:02d}-{name}" / "seed-1")
    row = {"seeds": [1, 2], "p": {"test": 0.03}, "parameters": 1700, "leaks": []}
    rows = [
        {**row, "name": name, "mean": {"test": 0.5}, "interval": {"test": [0.4, 0.6]}}
        for name in ("one", "other")
    ]
    (study / "study.json").write_text(json.dumps({"summary": "a study", "rows": rows}))
    content = make_content(
        load_facts([study]),
        title="t",
        authors=(),
        link=None,
        prose={},
        drawn=frozenset({"comparison"}),
    )
    lessons = content.sections[-1].blocks
    table = next(block for block in lessons if isinstance(block, Table))
    assert table.rows[0] == ("one", "50.00", "40.00-60.00", "0.030", "1,700")
    assert any(isinstance(block, Figure) for block in lessons)


def test_two_runs_are_compared_row_by_row(finished: Path) -> None:
    found = compare_runs(finished / "one", finished / "other", "test")
    one, other = (
        load_record(finished / name).metrics["test"]["accuracy"] for name in ("one", "other")
    )
    assert (found.only_one - found.only_other) / found.rows == pytest.approx(one - other)
    assert 0.0 < found.p <= 1.0
    with pytest.raises(RunError, match="holds no predictions for the set nothing"):
        compare_runs(finished / "one", finished / "other", "nothing")


def test_tensorboard_gets_curves_and_figures(finished: Path, tmp_path: Path) -> None:
    arguments = [
        "report",
        str(finished / "one"),
        "--out",
        str(tmp_path / "out"),
        "--only",
        "figures",
    ]
    done = CliRunner().invoke(app, [*arguments, "--tensorboard", str(tmp_path / "tb")])
    assert done.exit_code == 0, done.output
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "tb" / "one")).Reload()
    record = load_record(finished / "one")
    losses = [entry.value for entry in events.Scalars("train/loss")]
    assert losses == pytest.approx([entry["loss"] for entry in record.history])
    assert "confusion" in events.Tags()["images"]


def test_mlflow_gets_them_too(finished: Path, tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow")
    from pennyweight.report.export import to_mlflow

    to_mlflow([finished / "one"], tmp_path / "mlflow")
    (run,) = mlflow.search_runs(experiment_names=["pennyweight"], output_format="list")
    record = load_record(finished / "one")
    assert run.data.metrics["final.test.accuracy"] == record.metrics["test"]["accuracy"]


def test_a_wrong_part_or_figure_is_named(finished: Path, tmp_path: Path) -> None:
    arguments = ["report", str(finished / "one"), "--out", str(tmp_path / "out")]
    assert CliRunner().invoke(app, [*arguments, "--only", "poem"]).exit_code == 2
    with pytest.raises(ReportError, match="no such figure; there are curves"):
        write_report([finished / "one"], out=tmp_path / "x", paper=Paper(without=("pie",)))
