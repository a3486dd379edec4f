"""The table of a study for the terminal: results, chosen values, and ranks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pennyweight.cli.tables import TITLES, baselines_line, print_line, show_table

if TYPE_CHECKING:
    from pennyweight.search.studies import StudyRow
    from pennyweight.search.study_ranks import StudyRanks

__all__ = ["show_study"]


def show_study(rows: Sequence[StudyRow]) -> None:
    """Print a table for each data set, and the ranks of the rows if there are several.

    A table has one line for each row and set, with the result and its interval over seeds. The sets
    of a row are listed below each other, because side by side they do not fit a terminal.
    """
    from pennyweight.search.study_ranks import rank_rows

    for dataset in dict.fromkeys(row.dataset for row in rows) or [""]:
        if dataset:
            print_line(f"Data set {dataset}")
        _show_dataset([row for row in rows if row.dataset == dataset])
        if dataset:
            print_line("")
    for row in rows:
        for seed, reason in row.failures.items():
            print_line(f"{row.title}, seed {seed}: failed: {reason}")
    _show_edges(rows)
    for ranks in rank_rows(rows):
        _show_ranks(ranks)


def _show_dataset(rows: Sequence[StudyRow]) -> None:
    keys = list(dict.fromkeys(key for row in rows if row.choice for key in row.choice.values))
    lines: list[tuple[str, ...]] = []
    for row in rows:
        marks = [mark for mark in ("leaks", "transductive") if getattr(row, mark)]
        name = f"{row.name} ({', '.join(marks)})" if marks else row.name
        first, *others = [_result(row, name_of_set) for name_of_set in row.mean] or [
            ("", "failed", "")
        ]
        costs = (f"{row.parameters:,}", f"{row.seconds:.0f}")
        chosen = [_chosen(row, key) for key in keys]
        lines.append((name, str(len(row.seeds)), *first, *costs, *chosen))
        lines.extend(("", "", *other, "", "", *("" for _ in keys)) for other in others)
    metric = TITLES[rows[0].metric] if rows else "result"
    header = ("row", "seeds", "set", f"{metric} (95%)", "p", "parameters", "s")
    show_table((*header, *(key.rpartition(".")[2] for key in keys)), lines)
    _show_baselines(rows)


def _chosen(row: StudyRow, key: str) -> str:
    """Return the chosen value of a key, with a star if it is at the edge of its list."""
    from pennyweight.search.results import shown

    if row.choice is None or key not in row.choice.values:
        return ""
    return shown(row.choice.values[key]) + "*" * (key in row.choice.at_edge)


def _show_edges(rows: Sequence[StudyRow]) -> None:
    """Print for how many choices the best value is at the edge of its list."""
    choices = [row.choice for row in rows if row.choice]
    for key in dict.fromkeys(key for choice in choices for key in choice.values):
        count = sum(key in choice.at_edge for choice in choices)
        if count:
            print_line(
                f"* {key}: the best value is at the edge of its list in {count} of {len(choices)} "
                "choices; a value beyond it might be better"
            )


def _show_ranks(ranks: StudyRanks) -> None:
    from pennyweight.search.study_ranks import describe_ranks

    datasets = list(ranks.rows[0].ranks)
    print_line("")
    print_line(
        f"Ranks on {ranks.set} with a budget of {ranks.budget:,} parameters, over "
        f"{len(datasets)} data sets"
    )
    show_table(
        ("row", "mean rank", *datasets, "mean", "parameters"),
        [
            (
                row.name,
                f"{row.mean_rank:.2f}",
                *(f"{row.ranks[dataset]:g}" for dataset in datasets),
                f"{100 * row.mean:.2f}",
                f"{row.parameters:,}",
            )
            for row in ranks.rows
        ],
    )
    print_line(describe_ranks(ranks))
    if ranks.left_out:
        print_line(f"not ranked, without a result on every data set: {', '.join(ranks.left_out)}")


def _show_baselines(rows: Sequence[StudyRow]) -> None:
    """Print the baselines of each set: once if they are the same for all rows."""
    lines = {
        row.name: [baselines_line(name, values) for name, values in row.baselines.items()]
        for row in rows
        if row.baselines
    }
    if len({tuple(each) for each in lines.values()}) <= 1:
        lines = {"": next(iter(lines.values()), [])}
    for row_name, each in lines.items():
        for line in each:
            print_line(f"{row_name}: {line}" if row_name else line)


def _result(row: StudyRow, name_of_set: str) -> tuple[str, str, str]:
    """Return the set, the mean result with its interval, and the adjusted p-value."""
    result = f"{100 * row.mean[name_of_set]:.2f}"
    values = row.values[name_of_set]
    if interval := row.interval.get(name_of_set):
        result += f" ({100 * interval[0]:.1f} to {100 * interval[1]:.1f})"
    elif len(values) > 1:
        low, high = 100 * min(values), 100 * max(values)
        result += f" ({len(values)} seeds: range {low:.1f} to {high:.1f})"
    p = row.adjusted_p.get(name_of_set)
    return name_of_set, result, "" if p is None else f"{p:.3f}"
