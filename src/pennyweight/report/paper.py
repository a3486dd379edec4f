"""A paper made from facts: generated sections, the author's prose, and what both cite."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from pennyweight.report.content import Block, Content, FrontMatter, Section, Text, plain
from pennyweight.report.facts import Facts
from pennyweight.report.phrases import interval, percent, spell, title
from pennyweight.report.references import REFERENCES, citation
from pennyweight.report.sections import BUILDERS

__all__ = ["make_content"]

_CITE = re.compile(r" ?\[cite:([\w.,-]+)\]")
Prose = Mapping[str, tuple[Text, ...]]


def make_content(facts: Facts, front: FrontMatter, prose: Prose, shown: frozenset[str]) -> Content:
    """Return the paper about some facts.

    Args:
        facts: runs, and the table of a study.
        front: title, authors and link.
        prose: the author's paragraphs by section. They come before the generated ones; sections
            of the author's own come before the last generated section, and "Abstract" replaces
            the generated abstract.
        shown: names of the figures in the paper.
    """
    generated = {heading: build(facts, shown) for heading, build in BUILDERS.items()}
    own = [name for name in prose if name not in generated and name != "Abstract"]
    *first, last = generated
    sections = [
        Section(name, (*prose.get(name, ()), *generated.get(name, ())))
        for name in (*first, *own, last)
    ]
    abstract = " ".join(text.text for text in prose.get("Abstract", ())) or _abstract(facts)
    return _with_citations(
        Content(front, abstract, tuple(section for section in sections if section.blocks))
    )


def _abstract(facts: Facts) -> str:
    run = facts.main
    counts, metrics, best = run.record.parameters, run.main_metrics, run.main_metrics.headline
    trained = counts.file if counts else run.record.plan.trainable_parameters
    number = spell(len(metrics.classes))
    task = (
        f"to give a text any number of {number} labels"
        if run.is_multi_label
        else f"to classify text into {number} classes"
    )
    article = "an" if best.metric == "accuracy" else "a"
    method = "Wilson" if best.metric == "accuracy" else "bootstrap"
    bounds = "" if best.interval is None else f" (95% {method} interval {interval(best.interval)})"
    return (
        f"We adapt {plain(run.base_name)} {task} under a hard budget of "
        f"{run.record.plan.budget:,} trainable parameters. "
        f"The system trains {trained:,} parameters, a number that we verify in the saved file. "
        f"On the {run.sets[0]} set of {metrics.rows:,} texts it reaches {article} "
        f"{title(best.metric)} of {percent(best.value)}{bounds}."
    )


def _with_citations(content: Content) -> Content:
    """Return the content with citations in words, and with the list of what they cite."""
    texts = [block.text for section in content.sections for block in section.blocks
             if isinstance(block, Text)]  # fmt: skip
    keys = {key for text in [content.abstract, *texts] for key in _keys_in(text)}
    sections = [
        replace(section, blocks=tuple(_cited(block) for block in section.blocks))
        for section in content.sections
    ]
    return replace(
        content,
        abstract=_in_words(content.abstract),
        sections=tuple(sections),
        references=tuple(sorted(REFERENCES[key].entry for key in keys)),
    )


def _cited(block: Block) -> Block:
    return replace(block, text=_in_words(block.text)) if isinstance(block, Text) else block


def _keys_in(text: str) -> list[str]:
    keys = [key for mark in _CITE.findall(text) for key in mark.split(",")]
    return [key for key in keys if key in REFERENCES]


def _in_words(text: str) -> str:
    """Replace the marks by citations; a mark without any known paper is dropped."""

    def words(mark: re.Match[str]) -> str:
        keys = _keys_in(mark[0])
        return f" {citation(keys)}" if keys else ""

    return _CITE.sub(words, text)
