"""The report of a search: `report.md`, and with matplotlib its figures and `report.html`."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pennyweight.report.phrases import markdown_table, plural, title
from pennyweight.runs.record import write_text
from pennyweight.search.results import (
    BEST_RECIPE,
    HeldOut,
    SearchResult,
    TrialRow,
    describe_held_out,
    shown,
)

__all__ = ["search_markdown", "write_search_report"]

_FIGURES = "figures"
_CAPTIONS = {
    "parallel": "Each trial is a line; darker ones are better, and dotted ones were pruned. The "
    "best is orange.",
    "importances": "Share of each key in the variance of the metric (PED-ANOVA, arXiv:2304.10255).",
    "progress": "The metric of each trial, and the best of the complete ones so far.",
}
_SAMPLERS = {"tpe": "TPE", "random": "random draws", "grid": "a grid"}
_PRUNERS = {
    "median": "ended by the median rule",
    "hyperband": "ended by Hyperband",
    "off": "never ended early",
}
_STYLE = (
    "body{font:16px/1.5 Georgia,serif;max-width:56em;margin:2em auto;padding:0 1em}"
    "table{border-collapse:collapse}td,th{padding:.2em .7em;border-bottom:1px solid #ddd;"
    "text-align:left}svg{max-width:100%;height:auto}"
)


def write_search_report(result: SearchResult, out: Path) -> str | None:
    """Write `report.md` into a search's directory, and where possible figures and `report.html`.

    Returns:
        A line that says what is missing because a library is; None if nothing is.

    Raises:
        RunError: a file cannot be written.
    """
    missing = [name for name in ("matplotlib", "markdown_it") if find_spec(name) is None]
    figures: Sequence[str] = ()
    if not missing:
        from pennyweight.report.drawing import write_figures
        from pennyweight.report.search_figures import SEARCH_FIGURES

        figures = write_figures(SEARCH_FIGURES, result, out / _FIGURES)
    text = search_markdown(result, figures=figures)
    write_text(out / "report.md", text)
    if missing:
        return "figures and report.html need more: pip install 'pennyweight[report]'"
    write_text(out / "report.html", _page(result, text, out))
    return None


def search_markdown(result: SearchResult, *, figures: Sequence[str] = ()) -> str:
    """Return the report of a search as Markdown.

    Args:
        result: a search, finished or not.
        figures: names of the figures that have been written.
    """
    return "\n\n".join(_blocks(result, figures)) + "\n"


def _blocks(result: SearchResult, figures: Sequence[str]) -> Iterator[str]:
    yield f"# Search: {_escaped(result.name)}"
    yield _summary(result)
    best, default = result.best_row, result.default_row
    if best is not None:
        yield "## The best trial"
        yield _comparison(result, best, default)
        yield (
            f"The value of the best trial is the best of {result.count('complete')} and therefore "
            f"optimistic. `pennyweight train {BEST_RECIPE} --out RUN` trains its recipe again."
        )
    if result.held_out:
        yield "## On held-out sets"
        yield "\n".join(f"- {_sentence(name, one)}" for name, one in result.held_out.items())
    if result.marks:
        yield "\n".join(f"- **{_escaped(mark)}**" for mark in result.marks)
    yield from _drawn(figures)
    if result.importances and "importances" not in figures:
        rows = [(f"`{key}`", f"{share:.0%}") for key, share in result.importances.items()]
        yield markdown_table(("key", "importance"), rows)
    yield "## All trials"
    yield markdown_table(
        ("trial", *(f"`{key}`" for key in result.keys), title(result.metric), "status", "s"),
        [_cells(result, row) for row in result.rows],
    )
    failures = [row for row in result.rows if row.status == "failed"]
    if failures:
        yield "\n".join(f"- {row.run} failed: {_escaped(row.reason)}" for row in failures)


def _summary(result: SearchResult) -> str:
    counts = ", ".join(
        f"{count} {status}"
        for status in ("complete", "pruned", "failed")
        if (count := result.count(status))
    )
    order = "lower" if result.is_lower_better else "higher"
    return (
        f"{plural(len(result.rows), 'trial')} of {result.trials} ({counts}), compared by "
        f"{title(result.metric)} on validation rows ({order} is better). Values were chosen by "
        f"{_SAMPLERS[result.sampler]} with seed {result.seed}; weak trials were "
        f"{_PRUNERS[result.pruning]}. The first trial is the recipe itself."
    )


def _comparison(result: SearchResult, best: TrialRow, default: TrialRow | None) -> str:
    """Return a table with the values of the best trial beside those of the recipe itself."""
    rows = [(f"`{key}`", *(_code(row, key) for row in (best, default))) for key in result.keys]
    measured = [
        "" if row is None or row.value is None else f"{row.value:.4f}" for row in (best, default)
    ]
    rows.append((f"validation {title(result.metric)}", *measured))
    return markdown_table(("", best.run, "the recipe itself"), rows)


def _code(row: TrialRow | None, key: str) -> str:
    return "" if row is None else f"`{shown(row.values.get(key))}`"


def _sentence(name: str, one: HeldOut) -> str:
    text = _escaped(describe_held_out(name, one))
    if one.only_best is None:
        return f"{text}."
    return (
        f"{text}. Only the best trial answers {plural(one.only_best, 'row')} correctly, and only "
        f"the recipe itself {plural(one.only_default or 0, 'row')}."
    )


def _drawn(figures: Sequence[str]) -> Iterator[str]:
    for name in figures:
        caption = _CAPTIONS[name]
        yield f"## {name.capitalize()}\n\n![{name}]({_FIGURES}/{name}.svg)\n\n{caption}"


def _cells(result: SearchResult, row: TrialRow) -> tuple[str, ...]:
    name = f"**{row.run}**" if row.run == result.best else row.run
    return (
        f"{name} (the recipe itself)" if row.is_default else name,
        *(_code(row, key) for key in result.keys),
        "" if row.value is None else f"{row.value:.4f}",
        row.status,
        "" if row.seconds is None else f"{row.seconds:.0f}",
    )


def _escaped(text: Any) -> str:
    return re.sub(r"([\\`*_\[\]<>|])", r"\\\1", str(text))


def _page(result: SearchResult, text: str, out: Path) -> str:
    """Return the report as one HTML file, with the figures inside."""
    from markdown_it import MarkdownIt

    body = MarkdownIt("commonmark", {"html": False}).enable("table").render(text)

    def drawing(match: re.Match[str]) -> str:
        svg = (out / match[1]).read_text(encoding="utf-8")
        return svg[svg.index("<svg") :]

    body = re.sub(rf'<img src="({_FIGURES}/\w+\.svg)"[^>]*>', drawing, body)
    return (
        '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        f"<title>Search: {html.escape(result.name)}</title>\n<style>{_STYLE}</style>\n"
        f"{body}</html>\n"
    )
