"""Reports lead with the metric that suits the task, and show the baselines in the same metric."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pennyweight.evaluation.metrics import AnyMetrics, Metrics, MultiLabelMetrics, measure
from pennyweight.report.captions import caption_of
from pennyweight.report.content import Content, FrontMatter, Table, Text
from pennyweight.report.facts import Facts, RunFacts
from pennyweight.report.figures import FIGURES, draw
from pennyweight.report.findings import results
from pennyweight.report.paper import make_content
from pennyweight.report.run_page import RunIndex
from pennyweight.report.typeset import latex_source, typst_source, write_pdf
from pennyweight.runs.record import BaselineRecord, RunRecord, save_record
from runs.records import example_recipe, example_record

NAMES = ("a", "b")
_FRONT = FrontMatter("Title")


def _uneven(*, shift: float = 0.0) -> Metrics:
    labels = np.array([0] * 40 + [1] * 10)
    noise = np.random.default_rng(0).normal(0, 1, (50, 2))
    metrics = measure(np.eye(2)[labels] + noise + [shift, 0.0], labels, names=NAMES)
    assert isinstance(metrics, Metrics)
    return metrics


def _several(*, shift: float = 0.0) -> MultiLabelMetrics:
    draw_rows = np.random.default_rng(0)
    labels = (draw_rows.random((60, 2)) < 0.4).astype(np.int64)
    logits = 2.0 * labels - 1.0 + draw_rows.normal(shift, 1, labels.shape)
    metrics = measure(logits, labels, names=NAMES, thresholds=np.array([0.25, 0.5]))
    assert isinstance(metrics, MultiLabelMetrics)
    return metrics


def _record(metrics: AnyMetrics, baseline: AnyMetrics, **changes: Any) -> RunRecord:
    baselines = {
        name: BaselineRecord(seconds=1.0, metrics={"test": baseline})
        for name in ("embedding", "tf-idf")
    }
    return example_record(metrics={"test": metrics}, baselines=baselines, **changes)


def _multi_label_record() -> RunRecord:
    recipe = example_recipe(data={"task": "multi-label"})
    return _record(_several(), _several(shift=2.0), recipe=recipe)


def _facts(record: RunRecord) -> Facts:
    return Facts((RunFacts(Path("/one"), record, ()), RunFacts(Path("/two"), record, ())))


def _text(content: Content) -> str:
    blocks = [b.text for s in content.sections for b in s.blocks if isinstance(b, Text)]
    return " ".join([content.abstract, *blocks])


@pytest.mark.parametrize(
    "record",
    [_record(_uneven(), _uneven(shift=2.0)), _multi_label_record()],
    ids=["uneven", "multi"],
)
def test_a_paper_leads_with_macro_f1_and_its_interval(record: RunRecord, tmp_path: Path) -> None:
    metrics, facts = record.metrics["test"], _facts(record)
    assert metrics.macro_f1_interval is not None
    low, high = (f"{100 * bound:.2f}" for bound in metrics.macro_f1_interval)
    content = make_content(facts, _FRONT, {}, frozenset(FIGURES) - {"ranks", "confusion"})
    shown = f"a macro F1 of {metrics.macro_f1:.2%} (95% bootstrap interval {low}\N{EN DASH}{high})"
    assert shown in content.abstract
    text = _text(content)
    assert f"The macro F1 is {metrics.macro_f1:.2%} (95% interval {low}" in text
    assert "validation accuracy" in text  # the record's curves have no other metric
    assert any(entry.startswith("Efron") for entry in content.references)
    tables = {b.name: b for s in content.sections for b in s.blocks if isinstance(b, Table)}
    assert tables["results"].rows[0][2] == f"{100 * metrics.macro_f1:.2f}"
    assert tables["comparison"].header[1] == "F1"
    assert caption_of("comparison", facts) == "Macro F1 with 95% intervals."
    pytest.importorskip("typst")
    without = make_content(facts, _FRONT, {}, frozenset())
    assert write_pdf(typst_source(without, {}), tmp_path / "paper.pdf") <= 4
    assert latex_source(without, {}, style=None)


def test_every_figure_of_a_multi_label_run_can_be_drawn() -> None:
    facts = _facts(_multi_label_record())
    drawn = {name: draw(name, facts) for name in FIGURES}
    assert [name for name, figure in drawn.items() if figure is None] == [
        "confusion",
        "coverage",
    ]
    assert drawn["comparison"] is not None
    assert drawn["comparison"].axes[0].get_xlabel() == "test macro F1 (%)"
    assert drawn["reliability"] is not None
    assert drawn["reliability"].axes[1].get_xlabel() == "probability of the label"
    assert "decisions per bin" in caption_of("reliability", facts)


def test_a_paper_about_several_labels_says_so_and_lists_the_thresholds() -> None:
    record = _multi_label_record()
    content = make_content(_facts(record), _FRONT, {}, frozenset())
    text = _text(content)
    assert "to give a text any number of two labels" in content.abstract
    assert "The task is to give a text any number of two labels: a and b." in text
    assert "A text is given every label whose probability reaches the label's threshold" in text
    tables = {b.name: b for s in content.sections for b in s.blocks if isinstance(b, Table)}
    thresholds = {row[0]: row[4] for row in tables["hardest"].rows}
    assert thresholds == {"a": "0.250", "b": "0.500"}


def test_a_run_is_compared_with_its_baselines_in_the_same_metric() -> None:
    record = _record(_uneven(), _uneven(shift=2.0))
    own = record.metrics["test"].macro_f1
    other = record.baselines["tf-idf"].metrics["test"].macro_f1
    blocks = results(_facts(record), frozenset())
    (table,) = [b for b in blocks if isinstance(b, Table) and b.name == "baselines"]
    assert table.rows == (
        ("this run", f"{100 * own:.2f}"),
        ("LR, embeddings", f"{100 * other:.2f}"),
        ("LR, TF-IDF", f"{100 * other:.2f}"),
    )
    (text,) = [b.text for b in blocks if isinstance(b, Text) and "[tab:baselines]" in b.text]
    assert "logistic regression on the frozen encoder's embeddings and logistic regressi" in text
    assert f"the run is {100 * (own - other):.2f} points above embeddings ({other:.2%}) and" in text


def test_a_run_without_baselines_has_no_table_of_them() -> None:
    blocks = results(_facts(example_record(baselines={})), frozenset())
    assert not any(isinstance(b, Table) and b.name == "baselines" for b in blocks)


def test_the_run_page_gets_the_leading_metric_and_the_baselines(tmp_path: Path) -> None:
    records = {"even": example_record(), "several": _multi_label_record()}
    for name, record in records.items():
        (tmp_path / name).mkdir()
        save_record(tmp_path / name, record)
    index = RunIndex(tmp_path)
    rows = {row["path"]: row for row in index.summaries()}
    assert rows["several"]["metric"] == "macro_f1"
    assert rows["several"]["score"] == records["several"].metrics["test"].macro_f1
    shown = index.record("several")["shown"]["test"]
    assert shown["metric"] == "macro_f1"
    assert shown["interval"] == list(records["several"].metrics["test"].macro_f1_interval or ())
    expected = records["several"].baselines["tf-idf"].metrics["test"].macro_f1
    assert shown["baselines"]["logistic regression on TF-IDF"] == expected
