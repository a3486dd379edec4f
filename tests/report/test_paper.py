"""A paper says what the records say, fits its pages and geometry, and is refused with a reason."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import subprocess
import zlib
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pennyweight.budget.summary import Matrix, PlanSummary
from pennyweight.cli.main import app
from pennyweight.errors import ReportError, RunError
from pennyweight.report.content import Content, Figure, FrontMatter, Section, Table, Text
from pennyweight.report.facts import Facts, load_facts
from pennyweight.report.paper import make_content
from pennyweight.report.typeset import font_directory, latex_source, typst_source, write_pdf
from pennyweight.report.write import PaperOptions, write_report
from pennyweight.runs.record import RowStep, RunRecord, TrainingRows, load_record

pytest.importorskip("typst")
_FRONT = FrontMatter("Title")


def _numbers(record: RunRecord, name: str) -> list[str]:
    metrics = record.metrics[name]
    low, high = metrics.accuracy_interval
    return [
        f"{100 * metrics.accuracy:.2f}",
        f"{100 * low:.2f}",
        f"{100 * high:.2f}",
        f"{metrics.macro_f1:.4f}",
        f"{metrics.ece:.3f}",
        f"{metrics.rows:,}",
    ]


def _fonts(pdf: Path) -> set[str]:
    """The names of the fonts that a PDF embeds, without their subset tags."""
    data = pdf.read_bytes()
    objects = [data]
    for stream in re.findall(rb"stream\r?\n(.*?)endstream", data, re.DOTALL):
        # Objects may be in compressed streams, among streams of other kinds.
        with contextlib.suppress(zlib.error):
            objects.append(zlib.decompressobj().decompress(stream))
    pattern = rb"/BaseFont\s*/(?:[A-Z]{6}\+)?([\w-]+)"
    names = {name for text in objects for name in re.findall(pattern, text)}
    return {name.decode() for name in names}


@pytest.mark.parametrize("file", ["paper.tex", "paper.typ"])
def test_the_paper_holds_the_records_numbers(finished: Path, report: Path, file: str) -> None:
    record = load_record(finished / "one")
    text = (report / file).read_text().replace("\\", "")
    for name in record.metrics:
        for number in _numbers(record, name):
            assert number in text
    assert record.parameters is not None
    assert f"{record.parameters.file:,} trainable parameters" in text
    for words in ("Our", "own", "Related work", "another", "What we learned."):
        assert words in text


def test_every_reference_is_cited_and_every_citation_is_listed(finished: Path) -> None:
    content = make_content(load_facts([finished / "one"]), _FRONT, {}, frozenset())
    text = " ".join(b.text for s in content.sections for b in s.blocks if isinstance(b, Text))
    assert "[cite:" not in text
    assert any(entry.startswith("Hu, E. J.; Shen, Y.;") for entry in content.references)
    for entry in content.references:
        family, year = entry.split(",")[0], re.search(r"\. (\d{4})\. ", entry)
        assert year is not None
        assert re.search(rf"[(; ]{family}[^()]* {year[1]}", text), entry
    assert list(content.references) == sorted(content.references)


def test_every_figure_and_table_is_mentioned_in_the_text(finished: Path) -> None:
    facts = load_facts([finished / "one", finished / "other"])
    shown = frozenset({"ranks", "curves", "confusion", "reliability", "comparison", "spending"})
    content = make_content(facts, _FRONT, {}, shown)
    text = " ".join(b.text for s in content.sections for b in s.blocks if isinstance(b, Text))
    assert content.labels == set(re.findall(r"\[((?:fig|tab):\w+)\]", text))
    # All ranks are equal, which the table of settings says already.
    assert content.labels >= {"tab:recipe", "fig:confusion", "fig:spending"}
    assert "fig:ranks" not in content.labels


def test_ranks_that_differ_are_drawn(finished: Path) -> None:
    facts = load_facts([finished / "one"])
    plan = facts.main.record.plan
    first, *others = plan.matrices
    plan = replace(plan, matrices=(replace(first, rank=5), *others))
    run = replace(facts.main, record=facts.main.record.with_changes(plan=plan))
    assert "fig:ranks" in make_content(Facts((run,)), _FRONT, {}, frozenset({"ranks"})).labels


def test_matrices_that_are_named_one_by_one_are_described_by_their_types(finished: Path) -> None:
    run = load_facts([finished / "one"]).main
    names = tuple(matrix.name for matrix in run.adapted)
    adapter = run.record.recipe.adapter.model_copy(update={"targets": names})
    recipe = run.record.recipe.model_copy(update={"adapter": adapter})
    named = replace(run, record=run.record.with_changes(recipe=recipe))
    content = make_content(Facts((named,)), _FRONT, {}, frozenset())
    settings = next(b for s in content.sections for b in s.blocks if isinstance(b, Table))
    matrices = dict(row[:2] for row in settings.rows)["matrices"]
    types = dict.fromkeys(matrix.role for matrix in run.adapted)
    assert matrices == f"{len(names)} of the types {', '.join(types)}"


def test_full_fine_tuning_is_not_described_as_adapters(finished: Path) -> None:
    facts = load_facts([finished / "one"])
    matrices = (Matrix("encoder", "full", None, None, 900, layer=None, role="encoder"),)
    plan = PlanSummary(1_000_000, 900, 900, True, matrices)
    run = replace(facts.main, record=facts.main.record.with_changes(plan=plan))
    content = make_content(Facts((run,)), _FRONT, {}, frozenset())
    text = " ".join(b.text for s in content.sections for b in s.blocks if isinstance(b, Text))
    assert "all of whose weights are trained" in text
    assert "900 parameters on full fine-tuning: 0.1% of the budget" in text
    assert "adapters" not in text
    assert not any("PEFT" in entry for entry in content.references)
    settings = next(b for s in content.sections for b in s.blocks if isinstance(b, Table))
    assert {row[0] for row in settings.rows}.isdisjoint({"matrices", "rank", "alpha", "head"})


def test_the_paper_is_a_pdf_of_at_most_four_letter_pages(report: Path) -> None:
    data = (report / "paper.pdf").read_bytes()
    assert data.startswith(b"%PDF")
    boxes = re.findall(rb"/MediaBox\s*\[([^\]]*)\]", data)
    assert 1 <= len(boxes) <= 4
    assert all(list(map(float, box.split())) == [0.0, 0.0, 612.0, 792.0] for box in boxes)


def test_body_and_figures_are_set_in_a_times_like_face(finished: Path, tmp_path: Path) -> None:
    write_report([finished / "one"], out=tmp_path, parts=["paper"])
    fonts = _fonts(tmp_path / "paper.pdf")
    assert {"STIXGeneral-Regular", "STIXGeneral-Bold", "STIXGeneral-Italic"} <= fonts
    assert all(name.startswith("STIXGeneral") for name in fonts)
    figures = [_fonts(file) for file in (tmp_path / "figures").glob("*.pdf")]
    assert figures
    assert all(name.startswith("STIX") for names in figures for name in names)


def test_the_columns_stand_where_aaai_wants_them(report: Path) -> None:
    import typst

    # Each column reports where it begins and how wide it is.
    source = (report / "paper.typ").read_text()
    probe = (
        "#layout(size => context [#metadata((here().position().x.inches(), "
        "size.width.inches())) <at>])"
    )
    file = report / "probe.typ"
    head = source[: source.index("#place(top")]
    file.write_text(f"{head}\n{probe}\n#colbreak()\n{probe}\n")
    places = typst.query(str(file), "<at>", field="value", font_paths=[str(font_directory())])
    (left, width), (second, also) = json.loads(places)
    assert left == pytest.approx(0.75, rel=0.01)
    assert width == also == pytest.approx(3.3125, rel=0.01)
    assert second - left - width == pytest.approx(0.375, rel=0.01)
    assert second + also == pytest.approx(7.75, rel=0.01)


def test_lines_are_twelve_points_apart(report: Path) -> None:
    import typst

    source = (report / "paper.typ").read_text()
    head = source[: source.index("#place(top")]
    probe = "#context [#metadata(here().position().y.pt()) <at>]"
    file = report / "lines.typ"
    file.write_text(f"{head}\none \\\n{probe} two \\\n{probe} three \\\n{probe} four\n")
    places = typst.query(str(file), "<at>", field="value", font_paths=[str(font_directory())])
    two, three, four = json.loads(places)
    assert three - two == pytest.approx(12.0, abs=0.01)
    assert four - three == pytest.approx(12.0, abs=0.01)


def test_latex_compiles_with_the_fallback_preamble(report: Path) -> None:
    if shutil.which("pdflatex") is None:
        pytest.skip(
            "pdflatex is not installed; Debian: texlive-latex-base, texlive-latex-recommended, "
            "texlive-fonts-recommended"
        )
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"]
    for _ in range(2):  # the second pass resolves the references
        done = subprocess.run(command, cwd=report, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout[-2000:]
    assert "undefined references" not in done.stdout
    over = [float(points) for points in re.findall(r"Overfull \\hbox \(([\d.]+)pt", done.stdout)]
    assert max(over, default=0.0) < 5.0
    pages = re.search(r"\((\d+) pages?", done.stdout)
    assert pages is not None
    assert int(pages[1]) <= 4


def test_latex_uses_the_authors_own_style_file(finished: Path, tmp_path: Path) -> None:
    style = tmp_path / "aaai24.sty"
    style.write_text("% mine")
    out = tmp_path / "out"
    write_report([finished / "one"], out=out, paper=PaperOptions(style=style), parts=["paper"])
    assert r"\usepackage{aaai24}" in (out / "paper.tex").read_text()
    assert (out / "aaai24.sty").read_text() == "% mine"
    with pytest.raises(ReportError, match=r"give the path of your aaai24\.sty"):
        write_report([finished / "one"], out=out, paper=PaperOptions(style=tmp_path / "none.sty"))


def test_too_many_pages_say_what_to_cut(finished: Path, tmp_path: Path) -> None:
    prose = tmp_path / "long.md"
    prose.write_text("# Overview\n\n" + "\n\n".join(["word " * 120] * 60))
    paper = PaperOptions(prose=prose)
    with pytest.raises(ReportError, match=r"pages, but at most 4 are allowed; shorten the prose"):
        write_report([finished / "one"], out=tmp_path / "out", paper=paper, parts=["paper"])
    assert not (tmp_path / "out" / "paper.pdf").exists()


def test_markup_in_text_is_not_obeyed(finished: Path, tmp_path: Path) -> None:
    facts = load_facts([finished / "one"])
    evil = r"""#panic() \end{document} $x$ & % _ ~ ^ <a> @b [c] `d` "e" 'f' // g"""
    front = FrontMatter(evil, (evil,))
    content = make_content(facts, front, {"Overview": (Text(evil), Text("1. x"))}, frozenset())
    assert write_pdf(typst_source(content, {}), tmp_path / "paper.pdf") <= 4
    tex = latex_source(content, {}, style=None)
    assert tex.count(r"\end{document}") == 1


@pytest.mark.parametrize("render", [typst_source, lambda *a: latex_source(*a, style=None)])
def test_a_reference_to_a_figure_that_is_missing_is_named(render: object) -> None:
    assert callable(render)
    blocks = (Text("See [fig:pie]."), Figure("curves", "Curves."))
    content = Content(_FRONT, "Abstract.", (Section("Results", blocks),))
    with pytest.raises(ReportError, match=r"\[fig:pie\]: the paper has no such.*fig:curves"):
        render(content, {"curves": "x.svg"})


def test_a_run_that_is_not_complete_is_no_subject(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no complete run"):
        write_report([finished / "going"], out=tmp_path / "out")


def test_leaks_and_transductive_use_are_stated_in_the_paper(finished: Path, tmp_path: Path) -> None:
    run = shutil.copytree(finished / "one", tmp_path / "run")
    values = json.loads((run / "record.json").read_text())
    values |= {"leaks": ["3 rows are in test"], "transductive": ["self-training on the target"]}
    (run / "record.json").write_text(json.dumps(values))
    write_report([run], out=tmp_path / "out", parts=["paper"])
    text = (tmp_path / "out" / "paper.tex").read_text()
    assert "LEAKS: 3 rows are in test." in text
    assert "TRANSDUCTIVE: self-training on the target." in text


def test_generated_rows_are_described_with_their_gates_and_classes(finished: Path) -> None:
    facts = load_facts([finished / "one"])
    record = facts.main.record
    assert record.data is not None
    step = RowStep(
        step="rows of generated",
        added=5,
        removed=1,
        rejected={"copied": 0, "off-class": 3, "near-duplicate": 1},
        written_by_class={"a": 5, "b*": 5},
        by_class={"a": 4, "b*": 1},
    )
    data = record.data.model_copy(update={"training": TrainingRows(rows=9, steps=(step,))})
    main = replace(facts.main, record=record.with_changes(data=data))
    content = make_content(replace(facts, runs=(main,)), FrontMatter("Title"), {}, frozenset())
    texts = [
        block.text for section in content.sections for block in section.blocks
        if isinstance(block, Text)
    ]  # fmt: skip
    assert (
        "Rows of generated: 5 rows added and 1 row removed. 6 of 10 generated texts (60.00%) "
        "passed the gates; rejected: 3 as off-class and 1 as near-duplicate. Added by class: "
        "a 4 of 5 and b\N{ASTERISK OPERATOR} 1 of 5."
    ) in texts


@pytest.mark.parametrize(("is_adjusted", "p"), [(False, "0.030"), (True, "0.060")])
def test_a_studys_table_is_in_its_report_with_adjusted_p_values_if_it_has_any(
    is_adjusted: bool, p: str, finished: Path, tmp_path: Path
) -> None:
    study = tmp_path / "study"
    for number, name in enumerate(("one", "other"), start=1):
        shutil.copytree(finished / name, study / f"{number:02d}-{name}" / "seed-1")
    row = {"seeds": [1, 2], "p": {"test": 0.03}, "parameters": 1700, "leaks": []}
    row |= {"adjusted_p": {"test": 0.06}} if is_adjusted else {}
    rows = [
        {**row, "name": name, "mean": {"test": 0.5}, "interval": {"test": [0.4, 0.6]}}
        for name in ("one", "other")
    ]
    (study / "study.json").write_text(json.dumps({"summary": "a study", "rows": rows}))
    content = make_content(load_facts([study]), _FRONT, {}, frozenset({"comparison"}))
    lessons = content.sections[-1].blocks
    table = next(block for block in lessons if isinstance(block, Table))
    assert table.rows[0] == ("one", "50.00", "40.00\N{EN DASH}60.00", p, "1,700")
    assert any(isinstance(block, Figure) for block in lessons)
    assert any("Holm's method" in str(block) for block in lessons) == is_adjusted


def test_a_wrong_part_or_figure_is_named(finished: Path, tmp_path: Path) -> None:
    arguments = ["report", str(finished / "one"), "--out", str(tmp_path / "out")]
    assert CliRunner().invoke(app, [*arguments, "--only", "poem"]).exit_code == 2
    with pytest.raises(ReportError, match="no such figure; choose from ranks, curves"):
        write_report([finished / "one"], out=tmp_path / "x", paper=PaperOptions(without=("pie",)))
    assert not (tmp_path / "x").exists()


def test_the_notebook_alone_needs_no_figures_folder(finished: Path, tmp_path: Path) -> None:
    written = write_report([finished / "one"], out=tmp_path / "out", parts=["notebook"])
    assert set(written) == {"notebook"}
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["notebook.ipynb"]
