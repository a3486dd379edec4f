"""A study over several data sets: its ranks in the paper, and all of it as Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from pennyweight.report.content import Block, Figure, Table, Text, plain
from pennyweight.report.facts import StudyFacts, StudyRowFacts
from pennyweight.report.phrases import cite, markdown_table, title
from pennyweight.runs.record import write_text
from pennyweight.search.results import shown
from pennyweight.search.study_ranks import StudyRanks, describe_ranks

__all__ = ["PARETO_CAPTION", "leaderboard_blocks", "study_markdown", "write_study_markdown"]

# Rows of each budget in the paper's table.
_MOST_ROWS = 5
PARETO_CAPTION = (
    "Mean result over the data sets against trained parameters. No row has a better result with as "
    "many or fewer parameters than those on the line."
)


def leaderboard_blocks(study: StudyFacts, figures: frozenset[str]) -> tuple[Block, ...]:
    """Return the paragraphs about the ranks, a table of the best rows, and the Pareto figure."""
    blocks: list[Block] = []
    if study.ranks:
        sentences = " ".join(
            f"With {each.budget:,} parameters, {plain(describe_ranks(each))}."
            for each in study.ranks
        )
        blocks = [
            Text(
                "[tab:comparison] ranks the variations by their mean results on each data set"
                f"{cite('demsar')}. {sentences}"
            ),
            _ranks_table(study),
        ]
    if "pareto" in figures:
        blocks += [
            Text("[fig:pareto] relates the mean result to the number of trained parameters."),
            Figure("pareto", PARETO_CAPTION),
        ]
    return tuple(blocks)


def _ranks_table(study: StudyFacts) -> Table:
    rows = [
        (
            row.name,
            f"{each.budget:,}",
            f"{row.mean_rank:.2f}",
            f"{100 * row.mean:.2f}",
            f"{row.parameters:,}",
        )
        for each in study.ranks
        for row in each.rows[:_MOST_ROWS]
    ]
    caption = (
        f"{study.summary or 'The study'}: mean rank and mean result in percent over "
        f"{len(study.datasets)} data sets; at most {_MOST_ROWS} variations of each budget."
    )
    return Table(
        "comparison", caption, ("variation", "budget", "rank", "mean", "parameters"), tuple(rows)
    )


def write_study_markdown(study: StudyFacts, out: Path, *, figures: Sequence[str]) -> Path:
    """Write `study.md` with the ranks, results and chosen values of a study; return its path.

    Raises:
        RunError: the file cannot be written.
    """
    path = out / "study.md"
    write_text(path, study_markdown(study, figures=figures))
    return path


def study_markdown(study: StudyFacts, *, figures: Sequence[str] = ()) -> str:
    """Return the ranks, results and chosen values of a study as Markdown.

    Args:
        study: with several data sets.
        figures: names of the figures that are in `figures/` beside the text.
    """
    return "\n\n".join(_parts(study, figures)) + "\n"


def _parts(study: StudyFacts, figures: Sequence[str]) -> Iterator[str]:
    yield f"# {study.summary or 'Study'}"
    metrics = ", ".join(f"{each} {title(study.metric_on(each))}" for each in study.datasets)
    yield (
        f"Results on {study.leading_set} in %, means over the seeds ({metrics}), with the rank "
        "among the rows of the same budget in parentheses; 1 is the best."
    )
    for ranks in study.ranks:
        yield f"## {ranks.budget:,} parameters"
        yield _ranks_markdown(study, ranks)
        yield f"{describe_ranks(ranks)}."
        if ranks.left_out:
            yield f"Not ranked, without a result on every data set: {', '.join(ranks.left_out)}."
    if any(row.choice for row in study.rows):
        yield "## Chosen values"
        yield (
            "Chosen on validation with the first seed; a star marks a value at the edge of its "
            "list, beyond which a better one might be."
        )
        yield _choices_markdown(study)
    for name in figures:
        yield f"![{name}](figures/{name}.svg)"


def _ranks_markdown(study: StudyFacts, ranks: StudyRanks) -> str:
    results = {(row.name, row.dataset): row.mean.get(ranks.set) for row in study.rows}
    rows = [
        (
            row.name,
            f"{row.mean_rank:.2f}",
            *(
                f"{100 * (results[row.name, dataset] or 0.0):.2f} ({rank:g})"
                for dataset, rank in row.ranks.items()
            ),
            f"{100 * row.mean:.2f}",
            f"{row.parameters:,}",
        )
        for row in ranks.rows
    ]
    return markdown_table(("row", "mean rank", *study.datasets, "mean", "parameters"), rows)


def _choices_markdown(study: StudyFacts) -> str:
    by_name: dict[str, dict[str, StudyRowFacts]] = {}
    for row in study.rows:
        by_name.setdefault(row.name, {})[row.dataset] = row
    rows = [
        (name, *(_choice(own.get(dataset)) for dataset in study.datasets))
        for name, own in by_name.items()
    ]
    return markdown_table(("row", *study.datasets), rows)


def _choice(row: StudyRowFacts | None) -> str:
    if row is None or row.choice is None:
        return ""
    values = row.choice.values
    texts = [
        (f"{key.rpartition('.')[2]} " if len(values) > 1 else "")
        + shown(value)
        + r"\*" * (key in row.choice.at_edge)
        for key, value in values.items()
    ]
    return ", ".join(texts)
