"""A comparison of runs in words and as tables: Markdown, LaTeX and JSON.

Everything that is shown of a comparison comes from `comparison_table` and `conclusions`, so that
all formats say the same.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from pennyweight.report.latex import escape_latex
from pennyweight.report.phrases import join, title

if TYPE_CHECKING:
    from pennyweight.search.compare import PairComparison, RunComparison, SetComparison

__all__ = [
    "as_json",
    "as_latex",
    "as_markdown",
    "comparison_table",
    "conclusions",
    "remarks",
    "set_title",
]

_MINUS = re.compile(r"(?<=[ (])-(?=\d)")
_VALIDATION = (
    "Validation rows choose checkpoints and settings, so results on them are too good; judge "
    "systems by a test."
)


def set_title(compared: SetComparison) -> str:
    """Return the set, its rows and the metric as one line."""
    return f"{compared.name}: {compared.rows:,} rows, {title(compared.metric)} in %"


def comparison_table(
    comparison: RunComparison, compared: SetComparison
) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return the header and the rows of a set's table: one row for each system."""
    pairs = {pair.system: pair for pair in compared.comparisons}
    is_corrected = any(pair.comparisons > 1 for pair in compared.comparisons)
    rows = []
    for score in compared.scores:
        mean = f"{100 * score.mean:.2f}"
        if score.deviation is not None:
            mean += f" (sd {100 * score.deviation:.2f})"
        row = [score.system, str(len(score.scores)), mean]
        pair = pairs.get(score.system)
        if pair is None:
            row += [""] * (4 if is_corrected else 3)
        else:
            row += [_difference(pair), _p(pair.difference.p)]
            row += [_p(pair.adjusted_p)] if is_corrected else []
            row.append(_points(pair.difference.detectable))
        rows.append(tuple(row))
    p = ("p", "Holm p") if is_corrected else ("p",)
    header = ("system", "runs", title(compared.metric), "difference (95%)", *p, "detectable")
    return header, rows


def conclusions(comparison: RunComparison, compared: SetComparison) -> list[str]:
    """Return what can and cannot be concluded about each system, a line each."""
    lines = [
        _conclusion(pair, reference=comparison.reference, metric=title(compared.metric))
        for pair in compared.comparisons
    ]
    return [*lines, _VALIDATION] if compared.is_validation else lines


def remarks(comparison: RunComparison) -> list[str]:
    """Return how the numbers were computed, what was left out, and warnings."""
    lines = list(_methods(comparison))
    lines += [f"Left out: {each.name}: {each.reason}." for each in comparison.left_out]
    for system in comparison.systems:
        lines += [
            f"LEAKS: {system.name}: {leak}; its results may be too good." for leak in system.leaks
        ]
        lines += [
            f"TRANSDUCTIVE: {system.name}: {use}; it used the target's text, so its results hold "
            "for that target only, and a system that did not is at a disadvantage."
            for use in system.transductive
        ]
    return lines


def as_markdown(comparison: RunComparison) -> str:
    """Return the comparison as Markdown, with tables in GitHub's syntax."""
    blocks = []
    for compared in comparison.sets:
        header, rows = comparison_table(comparison, compared)
        lines = [header, ("---",) * len(header), *rows]
        table = "\n".join(f"| {' | '.join(map(_escape_markdown, line))} |" for line in lines)
        blocks += [f"**{_escape_markdown(set_title(compared))}**", table]
        blocks.append(_bullets(conclusions(comparison, compared)))
    return "\n\n".join([*blocks, _bullets(remarks(comparison))]) + "\n"


def as_latex(comparison: RunComparison) -> str:
    """Return a table for each set as LaTeX; the preamble needs the package booktabs.

    The conclusions are in the captions, the remarks in comments.
    """
    tables = [_latex_table(comparison, compared) for compared in comparison.sets]
    comments = "".join(f"% {' '.join(line.split())}\n" for line in remarks(comparison))
    return "\n".join(tables) + comments


def as_json(comparison: RunComparison) -> str:
    """Return the comparison as JSON: `RunComparison`, with the words behind the numbers."""
    values = asdict(comparison)
    for table, compared in zip(values["sets"], comparison.sets, strict=True):
        table["conclusions"] = conclusions(comparison, compared)
    values["remarks"] = remarks(comparison)
    return json.dumps(values, indent=1, ensure_ascii=False) + "\n"


def _conclusion(pair: PairComparison, *, reference: str, metric: str) -> str:
    difference = pair.difference
    p = f"{'Holm-adjusted p' if pair.comparisons > 1 else 'p'} {_relation(pair.adjusted_p)}"
    low, high = (f"{100 * bound:.2f}" for bound in difference.interval)
    points = f"{100 * abs(difference.value):.2f} points of {metric}"
    if pair.verdict != "undecided":
        return (
            f"{pair.system} is {pair.verdict} than {reference} by {points} "
            f"(95% interval of the difference {low} to {high}), {p}."
        )
    if difference.value == 0.0:
        observed = f"both have the same {metric}"
    else:
        side = "above" if difference.value > 0.0 else "below"
        observed = f"{pair.system} is {points} {side}"
    return (
        f"No difference between {pair.system} and {reference} can be shown: {observed} "
        f"(95% interval {low} to {high}), {p}. {_power(pair)}"
    )


def _power(pair: PairComparison) -> str:
    smallest = pair.difference.detectable
    if smallest is None:
        return "No row tells them apart, so what could be detected cannot be estimated."
    source = "these rows and seeds" if pair.difference.test == "rows-and-seeds" else "these rows"
    return (
        f"With {source}, a true difference of {100 * smallest:.2f} points would be missed in 1 of "
        "5 comparisons, and smaller ones more often."
    )


def _methods(comparison: RunComparison) -> Iterator[str]:
    """Yield how the differences were tested."""
    yield (
        f"Differences are in points, against {comparison.reference}. The column detectable has the "
        "smallest true difference that such a comparison finds in 4 of 5 cases."
    )
    pairs = [(each.metric, pair) for each in comparison.sets for pair in each.comparisons]
    if any(pair.difference.test == "rows-and-seeds" for _, pair in pairs):
        yield (
            "Systems with several runs: t-test over rows and seeds (Obuchowski and Rockette 1995; "
            "Hillis 2007), with a paired bootstrap over the rows."
        )
        if alone := [each.name for each in comparison.systems if len(each.runs) == 1]:
            yield (
                f"{join(alone)}: a single run shows no variance over seeds; where the other system "
                "has several runs, theirs is used for it."
            )
    single = [(metric, pair) for metric, pair in pairs if pair.difference.only_system is not None]
    if single:
        names = {"accuracy": "McNemar's test (mid-p)", "macro_f1": "randomization test"}
        tests = list(dict.fromkeys(names[metric] for metric, _ in single))
        yield (
            f"Two single runs: {join(tests)}, with a paired bootstrap interval over the rows. This "
            "compares the two runs and not the recipes: with other seeds, the difference can be "
            "another one. Train several seeds to compare recipes."
        )
    if any(pair.comparisons > 1 for _, pair in pairs):
        yield (
            "P-values are adjusted by Holm's method for all comparisons on held-out sets, and for "
            "those on validation apart. Intervals are not adjusted."
        )


def _difference(pair: PairComparison) -> str:
    low, high = pair.difference.interval
    return f"{100 * pair.difference.value:+.2f} ({100 * low:.2f} to {100 * high:.2f})"


def _points(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.2f}"


def _p(value: float) -> str:
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def _relation(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"= {value:.3f}"


def _bullets(lines: Sequence[str]) -> str:
    return "\n".join(f"- {_escape_markdown(line)}" for line in lines)


def _escape_markdown(text: str) -> str:
    for letter in ("\\", "|", "*", "_", "<"):
        text = text.replace(letter, f"\\{letter}")
    return text


def _latex_table(comparison: RunComparison, compared: SetComparison) -> str:
    header, rows = comparison_table(comparison, compared)
    caption = " ".join([f"{set_title(compared)}.", *conclusions(comparison, compared)])
    label = "".join(letter if letter.isalnum() else "-" for letter in compared.name)
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\begin{{tabular}}{{l{'r' * (len(header) - 1)}}}",
        r"\toprule",
        _latex_row(header),
        r"\midrule",
        *map(_latex_row, rows),
        r"\bottomrule",
        r"\end{tabular}",
        rf"\caption{{{_latex_text(caption)}}}",
        rf"\label{{tab:comparison-{label}}}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _latex_row(cells: Sequence[str]) -> str:
    return f"{' & '.join(map(_latex_text, cells))} \\\\"


def _latex_text(text: str) -> str:
    """Return escaped text in which a hyphen before a number is a minus sign."""
    return _MINUS.sub("$-$", escape_latex(text))
