"""A paper's text about the class shares that predictions on a target were corrected for."""

from __future__ import annotations

from pennyweight.evaluation.confusions import MATRIX_CLASSES
from pennyweight.report.content import Block, Table, Text, plain
from pennyweight.report.facts import RunFacts
from pennyweight.report.phrases import plural
from pennyweight.runs.record import CorrectionRecord, GroupRecord

__all__ = ["share_blocks"]

_SHOWN_CLASSES = 5


def share_blocks(run: RunFacts) -> tuple[Block, ...]:
    """Return a paragraph and a table on the target's groups; nothing without a correction."""
    correction = run.record.correction
    if correction is None:
        return ()
    return (
        Text(f"[tab:shares] gives the class shares in the target. {_groups_sentence(correction)}"),
        Table(
            "shares",
            "Class shares that the predictions on the target were corrected for.",
            ("group", "rows", "shares"),
            tuple((one.name, f"{one.rows:,}", _shares(one)) for one in correction.groups),
        ),
        *(
            Text(f'Typical of the texts {plain(group.name)}: "{plain(example)}"', is_item=True)
            for group in correction.groups
            for example in group.examples[:1]
        ),
    )


def _groups_sentence(correction: CorrectionRecord) -> str:
    if correction.area_under_curve is None:
        return "They are the same for all of its texts."
    if correction.one_group_because is not None:
        return (
            "Its texts are treated as one population, because, compared with the training texts, "
            f"{plain(correction.one_group_because)}."
        )
    return (
        "A discriminator tells its texts and the training texts apart with an area under the ROC "
        f"curve of {correction.area_under_curve:.2f}, and assigns each text to a group."
    )


def _shares(group: GroupRecord) -> str:
    if group.refused is not None:
        return "not corrected"
    largest = sorted(group.prior.items(), key=lambda item: -item[1].share)
    shown = largest if len(largest) <= MATRIX_CLASSES else largest[:_SHOWN_CLASSES]
    shares = ", ".join(f"{plain(name)} {estimate.share:.0%}" for name, estimate in shown)
    rest = len(largest) - len(shown)
    return f"{shares}, and {plural(rest, 'other')}" if rest else shares
