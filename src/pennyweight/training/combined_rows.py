"""Whether the rows of combined runs are the same, and what follows if they are not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pennyweight.data.fingerprint import Fingerprint
from pennyweight.data.splits import Splits
from pennyweight.errors import DataError, RunError
from pennyweight.model.combinations import Combination
from pennyweight.training.combined_runs import CombinedMember

__all__ = ["describe_other_rows", "require_same_validation", "same_rows_by_name"]

_BATCH_ROWS = 1000


def require_same_validation(
    members: Sequence[CombinedMember], splits: Splits, *, row: Combination
) -> None:
    """Refuse runs whose validation rows differ: some may have been trained on those of others.

    Raises:
        DataError: there are no validation rows.
        RunError: a run had other ones.
    """
    if len(splits.validation) == 0:
        raise DataError(f"--method {row.name}: needs validation rows, and the first run has none")
    for member in members:
        if not same_rows_by_name(member, splits, "validation"):
            raise RunError(
                f"{member.path}: its validation rows are not those that {row.name} would choose "
                "by, so it may have been trained on them; train all runs with the same "
                "data.validation, or use --method average"
            )


def same_rows_by_name(member: CombinedMember, splits: Splits, name: str) -> bool:
    """Return whether a run had the same rows in a set, with the same labels by name."""
    data = member.record.data
    facts = None if data is None else data.sets.get(name)
    if facts is None:
        return False
    if member.has_first_order:
        return facts.fingerprint == splits.sets[name].fingerprint
    return facts.fingerprint == _fingerprint_in(member.order, splits, name)


def _fingerprint_in(order: Sequence[int], splits: Splits, name: str) -> str:
    """Return the fingerprint of a set with the classes in the order of another run."""
    table, fingerprint = splits.labelled[name], Fingerprint()
    pairs = "text_pair" in table.column_names
    for batch in table.iter(batch_size=_BATCH_ROWS):
        labels = [
            order[label] if isinstance(label, int) else sorted(order[each] for each in label)
            for label in batch["label"]
        ]
        second = map(str.encode, batch["text_pair"]) if pairs else None
        fingerprint.update(map(str.encode, batch["text"]), labels, second)
    return fingerprint.hexdigest()


def describe_other_rows(members: Sequence[CombinedMember], splits: Splits) -> Iterator[str]:
    """Yield a warning for each run that may have been trained on rows that are measured on now."""
    for member in members:
        if len(splits.validation) and not same_rows_by_name(member, splits, "validation"):
            yield (
                f"warning: {member.path} had other validation rows, so it may have been trained on "
                "those of this run, which then look easier than they are"
            )
    first = members[0].record
    for member in members[1:]:
        sources = [_training_source(record) for record in (member.record, first)]
        if sources[0] != sources[1]:
            yield (
                f"warning: {member.path} was trained on {sources[0]}, and {members[0].path} on "
                f"{sources[1]}; whether its rows are also in the evaluation sets was not checked"
            )


def _training_source(record: object) -> str | None:
    data = getattr(record, "data", None)
    return None if data is None else data.sets["train"].source
