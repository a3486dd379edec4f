"""The runs that are to be combined: read, checked against each other, and their start compared."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pennyweight.budget.methods import METHODS, Method
from pennyweight.budget.summary import Matrix
from pennyweight.errors import RunError
from pennyweight.inference.load import require_complete
from pennyweight.model.combinations import Combination, HeadSource, Space
from pennyweight.runs.directory import RunDirectory
from pennyweight.runs.record import RunRecord, load_record
from pennyweight.settings import find_base
from pennyweight.training.finished_run import pooling_of

__all__ = ["CombinedMember", "choose_space", "notes_on", "read_members", "warn_of_head"]

_CORRECTION = "correction.json"


@dataclass(frozen=True, slots=True)
class CombinedMember:
    """A finished run that is combined with others.

    Attributes:
        path: its directory.
        record: its record.
        order: the index in its classes of each class of the first run.
    """

    path: Path
    record: RunRecord
    order: tuple[int, ...]

    @property
    def method(self) -> Method:
        """The row of its adapter method."""
        return METHODS[self.record.recipe.adapter.method]

    @property
    def artifact(self) -> Path:
        """The directory of its adapter."""
        return RunDirectory(self.path).artifact(self.method.artifact)

    @property
    def adapted(self) -> dict[str, Matrix]:
        """Its adapted matrices, by name."""
        return {part.name: part for part in self.record.plan.matrices if part.rank is not None}

    @property
    def has_first_order(self) -> bool:
        """Whether its classes have the order of the first run."""
        return self.order == tuple(range(len(self.order)))


def read_members(runs: Sequence[Path], row: Combination) -> tuple[CombinedMember, ...]:
    """Read the records of finished runs, and refuse those that do not fit the first.

    Raises:
        RunError: there are too few or too many runs, one is no finished run or is given twice, its
            adapters cannot be combined, or its base, task, classes or trained parts differ.
    """
    _check_number(runs, row)
    records = []
    for run in runs:
        record = load_record(run)
        require_complete(run, record)
        records.append(record)
    first = CombinedMember(
        runs[0], records[0], tuple(range(len(records[0].recipe.data.label_names)))
    )
    members = [first]
    for run, record in zip(runs[1:], records[1:], strict=True):
        members.append(CombinedMember(run, record, _order(run, record, first)))
    for member in members:
        _check_method(member, first)
    for member in members[1:]:
        if difference := _difference(member.record, first.record):
            raise RunError(
                f"{member.path}: {difference}; {first.path} and it must be the same there"
            )
        _check_parts(member, first, row)
    return tuple(members)


def _check_number(runs: Sequence[Path], row: Combination) -> None:
    if len(runs) < row.fewest:
        raise RunError(
            f"--method {row.name}: given {len(runs)} run{'' if len(runs) == 1 else 's'}; give at "
            f"least {row.fewest}"
        )
    if row.most is not None and len(runs) > row.most:
        raise RunError(f"--method {row.name}: given {len(runs)} runs; give at most {row.most}")
    paths = [run.resolve() for run in runs]
    for run, path in zip(runs, paths, strict=True):
        if paths.count(path) > 1:
            raise RunError(
                f"{run}: given twice; give every run once, and use --weights to weigh it"
            )


def _order(run: Path, record: RunRecord, first: CombinedMember) -> tuple[int, ...]:
    """Return the index in a run's classes of each class of the first run."""
    own, names = record.recipe.data.label_names, first.record.recipe.data.label_names
    if sorted(own) != sorted(names):
        raise RunError(
            f"{run}: its classes are {', '.join(own)}, and those of {first.path} are "
            f"{', '.join(names)}; only runs with the same classes can be combined"
        )
    return tuple(own.index(name) for name in names)


def _check_method(member: CombinedMember, first: CombinedMember) -> None:
    """Refuse a method that cannot be combined, or not with that of the first run."""
    method, other = member.method, first.method
    if method.support.combines is None:
        known = ", ".join(name for name, row in METHODS.items() if row.support.combines)
        raise RunError(
            f"{member.path}: adapters of {method.name} cannot be combined; those of {known} can"
        )
    by_deltas = method.support.combines == other.support.combines == "deltas"
    if method is not other and not by_deltas:
        raise RunError(
            f"{member.path}: its adapter.method is {method.name}, and that of {first.path} is "
            f"{other.name}; these two cannot be combined"
        )


def _difference(record: RunRecord, first: RunRecord) -> str | None:
    """Return how a run's base, task or rows differ from those of the first; None if they fit."""
    pairs: dict[str, list[object]] = {
        "base": [each.base and each.base.reference for each in (record, first)],
        "base.revision": [each.base and each.base.revision for each in (record, first)],
        "base.quantization": [each.recipe.base.quantization for each in (record, first)],
        "base.weights": [each.recipe.base.weights for each in (record, first)],
        "task": [each.recipe.data.task for each in (record, first)],
        "kind of rows": [
            "single texts" if each.pair_columns is None else "pairs of texts"
            for each in (record, first)
        ],
    }
    if first.recipe.base.weights == "random":
        # The seed is all there is of such a base.
        pairs["seed, which a random base is drawn from,"] = [
            each.recipe.seed for each in (record, first)
        ]
    for key, (one, other) in pairs.items():
        if one != other:
            return f"its {key} is {one}, and that of the first run is {other}"
    poolings = [pooling_of(find_base(each.recipe, config_only=True)) for each in (record, first)]
    if poolings[0] != poolings[1]:
        return f"its base.pooling is {poolings[0]}, and that of the first run is {poolings[1]}"
    return None


def _check_parts(member: CombinedMember, first: CombinedMember, row: Combination) -> None:
    """Refuse a run that trains other parts than the first, apart from ranks and alphas."""
    own, others = _trained_in_full(member.record), _trained_in_full(first.record)
    for one, two, holder in ((own, others, first), (others, own, member)):
        for name, size in one.items():
            if two.get(name) != size:
                raise RunError(
                    f"{holder.path}: does not train {name} ({size:,} parameters), which the other "
                    "run trains; only runs with the same head and biases can be combined"
                )
    has_head = any(part.kind == "head" for part in member.record.plan.matrices)
    if not has_head and not member.has_first_order:
        raise RunError(
            f"{member.path}: its classes have another order than those of {first.path}, and a "
            "frozen head cannot be reordered; train with the same data.labels"
        )
    more = sorted(set(member.adapted) - set(first.adapted))
    if more and "ranks" not in row.spaces:
        raise RunError(
            f"{member.path}: adapts {more[0]}, which {first.path} does not; give the run that "
            "adapts the most matrices first, or use --method concatenated"
        )


def _trained_in_full(record: RunRecord) -> dict[str, int]:
    return {part.name: part.parameters for part in record.plan.matrices if part.rank is None}


def choose_space(
    members: Sequence[CombinedMember], row: Combination, *, requested: Space | None
) -> tuple[Space, str]:
    """Return what is averaged, and why.

    Factors are averaged if all runs have the same plan and started from the same weights: with the
    same seed, or from the same run (`train.start_from`). Otherwise deltas are.

    Args:
        members: the runs.
        row: the method.
        requested: the user's choice; None to follow the rule.

    Raises:
        RunError: the runs or the method do not allow it.
    """
    changing = _changing_the_base(members)
    if changing and "factors" not in row.spaces:
        raise RunError(
            f"--method {row.name}: the initialization of {changing[0].path} moves a part of the "
            f"base into its adapter, which {row.name} would change; use --method average"
        )
    factors_problem, deltas_problem = _factors_problem(members), _deltas_problem(members)
    if requested is not None and requested not in row.spaces:
        raise RunError(f"--space {requested}: {row.name} works on {' or '.join(row.spaces)} only")
    if requested == "factors":
        if factors_problem is not None:
            raise RunError(f"--space factors: {factors_problem}")
        if deltas_problem is not None and (other := _other_start(members)) is not None:
            raise RunError(_no_space(row, other, deltas_problem))
        return "factors", "as requested"
    if requested is not None or "factors" not in row.spaces:
        if deltas_problem is not None:
            raise RunError(f"--method {row.name}: {deltas_problem}")
        reason = "as requested" if requested else f"{row.name} works on whole deltas"
        if "ranks" in row.spaces:
            return "ranks", "the ranks of the runs add up"
        return "deltas", reason
    if len(members) == 1:
        if deltas_problem is None:
            return "deltas", "the untrained adapter changes nothing, so the delta is scaled"
        return "factors", deltas_problem
    other = _other_start(members)
    if other is None and factors_problem is None:
        return "factors", "the runs started from the same weights"
    if deltas_problem is None:
        return "deltas", factors_problem or str(other)
    raise RunError(_no_space(row, factors_problem or str(other), deltas_problem))


def _changing_the_base(members: Sequence[CombinedMember]) -> list[CombinedMember]:
    """Return the runs whose initialization moves a part of the base into the adapter."""
    return [member for member in members if member.record.recipe.adapter.changes_base]


def _no_space(row: Combination, factors_problem: str, deltas_problem: str) -> str:
    return (
        f"--method {row.name}: the factors cannot be averaged: {factors_problem}; nor can the "
        f"deltas: {deltas_problem}; train the runs with the same seed and plan"
    )


def _factors_problem(members: Sequence[CombinedMember]) -> str | None:
    """Return why factors cannot be averaged; None if they can."""
    first = members[0]
    for member in members[1:]:
        for one, other in zip(member.adapted.values(), first.adapted.values(), strict=False):
            if (one.name, one.rank, one.alpha) != (other.name, other.rank, other.alpha):
                return f"{member.path} has {_shown(one)}, and {first.path} has {_shown(other)}"
        if len(member.adapted) != len(first.adapted):
            return f"{member.path} adapts other matrices than {first.path}"
        if member.method is not first.method:
            return f"{member.path} uses {member.method.name}, and {first.path} {first.method.name}"
    return None


def _deltas_problem(members: Sequence[CombinedMember]) -> str | None:
    """Return why deltas cannot be combined; None if they can."""
    first = members[0]
    if first.method.support.combines != "deltas":
        return f"those of {first.method.name} are not a product of B and A alone"
    changing = _changing_the_base(members)
    if changing and (problem := _factors_problem(members)) is not None:
        return (
            f"the initialization of {changing[0].path} changes the base at its ranks, and {problem}"
        )
    return None


def _shown(part: Matrix) -> str:
    return f"{part.name} with rank {part.rank} and alpha {part.alpha:g}"


def _other_start(members: Sequence[CombinedMember]) -> str | None:
    """Return which run started from other weights than the first; None if all started alike."""
    first = _start_of(members[0].path, members[0].record)
    for member in members[1:]:
        if _start_of(member.path, member.record) != first:
            return f"{member.path} and {members[0].path} started from different weights"
    return None


def _start_of(run: Path, record: RunRecord) -> Hashable:
    """Return what identifies the weights that a run's training started from, first of all."""
    seen = set[Path]()
    while record.combination is None and record.recipe.train.start_from is not None:
        seen.add(run.resolve())
        run = Path(record.recipe.train.start_from)
        if run.resolve() in seen or not RunDirectory(run).record.is_file():
            return run.resolve()
        record = load_record(run)
    if record.combination is not None:
        return run.resolve()
    adapter, rows = record.recipe.adapter.model_dump(), None
    if adapter.get("initialization") == "eva" and record.data is not None:
        # Drawn from the training rows.
        rows = record.data.sets["train"].fingerprint
    ranks = tuple((part.name, part.rank) for part in record.plan.matrices if part.rank is not None)
    return (record.recipe.seed, adapter["method"], adapter.get("initialization"), ranks, rows)


def notes_on(members: Sequence[CombinedMember]) -> Iterator[str]:
    """Yield what is not taken over from the runs, and in what they differ from the first."""
    first = members[0]
    for member in members:
        if (member.artifact / _CORRECTION).is_file():
            yield (
                f"{member.path}: its correction for class shares is not taken over: it was "
                "estimated from the answers of this run alone"
            )
    if first.record.is_multi_label:
        yield "thresholds of the runs are not taken over: they are fitted again"
    for member in members[1:]:
        if not member.has_first_order:
            yield f"{member.path}: its classes are mapped by name to the order of {first.path}"
        for key in ("clean", "max_tokens", "truncation"):
            own, other = (getattr(each.record.recipe.data, key) for each in (member, first))
            if own != other:
                yield (
                    f"warning: {member.path}: was trained with data.{key} = {_text(own)}, and "
                    f"{_text(other)} is used now, as in {first.path}"
                )


def warn_of_head(
    members: Sequence[CombinedMember], space: Space, head: HeadSource
) -> Iterator[str]:
    """Yield a warning if heads of several layers are averaged that started differently."""
    parts = [part.name for part in members[0].record.plan.matrices if part.kind == "head"]
    layers = [name for name in parts if name.endswith(".weight")]
    is_product = members[0].record.recipe.base.pooling != "native"
    is_averaged = space != "factors" and head == "average" and not is_product
    if is_averaged and len(layers) > 1 and _other_start(members) is not None:
        yield (
            f"warning: the heads have {len(layers)} layers that started from different weights, "
            "and the average of such layers may be worse than each of them; compare with --head "
            "first"
        )


def _text(value: object) -> str:
    return ", ".join(map(str, value)) or "none" if isinstance(value, tuple) else str(value)
